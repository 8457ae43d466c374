"""Sessions a process has read, kept until any process of the node writes to them.

The processes of a node share a file of counts in memory, one for each group of buckets. A writer makes
the counts of what it writes odd before its commit is seen and even again afterwards, so whoever finds the
even count it had read before it read a session knows that the session is still the same. A writer that is
killed in between leaves an odd count: nothing of that group is kept until the next writer has passed.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

import msgspec

from canister.store.base import BUCKETS, Stored
from canister.store.shared import shared_memory
from canister.store.transaction import Row

T = TypeVar("T")

_GROUPS = BUCKETS // 4
FACTS = _GROUPS
"""The group of what is not a session: the members, doubts about them, and whether the clock is off."""
FILE_BYTES = 4 * (_GROUPS + 1)

_MOST = 8_000_000
"""Bytes in each of two generations; what is not used for one of them is forgotten."""
_OVERHEAD = 1000
"""Bytes of a session in memory beside its encoding, in round numbers."""
_MOST_ABSENT = 8192
"""Ids of which it is kept that there is no such session: 5 MB at the most."""
_WRAP = 0xFFFF_FFFF
_CLOSED = memoryview(b"\1" * FILE_BYTES).cast("I")
"""Counts that are odd for good: nothing is kept at them, nor found."""


def group_of(bucket: int) -> int:
    """Return the group in which the writes to a bucket are counted."""
    return bucket >> 2


class Kept(msgspec.Struct, frozen=True, gc=False):
    """A session in memory.

    Attributes:
        at: the count of its group at which this is what is stored.
        stored: the session, as readers get it.
        row: the session, as writers need it.
        size: the bytes of its encoding.
        place: where the row is in the table.
    """

    at: int
    stored: Stored
    row: Row
    size: int
    place: int


class SessionCache:
    """What one process keeps. Safe to share between threads and over forks.

    Args:
        path: the file of counts.
        most: how many bytes are kept in each generation.

    Raises:
        StoreError: the file cannot be opened.
    """

    def __init__(self, path: Path, most: int = _MOST) -> None:
        self.counts = memoryview(shared_memory(path, FILE_BYTES)).cast("I")
        """How often each group was written to, twice; odd while it is being written to."""
        self._most = most
        self._young: dict[bytes, Kept] = {}
        self._old: dict[bytes, Kept] = {}
        self._size = 0
        self._absent: dict[bytes, int] = {}
        self._marked: dict[int, int] = {}
        self.fresh: dict[bytes, Kept] = {}
        """What the transaction under way has written of what is worth keeping once it is committed."""

    def find(self, session: bytes, count: int) -> Kept | None:
        """Return a session that was kept at the same *count* of its group; None if there is none."""
        kept = self._young.get(session)
        if kept is None:
            kept = self._old.pop(session, None)
            if kept is None:
                return None
            self.keep(session, kept)
        return kept if kept.at == count else None

    def keep(self, session: bytes, kept: Kept) -> None:
        """Keep a session; its count was read before the session was.

        The memo of what was kept before goes on with it, as long as it lives.
        """
        if kept.at & 1 or kept.size > self._most:
            return
        before, stored = self._young.get(session), kept.stored
        if before is not None and stored.record is not None and stored.record.destroy is None:
            stored.memo = stored.memo or before.stored.memo
        self._young[session] = kept
        self._size += kept.size + _OVERHEAD
        if self._size > self._most:
            self._old, self._young, self._size = self._young, {}, 0

    def is_absent(self, session: bytes, count: int) -> bool:
        """Tell whether a session was looked for in vain at the same *count* of its group."""
        return self._absent.get(session) == count

    def keep_absent(self, session: bytes, count: int) -> None:
        """Keep that a session is not here; *count* was read before it was looked for."""
        if count & 1:
            return
        if len(self._absent) >= _MOST_ABSENT:
            self._absent = {}
        self._absent[session] = count

    def mark(self, group: int) -> int:
        """Note that the transaction under way writes to a group; its writer is the only one.

        Returns:
            The count of the group once the transaction is over.
        """
        after = self._marked.get(group)
        if after is None:
            count = self.counts[group] | 1
            self.counts[group] = count
            after = self._marked[group] = (count + 1) & _WRAP
        return after

    def settle(self) -> None:
        """Note that the transaction is over, committed or not."""
        for group, after in self._marked.items():
            self.counts[group] = after
        self._marked.clear()
        if self.fresh:
            for session, kept in self.fresh.items():
                self.keep(session, kept)
            self.fresh = {}

    def close(self) -> None:
        """Forget everything, and keep nothing more; to be called when no writer is left."""
        self._young, self._old, self._absent = {}, {}, {}
        self.counts = _CLOSED  # the file is let go as soon as the last reader that is under way is through


class Fact(Generic[T]):
    """What the processes of the node keep in memory besides sessions, read again when one of them wrote.

    Args:
        cache: what tells whether one has.
        read: how it is read.
    """

    def __init__(self, cache: SessionCache, read: Callable[[], T]) -> None:
        self._cache = cache
        self._read = read
        self._kept: tuple[int, T] | None = None

    def get(self) -> T:
        """Return it as it is now."""
        count = self._cache.counts[FACTS]
        kept = self._kept
        if kept is not None and kept[0] == count:
            return kept[1]
        fact = self._read()
        self._kept = None if count & 1 else (count, fact)
        return fact
