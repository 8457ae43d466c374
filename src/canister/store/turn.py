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
    """Queues the writers of all processes on a kernel file lock.

    SQLite's own waiting polls, and whoever polls at the wrong moment starves. Here a writer looks some times
    and then sleeps in the kernel's queue: to be woken takes longer than most turns last, and while those that
    wait are on their way nobody writes.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._mutex = threading.Lock()
        self._handle: int | None = None
        watch_forks(self)

    def __enter__(self) -> None:
        self._mutex.acquire()
        try:
            if self._handle is None:
                self._handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            _await_lock(self._handle)
        except OSError as error:
            self._mutex.release()
            raise StoreError(f"{self._path} cannot be locked: {error.strerror}") from error
        except BaseException:
            self._mutex.release()
            raise

    def __exit__(self, *_: object) -> None:
        if self._handle is not None:
            fcntl.flock(self._handle, fcntl.LOCK_UN)
        self._mutex.release()

    def close(self) -> None:
        """Wait for the writer whose turn it is, and release the file."""
        with self._mutex:
            self._close_handle()

    def before_fork(self) -> None:
        """Keep others from writing until the fork is done."""
        # A lock taken on a handle the child inherits would be the child's as well.
        self._mutex.acquire()
        self._close_handle()

    def after_fork(self, *, child: bool) -> None:
        """Let others write again."""
        if child:
            self._mutex = threading.Lock()
        else:
            self._mutex.release()

    def _close_handle(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


def _await_lock(handle: int) -> None:
    for _ in range(_TRIES):
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.sched_yield()
        else:
            return
    fcntl.flock(handle, fcntl.LOCK_EX)
