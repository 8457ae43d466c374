"""Sessions a process has read, kept until any process of the node writes to them.

The processes of a node share a file of counts in memory, one for each stripe: the sessions whose ids agree
in the first bits of a checksum. A writer makes the counts of what it writes odd before its commit is seen and
even again afterwards, so whoever finds the even count it had read before it read a session knows that the
session is still the same. A writer that is killed in between leaves an odd count: nothing of that stripe is
kept until the next writer has passed.

A writer trusts the counts too: in its turn nobody else writes, so what a count proves is what is in the
database.

Behind the counts the file holds the rows that were written last: a process takes what another one has
written from there. They are left after the commit and before the count is even again.
"""

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

import msgspec

from canister.record import Record
from canister.store.kept import Kept
from canister.store.recent import STRIPES, RecentRows, draw_key, recent_bytes
from canister.store.shared import make_room, shared_memory

T = TypeVar("T")

FACTS = STRIPES
"""The count of what is not a session: the members, doubts about them, and whether the clock is off."""
_SHIFT = 32 - (STRIPES - 1).bit_length()
_COUNTS_BYTES = 4 * (STRIPES + 1)
_RING_BYTES = 4 * 1024 * 1024
FILE_BYTES = _COUNTS_BYTES + recent_bytes(_RING_BYTES)

_MOST_ABSENT = 8192
"""Ids of which it is kept that there is no such session: 5 MB at the most."""
_WRAP = 0xFFFF_FFFF


def stripe_of(session: bytes) -> int:
    """Return the stripe of a session."""
    return zlib.crc32(session) >> _SHIFT


def next_count(count: int) -> int:
    """Return the count of a stripe after the next write to it.

    It is a new one where a writer was killed, too: what it left must not pass for what the next one does.
    """
    return (count + 2 + (count & 1)) & _WRAP


class Written(msgspec.Struct, frozen=True, gc=False):
    """A session that a transaction has written: how it is kept here, and how for others."""

    session: bytes
    stripe: int
    kept: Kept
    recent: bytes | None


def make_counts(path: Path) -> None:
    """Make the file of counts anew; nobody uses it.

    Raises:
        StoreError: it cannot be made.
    """
    path.unlink(missing_ok=True)
    make_room(path, FILE_BYTES)
    draw_key(memoryview(shared_memory(path, FILE_BYTES))[_COUNTS_BYTES:])


def outdate(path: Path) -> None:
    """Let nothing that any process keeps, or has left for others, pass for what is stored; nobody writes.

    Raises:
        StoreError: the file of counts cannot be opened.
    """
    counts = memoryview(shared_memory(path, FILE_BYTES))[:_COUNTS_BYTES].cast("I")
    for stripe, count in enumerate(counts):
        counts[stripe] = next_count(count)


def _is_alive(record: Record | None) -> bool:
    return record is not None and record.destroy is None


class SessionCache:
    """What one process keeps. Safe to share between threads and over forks.

    Args:
        path: the file of counts; each time the first process that opens the node begins a new one.
        size: how many bytes are kept at the most, in two generations: what is not used for one of them is
            forgotten.

    Raises:
        StoreError: the file cannot be opened.
    """

    def __init__(self, path: Path, size: int) -> None:
        memory = memoryview(shared_memory(path, FILE_BYTES))
        self.counts = memory[:_COUNTS_BYTES].cast("I")
        """How often each stripe was written to, twice; odd while it is being written to."""
        self._recent: RecentRows | None = RecentRows(memory[_COUNTS_BYTES:])
        self._most = size // 2
        self._young: dict[bytes, Kept] = {}
        self._old: dict[bytes, Kept] = {}
        self._size = 0
        self._absent: dict[bytes, Kept] = {}
        self._marked: dict[int, int] = {}
        self.fresh: list[Written] = []
        """What the transaction under way has written of what is worth keeping once it is committed."""

    def find(self, session: bytes, stripe: int, count: int) -> Kept | None:
        """Return a session, or its absence, as it is at the *count* of its stripe; None: not in memory."""
        kept = self._young.get(session)
        if kept is not None and kept.at == count:
            return kept
        absence = self._absent.get(session)
        if absence is not None and absence.at == count:
            return absence
        kept = self._old.pop(session, None)
        if kept is not None:
            self.keep(session, kept)
            if kept.at == count:
                return kept
        return self._find_recent(session, stripe, count)

    def _find_recent(self, session: bytes, stripe: int, count: int) -> Kept | None:
        recent = self._recent
        if recent is None or count & 1:
            return None
        found = recent.find(stripe, count, session)
        if found is None:
            if session in self._young:
                recent.want()
            return None
        self.keep(session, found)
        return found

    def leaves_rows(self) -> bool:
        """Tell whether other processes want what is written here."""
        return self._recent is not None and self._recent.are_wanted()

    def row_for_others(self, session: bytes, kept: Kept) -> bytes | None:
        """Return a session that was written as it is left for other processes; None where it is not."""
        return None if self._recent is None else self._recent.make(session, kept)

    def keep(self, session: bytes, kept: Kept) -> None:
        """Keep a session; its count was read before the session was.

        The memo of what was kept before goes on with it, as long as it lives.
        """
        added = kept.size
        if kept.at & 1 or added > self._most:
            return
        before, stored = self._young.get(session), kept.stored
        if before is not None:
            added -= before.size
            memo = before.stored.memo
            # What ends lives, without a look at the record: others wait meanwhile.
            if memo is not None and (stored.end > 0 or _is_alive(stored.record)):
                stored.memo = stored.memo or memo
        self._young[session] = kept
        self._size += added
        if self._size > self._most:
            self._old, self._young, self._size = self._young, {}, 0

    def keep_absent(self, session: bytes, absence: Kept) -> None:
        """Keep that a session is not here; the count was read before it was looked for."""
        if absence.at & 1:
            return
        if len(self._absent) >= _MOST_ABSENT:
            self._absent = {}
        self._absent[session] = absence

    def begin(self) -> None:
        """Note that a transaction begins; its writer is the only one.

        What the one before has marked may be from before others have written: where it was interrupted before
        it had settled, its counts stay odd.
        """
        self._marked, self.fresh = {}, []

    def mark(self, stripe: int) -> int:
        """Note that the transaction under way writes to a stripe.

        Returns:
            The count of the stripe once the transaction is over.
        """
        found = self._marked.get(stripe)
        if found is None:
            found = next_count(self.counts[stripe])
            self.counts[stripe] = (found - 1) & _WRAP
            self._marked[stripe] = found
        return found

    def settle(self) -> None:
        """Note that the transaction is over, committed or not."""
        fresh, self.fresh = self.fresh, []
        if self._recent is not None and self._marked and FACTS not in self._marked:  # sessions were written
            self._recent.sign()
        for written in fresh:
            if written.recent is not None and self._recent is not None:
                self._recent.add(written.stripe, written.recent)
        for stripe, count in self._marked.items():
            self.counts[stripe] = count
        for written in fresh:
            self.keep(written.session, written.kept)

    def close(self) -> None:
        """Forget everything, and keep nothing more; to be called when no writer is left."""
        self._young, self._old, self._absent = {}, {}, {}
        self._recent = None
        # Odd for good: nothing is kept at them, nor found. The file is let go with the last reader under way.
        self.counts = memoryview(b"\1" * _COUNTS_BYTES).cast("I")


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
