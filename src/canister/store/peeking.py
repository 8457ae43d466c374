"""Reading and syncing files that SQLite has open, without taking its locks away.

POSIX drops all locks a process holds on a file when the process closes *any* descriptor of it
(sqlite.org/howtocorrupt.html, 2.2). So while this process has connections to a database, descriptors of
its files that were opened here are kept until the last of them is gone.
"""

import os
import threading
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

_lock = threading.Lock()
_users: Counter[Path] = Counter()
_kept: dict[Path, dict[tuple[str, int], int]] = {}


def _renew_lock() -> None:
    """Give a forked child a lock that no thread of its parent holds."""
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_renew_lock)


def begin_use(database: Path) -> None:
    """Connections to *database* may be open in this process from now on."""
    with _lock:
        _users[database] += 1


def end_use(database: Path) -> None:
    """One of those who began to use *database* has closed its connections."""
    with _lock:
        _users[database] -= 1
        if not _users[database]:
            del _users[database]
            for descriptor in _kept.pop(database, {}).values():
                os.close(descriptor)


def peek(database: Path, suffix: str, size: int) -> bytes:
    """Return the first bytes of a database file or of one that goes with it.

    Args:
        database: the database file.
        suffix: what the name of the file to read has after that of the database.
        size: how many bytes.

    Raises:
        OSError: the file is not there or cannot be read.
    """
    with _opened(database, suffix) as descriptor:
        return os.pread(descriptor, size, 0)


def sync(database: Path, suffix: str) -> None:
    """Wait until what was written to a database file, or to one that goes with it, is on the disk.

    Raises:
        OSError: it is not there or cannot be synced.
    """
    with _opened(database, suffix) as descriptor:
        os.fsync(descriptor)


@contextmanager
def _opened(database: Path, suffix: str) -> Generator[int, None, None]:
    path = database.with_name(database.name + suffix)
    with _lock:
        kept = _kept.get(database, {})
        key = (suffix, path.stat().st_ino)
        descriptor = kept.get(key)
        if descriptor is None:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            yield descriptor
        finally:
            if _users[database]:
                _kept.setdefault(database, {})[key] = descriptor
            else:
                os.close(descriptor)
