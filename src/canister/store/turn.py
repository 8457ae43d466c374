"""Whose turn it is to write: one after the other, over all threads and processes of a node."""

import fcntl
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar, TypeVarTuple
from weakref import WeakValueDictionary

from canister.errors import StoreError
from canister.forks import notice_fork, watch_forks

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_NEXT, _TURN = 0, 1
"""The two locks."""
_LOOKS = 120
"""How often a writer looks whether its turn has come before it sleeps: about as long as a commit takes."""
_AGAIN = (
    "this thread is in the middle of a write to this store: neither a signal handler nor a function that a "
    "write calls, such as one given to update_key, can write or close the store; do it before or after"
)


class _Writers(set[int]):
    """The threads of this process that write to one directory, or wait for their turn to."""


_writers: WeakValueDictionary[str, _Writers] = WeakValueDictionary()
"""By lock file: whoever opens a directory twice has two queues to it, whose kernel locks are the same."""


class WriteTurn:
    """Queues the writers of all processes on two kernel file locks.

    SQLite's own waiting polls, and whoever polls at the wrong moment starves. Here a writer looks some times
    and then sleeps in the kernel's queue: to be woken takes longer than most turns last, and while those that
    wait are on their way nobody writes. It looks at memory: asking for a lock in vain costs three times that.

    Whoever runs is *next*: nobody else comes before it, so it can work out what to write while the writer
    before it still writes. `begin` waits for that one to end. Both locks are the kernel's: it frees them when
    their holder is killed.

    Args:
        next_lock: the file that is locked by whoever is next.
        turn_lock: the file that is locked by whoever writes.
        busy: two bytes that all writers share: whether each lock seems to be held. The locks decide: who is
            killed leaves its byte as it is.
    """

    def __init__(self, next_lock: Path, turn_lock: Path, busy: bytearray | memoryview) -> None:
        self._paths = (next_lock, turn_lock)
        self._busy = busy
        self._mutex = threading.Lock()
        self._files: tuple[int, int] | None = None
        self._owner = 0
        self._writers = _writers.setdefault(str(next_lock), _Writers())
        self._may_be_next = self._may_write = False
        self._rests = False
        self._closed = False
        watch_forks(self)

    def run(self, act: Callable[[*Ts], T], *args: *Ts) -> T:
        """Let *act* run while nobody can come before it; return what it returns. It has to `begin` to write.

        An exception of a signal handler may come after any call. All locks are free afterwards all the same:
        what frees one is the next thing that is called, and to free one that is free harms nobody.

        Raises:
            StoreError: it is closed, a lock cannot be had, or this thread is amid a write already.
        """
        notice_fork()
        this = threading.get_ident()
        writers = self._writers
        if self._owner == this or this in writers:
            raise StoreError(_AGAIN)
        with self._mutex:
            try:
                self._owner = this
                writers.add(this)
                self._may_write = False
                following, turn = self._files or self._open()
                try:
                    self._may_be_next = True
                    self._await(following, _NEXT)
                    return act(*args)
                finally:
                    try:
                        if self._may_write:
                            self._busy[_TURN] = 0
                            fcntl.flock(turn, fcntl.LOCK_UN)
                    finally:
                        if self._may_be_next:
                            self._busy[_NEXT] = 0
                            fcntl.flock(following, fcntl.LOCK_UN)
            finally:
                self._owner = 0
                writers.discard(this)

    def begin(self, *, alone: bool) -> None:
        """Wait until the writer before has ended; it is this one's turn then.

        Args:
            alone: whether nobody may be next until it is over, since nothing was worked out before.
        """
        assert self._files is not None, "only what is run can begin"
        following, turn = self._files
        self._may_write = True
        self._await(turn, _TURN)
        if not alone:
            self._busy[_NEXT] = 0
            fcntl.flock(following, fcntl.LOCK_UN)
            self._may_be_next = False

    def _await(self, handle: int, lock: int) -> None:
        busy = self._busy
        try:
            for _ in range(_LOOKS):
                if not busy[lock] and _try_lock(handle):
                    break
                os.sched_yield()
            else:
                fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError as error:
            raise _unusable(self._paths[lock], error) from error
        busy[lock] = 1

    def close(self) -> None:
        """Wait for the writer whose turn it is, and release the files.

        Raises:
            StoreError: this thread is that writer.
        """
        notice_fork()
        if self._owner == threading.get_ident():
            raise StoreError(_AGAIN)
        with self._mutex:
            self._closed = True
            self._close_files()

    def before_fork(self) -> None:
        """Keep others from writing until the fork is done."""
        # A lock taken on a handle the child inherits would be the child's as well.
        this = threading.get_ident()
        if self._owner != this:  # else it forks in the middle of a write, which the child cannot go on with
            self._mutex.acquire()
            self._owner, self._rests = this, True
            self._close_files()

    def after_fork(self, *, child: bool) -> None:
        """Let others write again."""
        rests, self._rests = self._rests, False
        if child:
            self._close_files()
            self._mutex, self._owner = threading.Lock(), 0
            self._writers.clear()
        elif rests:  # no signal handler has raised while it waited
            self._owner = 0
            self._mutex.release()

    def _open(self) -> tuple[int, int]:
        if self._closed:
            raise StoreError(f"the store in {self._paths[0].parent} is closed")
        following = _open(self._paths[0])
        try:
            self._files = following, _open(self._paths[1])
        except BaseException:
            os.close(following)
            raise
        return self._files

    def _close_files(self) -> None:
        files, self._files = self._files, None
        for handle in files or ():
            os.close(handle)


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _unusable(path, error) from error


def _try_lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _unusable(path: Path, error: OSError) -> StoreError:
    return StoreError(f"{path} cannot be locked: {error.strerror}")
