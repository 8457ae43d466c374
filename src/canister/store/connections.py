"""SQLite connections: a pool that survives forks, and errors that say what to do."""

import contextlib
import struct
import threading
import time
import weakref
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, cast

import apsw

from canister.errors import (
    CanisterError,
    CorruptDatabaseError,
    DiskFullError,
    ForeignDatabaseError,
    ForkError,
    StoreBusyError,
    StoreError,
)
from canister.forks import notice_fork, watch_forks
from canister.store.peeking import begin_use, end_use, peek

_FORK_PATIENCE = 5.0
"""Seconds a fork waits for running operations of other threads."""
_parents_handles: list["Handle"] = []
"""Connections in use at a fork, kept: to close one in the child would wait for a thread that is not there."""


class Cursor(Protocol):
    """The rows of a statement."""

    def fetchone(self) -> Any:
        """Return the next row or None."""
        ...

    def fetchall(self) -> list[Any]:
        """Return the rest of the rows."""
        ...

    def __iter__(self) -> Iterator[Any]: ...


class Handle:
    """A connection, its typed ``execute(sql, parameters)``, and the stamp its transaction has drawn.

    ``write`` is ``execute`` for statements that return no rows: they share a cursor.
    """

    __slots__ = ("__weakref__", "connection", "execute", "stamp", "write")

    def __init__(self, connection: apsw.Connection) -> None:
        self.connection = connection
        self.stamp = 0
        self.execute = cast("Callable[..., Cursor]", connection.execute)
        self.write = cast("Callable[..., object]", connection.cursor().execute)


def connect(path: Path, *, full: bool) -> Handle:
    """Open the database at *path*, which must exist.

    Args:
        path: the database file.
        full: wait for the disk at every commit.
    """
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
    connection.set_busy_timeout(5000)
    # The agent does the checkpoints, so that no request pays for one.
    handle = Handle(connection)
    handle.execute("PRAGMA wal_autocheckpoint=0")
    handle.execute(f"PRAGMA synchronous={'FULL' if full else 'NORMAL'}")
    return handle


def explain(error: apsw.Error, path: Path) -> CanisterError:
    """Return what an error of SQLite means for whoever runs the node."""
    no_index = getattr(error, "extendedresult", 0) == apsw.SQLITE_IOERR_SHMSIZE  # no room for -shm
    if isinstance(error, apsw.FullError) or no_index:
        return DiskFullError(f"the disk holding {path} is full; nothing was written; free some space")
    if isinstance(error, apsw.NotADBError):
        return ForeignDatabaseError(f"{path} is not a Canister database; it was left untouched, move it away")
    if isinstance(error, apsw.CorruptError):
        return CorruptDatabaseError(
            f"{path} is damaged ({error}); it was left untouched; move the data directory away and start "
            "again: the sessions come back from the other members"
        )
    if isinstance(error, (apsw.BusyError, apsw.LockedError)):
        return StoreBusyError(f"another program holds {path} locked ({error})")
    if isinstance(error, (apsw.ReadOnlyError, apsw.CantOpenError, apsw.PermissionsError)):
        return StoreError(f"{path} cannot be written ({error}); check its owner and permissions")
    return StoreError(f"{path}: {error}")


class Pool:
    """Connections to one database, lent to one thread at a time.

    Taking and giving back are single list operations and need no lock. Before a fork the pool waits
    until all are back and closes them. One that an interrupted thread has lost closes by itself.
    """

    def __init__(self, path: Path, *, full: bool) -> None:
        self._path = path
        self._full = full
        self._file = _number(path)
        self._idle: list[Handle] = []
        self._lock = threading.RLock()
        self._gate = threading.Condition(self._lock)
        self._handles: weakref.WeakSet[Handle] = weakref.WeakSet()
        self._paused = False
        self._broken = False
        self._astray = False
        """Whether the file was found to be gone, or another one."""
        self._closed = False
        self._ended = False
        begin_use(path)
        watch_forks(self)

    def take(self) -> Handle:
        """Return a connection that nobody else uses until it is given back.

        Raises:
            StoreError: the store is closed, or the database cannot be opened.
            ForkError: the process is the child of a fork that did not wait for this pool.
        """
        notice_fork()
        try:
            return self._idle.pop()
        except IndexError:
            return self._open()

    def give(self, handle: Handle) -> None:
        """Give a connection back."""
        self._idle.append(handle)
        if self._paused or self._closed or self._astray:
            with self._lock:
                self._close_idle()
                self._end_use()
                self._gate.notify_all()

    @contextmanager
    def lend(self) -> Generator[Handle, None, None]:
        """Take a connection for the length of a block, its errors explained."""
        handle = self.take()
        try:
            yield handle
        except apsw.Error as error:
            raise explain(error, self._path) from error
        finally:
            self.give(handle)

    def check_file(self) -> None:
        """Look whether the file is still there under its name; otherwise lend no connection until it is.

        Raises:
            StoreError: it was removed or replaced: what is written to it is lost.
        """
        try:
            status = self._path.stat()
            self._astray = (status.st_dev, status.st_ino) != self._file
        except (FileNotFoundError, NotADirectoryError):
            self._astray = True
        except OSError:
            return  # whether it is there cannot be told
        if self._astray:
            with self._lock:
                self._close_idle()
            raise self._replaced()

    def close(self) -> None:
        """Close all connections, lent ones as they come back."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._close_idle()
                self._end_use()

    def before_fork(self) -> None:
        """Wait until no connection is in use, and close them all."""
        deadline = time.monotonic() + _FORK_PATIENCE
        with self._lock:
            self._paused = True
            self._broken = True  # until none is open, also if the wait is interrupted
            self._close_idle()
            while self._handles and time.monotonic() < deadline:
                self._gate.wait(0.05)
                self._close_idle()
            self._broken = bool(self._handles)

    def after_fork(self, *, child: bool) -> None:
        """Let threads take connections again."""
        if child:
            self._leave_to_parent()
        with self._lock:
            self._paused = False
            self._broken = self._broken and child
            self._gate.notify_all()

    def _leave_to_parent(self) -> None:
        """Close what was open at a fork that nobody had told of before."""
        # SQLite may be closed in a child where no thread was inside it, and nothing is written then.
        opening = not self._paused and not self._lock.acquire(blocking=False)
        self._lock = threading.RLock()
        self._gate = threading.Condition(self._lock)
        if not opening:
            self._close_idle(writes=False)
        self._broken = self._broken or opening or bool(self._handles)
        _parents_handles.extend(self._handles)

    def _open(self) -> Handle:
        with self._lock:
            self._gate.wait_for(lambda: not self._paused)
            if self._closed:
                raise StoreError(f"the store at {self._path} is closed")
            if self._broken:
                raise ForkError(
                    "the process forked while another thread was using the store; open the Canister in the "
                    "child (uWSGI: lazy-apps = true)"
                )
            if self._astray or _number(self._path) not in (None, self._file):
                raise self._replaced()
            try:
                handle = connect(self._path, full=self._full)
            except apsw.Error as error:
                raise explain(error, self._path) from error
            self._handles.add(handle)
            return handle

    def _replaced(self) -> StoreError:
        return StoreError(
            f"{self._path} was removed or replaced while it was in use; stop all processes of this node, "
            "then start them again"
        )

    def _end_use(self) -> None:
        if self._closed and not self._handles and not self._ended:
            self._ended = True
            end_use(self._path)

    def _close_idle(self, *, writes: bool = True) -> None:
        with contextlib.suppress(IndexError):  # a thread may take the last one just now
            while True:
                handle = self._idle.pop()
                # To close the last one would write, and remove a log of this name that may be another's.
                if not writes or self._astray:
                    handle.connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
                handle.connection.close()
                self._handles.discard(handle)


def _number(path: Path) -> tuple[int, int] | None:
    """Return what tells a file from another one of the same name."""
    try:
        status = path.stat()
    except OSError:
        return None  # to open it says more
    return status.st_dev, status.st_ino


def pending_frames(database: Path) -> int:
    """Return how many pages of the write-ahead log are not in the database file yet.

    Read from the header of the WAL index, whose layout SQLite documents (walformat.html, 2.1):
    asking SQLite itself would be a checkpoint.
    """
    try:
        header = peek(database, "-shm", 100)
    except FileNotFoundError:
        return 0
    if len(header) < 100:
        return 0
    (in_log,) = struct.unpack_from("=I", header, 16)
    (moved,) = struct.unpack_from("=I", header, 96)
    return int(in_log) - int(moved)


def retrying(act: Callable[[], bool], *, seconds: float, pause: float = 0.05) -> bool:
    """Repeat *act* until it returns True or the time is over; return its last answer."""
    deadline = time.monotonic() + seconds
    while not act():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause)
    return True
