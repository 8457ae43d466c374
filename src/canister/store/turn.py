"""Whose turn it is to write: one after the other, over all threads and processes of a node."""

import fcntl
import os
import threading
from pathlib import Path

from canister.errors import StoreError
from canister.forks import watch_forks

_TRIES = 20
"""How often a writer looks whether its turn has come before it sleeps: about as long as a commit takes."""


class WriteTurn:
    """Queues the writers of all processes on two kernel file locks.

    SQLite's own waiting polls, and whoever polls at the wrong moment starves. Here a writer looks some times
    and then sleeps in the kernel's queue: to be woken takes longer than most turns last, and while those that
    wait are on their way nobody writes.

    Whoever enters is *next*: nobody else comes before it, so it can work out what to write while the writer
    before it still writes. `begin` waits for that one to end. Both locks are the kernel's: it frees them when
    their holder is killed.

    Args:
        next_lock: the file that is locked by whoever is next.
        turn_lock: the file that is locked by whoever writes.
    """

    def __init__(self, next_lock: Path, turn_lock: Path) -> None:
        self._paths = (next_lock, turn_lock)
        self._mutex = threading.Lock()
        self._files: tuple[int, int] | None = None
        self._is_next = False
        self._writes = False
        watch_forks(self)

    def __enter__(self) -> None:
        self._mutex.acquire()
        try:
            files = self._files or self._open()
            self._is_next = True  # before it is: whatever interrupts the wait, the lock is let go
            _await_lock(files[0])
        except BaseException as error:
            self.__exit__()
            if isinstance(error, OSError):
                raise StoreError(f"{self._paths[0]} cannot be locked: {error.strerror}") from error
            raise

    def begin(self, *, alone: bool) -> None:
        """Wait until the writer before has ended; it is this one's turn then.

        Args:
            alone: whether nobody may be next until it is over, since nothing was worked out before.
        """
        assert self._files is not None, "it has to be entered first"
        following, turn = self._files
        try:
            self._writes = True
            _await_lock(turn)
            if not alone:
                fcntl.flock(following, fcntl.LOCK_UN)
                self._is_next = False
        except OSError as error:
            raise StoreError(f"{self._paths[1]} cannot be locked: {error.strerror}") from error

    def __exit__(self, *_: object) -> None:
        if self._files is not None:
            following, turn = self._files
            if self._writes:
                self._writes = False
                fcntl.flock(turn, fcntl.LOCK_UN)
            if self._is_next:
                self._is_next = False
                fcntl.flock(following, fcntl.LOCK_UN)
        self._mutex.release()

    def close(self) -> None:
        """Wait for the writer whose turn it is, and release the files."""
        with self._mutex:
            self._close_files()

    def before_fork(self) -> None:
        """Keep others from writing until the fork is done."""
        # A lock taken on a handle the child inherits would be the child's as well.
        self._mutex.acquire()
        self._close_files()

    def after_fork(self, *, child: bool) -> None:
        """Let others write again."""
        if child:
            self._mutex = threading.Lock()
        else:
            self._mutex.release()

    def _open(self) -> tuple[int, int]:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        following = os.open(self._paths[0], flags, 0o600)
        try:
            self._files = following, os.open(self._paths[1], flags, 0o600)
        except BaseException:
            os.close(following)
            raise
        return self._files

    def _close_files(self) -> None:
        for handle in self._files or ():
            os.close(handle)
        self._files = None


def _await_lock(handle: int) -> None:
    for _ in range(_TRIES):
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.sched_yield()
        else:
            return
    fcntl.flock(handle, fcntl.LOCK_EX)
