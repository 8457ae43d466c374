"""Sessions a process has read, kept until any process of the node writes to them.

The processes of a node share a file of counts in memory, one for each group of buckets. A writer makes
the counts of what it writes odd before its commit is seen and even again afterwards, so whoever finds the
even count it had read before it read a session knows that the session is still the same. A writer that is
killed in between leaves an odd count: nothing of that group is kept until the next writer has passed.
"""

import errno
import mmap
import os
from pathlib import Path

from canister.errors import DiskFullError, StoreError
from canister.store.base import BUCKETS, Stored

_GROUPS = BUCKETS // 4
FACTS = _GROUPS
"""The group of what is not a session: the members, and doubts about them."""
FILE_BYTES = 4 * (_GROUPS + 1)

_MOST = 8_000_000
"""Bytes in each of two generations; what is not used for one of them is forgotten."""
_OVERHEAD = 1000
"""Bytes of a session in memory beside its encoding, in round numbers."""
_WRAP = 0xFFFF_FFFF
_CLOSED = memoryview(bytes(FILE_BYTES)).cast("I")


def group_of(bucket: int) -> int:
    """Return the group in which the writes to a bucket are counted."""
    return bucket >> 2


def make_counts(path: Path) -> None:
    """Make the file of counts, or complete it; to be called while nobody writes.

    It is written, not just extended: a page of a map that has no room on the disk kills the process.

    Raises:
        StoreError: it cannot be made.
    """
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            size = os.fstat(handle).st_size
            while size < FILE_BYTES:
                size += os.pwrite(handle, bytes(FILE_BYTES - size), size)
        finally:
            os.close(handle)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFullError(
                f"the disk holding {path} is full; nothing was written; free some space"
            ) from error
        raise StoreError(f"{path} cannot be made: {error.strerror}") from error


class SessionCache:
    """What one process keeps. Safe to share between threads and over forks.

    Args:
        path: the file of counts, as `make_counts` left it.
        most: how many bytes are kept in each generation.

    Raises:
        StoreError: the file cannot be opened.
    """

    def __init__(self, path: Path, most: int = _MOST) -> None:
        try:
            with path.open("r+b") as file:
                shared = mmap.mmap(file.fileno(), FILE_BYTES)
        except (OSError, ValueError) as error:
            raise StoreError(f"{path} cannot be mapped: {error}") from error
        self.counts = memoryview(shared).cast("I")
        """How often each group was written to, twice; odd while it is being written to."""
        self._most = most
        self._young: dict[bytes, tuple[int, Stored, int]] = {}
        self._old: dict[bytes, tuple[int, Stored, int]] = {}
        self._size = 0
        self._marked: set[int] = set()
        self.fresh: dict[bytes, tuple[int, Stored, int]] = {}
        """What the transaction under way has written of what is worth keeping, with group and bytes."""

    def find(self, session: bytes, count: int) -> Stored | None:
        """Return a session that was read at the same *count* of its group; None if there is none."""
        found = self._young.get(session)
        if found is None:
            found = self._old.pop(session, None)
            if found is None:
                return None
            self.keep(session, *found)
        return found[1] if found[0] == count else None

    def keep(self, session: bytes, count: int, stored: Stored, size: int) -> None:
        """Keep a session.

        Args:
            session: the encoded id.
            count: that of its group, read before the session was.
            stored: the session; what is held back alone is not kept.
            size: the bytes of its encoding.
        """
        if count & 1 or (stored.record is None and stored.held) or size > self._most:
            return
        self._young[session] = (count, stored, size)
        self._size += size + _OVERHEAD
        if self._size > self._most:
            self._old, self._young, self._size = self._young, {}, 0

    def mark(self, group: int) -> None:
        """Note that the transaction under way writes to a group; its writer is the only one."""
        if group not in self._marked:
            self._marked.add(group)
            self.counts[group] |= 1

    def settle(self) -> None:
        """Note that the transaction is over, committed or not."""
        for group in self._marked:
            self.counts[group] = (self.counts[group] + 1) & _WRAP
        self._marked.clear()
        if self.fresh:
            fresh, self.fresh = self.fresh, {}
            for session, (group, stored, size) in fresh.items():
                self.keep(session, self.counts[group], stored, size)

    def close(self) -> None:
        """Forget everything, and keep nothing more; to be called when no writer is left."""
        self._most = -1
        self._young, self._old = {}, {}
        self.counts = _CLOSED  # the file is let go as soon as the last reader that is under way is through
