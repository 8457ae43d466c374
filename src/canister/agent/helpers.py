"""Threads that do what waits for the disk, while the agent's loop goes on."""

import asyncio
import contextlib
import os
import sys
import threading
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_COUNT = 3
"""How many jobs run at once: the log's upkeep, the agent's sweep and one that was asked for."""


class Helpers:
    """A few daemon threads, which work as long as the process has any other thread.

    The executors of Python are switched off when the main thread ends, while others may go on for long; and
    from then on some releases begin no thread any more. So these are begun before they are needed.
    """

    def __init__(self) -> None:
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._open = 0
        self._changed = threading.Condition()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Begin the threads."""
        for number in range(_COUNT):
            name = f"canister-agent_{number}"
            thread = threading.Thread(target=self._work, name=name, daemon=True)
            thread.start()
            self._threads.append(thread)

    async def run(self, act: Callable[[*Ts], T], *args: *Ts) -> T:
        """Return what *act* returns, which runs in one of the threads.

        It runs to its end, also where nobody awaits it any more.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()
        with self._changed:
            self._open += 1
        self._jobs.put(partial(answer, loop, done, partial(act, *args)))
        return await done

    def finish(self) -> None:
        """Wait until all that was begun is done."""
        with self._changed:
            self._changed.wait_for(lambda: not self._open)

    def stop(self) -> None:
        """End the threads once all is done."""
        for _ in self._threads:
            self._jobs.put(None)
        while self._threads:
            self._threads.pop().join()

    def _work(self) -> None:
        _let_others_run()
        while (job := self._jobs.get()) is not None:
            try:
                job()
            finally:
                with self._changed:
                    self._open -= 1
                    self._changed.notify_all()


def answer(loop: asyncio.AbstractEventLoop, done: "asyncio.Future[T]", act: Callable[[], T]) -> None:
    """Do what a task of *loop* awaits, in a thread that is not the loop's."""
    result: Any = None
    failure: BaseException | None = None
    try:
        if not done.cancelled():
            result = act()
    except BaseException as error:  # noqa: BLE001 - whoever awaits it gets it
        failure = error
    with contextlib.suppress(RuntimeError):  # the loop has been closed meanwhile: nobody awaits it
        loop.call_soon_threadsafe(_settle, done, result, failure)


def _settle(done: "asyncio.Future[T]", result: T, failure: BaseException | None) -> None:
    if done.done():  # cancelled
        return
    if failure is None:
        done.set_result(result)
    else:
        done.set_exception(failure)


def _let_others_run() -> None:
    """Have this thread take the processor from no other one when it wakes; it gets as much time all the same.

    The agent's threads move pages, sync them, and sweep. Whom they put aside may be the writer whose turn it
    is.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # a sandbox may forbid it
            if os.sched_getscheduler(0) == os.SCHED_OTHER:
                os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
