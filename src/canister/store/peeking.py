"""Reading and syncing files that SQLite has open, without taking its locks away.

POSIX drops all locks a process holds on a file when the process closes *any* descriptor of it
(sqlite.org/howtocorrupt.html, 2.2). So while this process has connections to a database, descriptors of
its files that were opened here are kept until the last of them is gone.
"""

import os
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from canister.forks import Mutex

_lock = Mutex()
_users: Counter[Path] = Counter()
_kept: dict[Path, dict[tuple[str, int], int]] = {}


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


@contextmanager
def in_use(database: Path) -> Generator[None, None, None]:
    """Connections to *database* may be open in this process inside the block."""
    begin_use(database)
    try:
        yield
    finally:
        end_use(database)


def peek(database: Path, suffix: str, size: int) -> bytes:
    """Return the first bytes of a database file or of one that goes with it.

    Args:
        database: the database file.
        suffix: what the name of the file to read has after that of the database.
        size: how many bytes.

    Raises:
        OSError: the file is not there or cannot be read.
    """
    with _lock:
        descriptor = _open(database, suffix)
        try:
            return os.pread(descriptor, size, 0)
        finally:
            if not _users[database]:
                os.close(descriptor)


def sync(database: Path) -> None:
    """Wait until what was written to a database file is on the disk; connections to it must be open here.

    Raises:
        OSError: it is not there or cannot be synced.
    """
    with _lock:
        descriptor = _open(database, "")
    os.fsync(descriptor)  # may take long, and nobody has to wait for it who only reads


def _open(database: Path, suffix: str) -> int:
    """Return a descriptor, which is kept while connections are open."""
    path = database.with_name(database.name + suffix)
    kept = _kept.get(database, {})
    key = (suffix, path.stat().st_ino)
    descriptor = kept.get(key)
    if descriptor is None:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        if _users[database]:
            _kept.setdefault(database, {})[key] = descriptor
    return descriptor
