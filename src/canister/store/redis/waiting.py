"""Waiting: in a thread it blocks; in a call that an event loop makes, the loop goes on meanwhile.

The store is written once, as code that blocks. All that it ever waits for is here: a socket, a pause, a name
to be resolved, a turn. `beside` runs such code in a greenlet: where it waits, the greenlet is left, the task
awaits the same thing, and the greenlet goes on with what came of it. So nothing above knows which of the
two it is, and a connection belongs to no event loop: whoever needs one next may have it.
"""

import asyncio
import contextvars
import select
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, TypeVarTuple, cast

from greenlet import getcurrent, greenlet

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

Place = tuple[socket.AddressFamily, Any]
"""Where a socket connects to."""


async def beside(act: Callable[[*Ts], T], *args: *Ts) -> T:
    """Run what waits by the functions of this module; the event loop goes on while it does.

    It runs in the loop's own thread, in a copy of the task's context. If the task is cancelled, what it
    waits for raises `asyncio.CancelledError`.
    """
    call = _Call(act)
    call.gr_context = contextvars.copy_context()
    step = call.switch(*args)
    while not call.dead:
        try:
            came = await step
        except BaseException:  # noqa: BLE001 - it is raised in the call, a cancellation too
            step = call.throw(*sys.exc_info())
        else:
            step = call.switch(came)
    return cast("T", step)


class _Call(greenlet):
    """Code that runs in `beside`."""


def _awaiting(step: Coroutine[Any, Any, T]) -> T:
    """Have the task that runs `beside` await something; return what comes of it."""
    parent = getcurrent().parent
    assert parent is not None  # a call is made by the greenlet that it returns to
    return cast("T", parent.switch(step))


def is_call(code: greenlet) -> bool:
    """Tell whether code runs in `beside`."""
    return isinstance(code, _Call)


def _in_loop() -> bool:
    return is_call(getcurrent())


def is_ready(file: int, *, to_write: bool, seconds: float) -> bool:
    """Wait until a socket can be read or written; False if it cannot in time."""
    if _in_loop():
        return _awaiting(_is_ready(file, to_write=to_write, seconds=seconds))
    poll = select.poll()
    poll.register(file, select.POLLOUT if to_write else select.POLLIN)
    return bool(poll.poll(seconds * 1000))


async def _is_ready(file: int, *, to_write: bool, seconds: float) -> bool:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[bool] = loop.create_future()
    timer = loop.call_later(seconds, _settle, ready, False)
    (loop.add_writer if to_write else loop.add_reader)(file, _settle, ready, True)
    try:
        return await ready
    finally:
        (loop.remove_writer if to_write else loop.remove_reader)(file)
        timer.cancel()


def _settle(future: "asyncio.Future[bool]", value: bool) -> None:
    if not future.done():
        future.set_result(value)


def pause(seconds: float) -> None:
    """Let time pass."""
    if _in_loop():
        _awaiting(asyncio.sleep(seconds))
    else:
        time.sleep(seconds)


def resolve(host: str, port: int, seconds: float) -> list[Place]:
    """Return where a host is.

    Args:
        host: its name or address.
        port: the port there.
        seconds: how long an event loop's call waits; a thread waits for as long as the system does.

    Raises:
        OSError: nobody knows.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:  # it is a name, so somebody must be asked
        if _in_loop():
            asked = asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
            found = _awaiting(asyncio.wait_for(asked, seconds))
        else:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [(family, place) for family, _, _, _, place in found]


class Turns:
    """Lets so many in at a time, in the order in which they came: threads and calls of event loops alike.

    Args:
        free: how many.
    """

    def __init__(self, free: int) -> None:
        self._free = free
        self._lock = threading.Lock()
        self._queue: deque[_Turn] = deque()

    def take(self, seconds: float) -> bool:
        """Wait for a turn; False if none comes in time."""
        with self._lock:
            if self._free:
                self._free -= 1
                return True
            turn = _Turn()
            self._queue.append(turn)
        came = False
        try:
            came = turn.wait(seconds)
        finally:
            if not came:
                self._leave(turn)
        return came

    def give_back(self) -> None:
        """Let the next one in."""
        while True:
            with self._lock:
                if not self._queue:
                    self._free += 1
                    return
                turn = self._queue.popleft()
            if turn.call():
                return

    def _leave(self, turn: "_Turn") -> None:
        with self._lock:
            waits = turn in self._queue
            if waits:
                self._queue.remove(turn)
        if not waits:  # it was called at the last moment
            self.give_back()


class _Turn:
    """Somebody who waits to be called."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop() if _in_loop() else None
        self._called = threading.Event() if self._loop is None else self._loop.create_future()

    def wait(self, seconds: float) -> bool:
        """Wait to be called; False if that does not happen in time."""
        if isinstance(self._called, threading.Event):
            return self._called.wait(seconds)
        return _awaiting(_within(self._called, seconds))

    def call(self) -> bool:
        """Call whoever waits, from any thread; False if the event loop is closed."""
        if isinstance(self._called, threading.Event):
            self._called.set()
            return True
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(_settle, self._called, True)
        except RuntimeError:
            return False
        return True


async def _within(future: "asyncio.Future[bool]", seconds: float) -> bool:
    loop = asyncio.get_running_loop()
    timer = loop.call_later(seconds, _settle, future, False)
    try:
        return await future
    finally:
        timer.cancel()
