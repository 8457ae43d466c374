"""What a write transaction does to sessions, whatever holds the rows.

`Transaction` is the only code that writes sessions: commits made here, records from peers, releases and
drops all pass through `_put` or `_drop`, which keep the digest, the retention and the log in step.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

import msgspec

from canister.clock import next_stamp
from canister.edits import Moment
from canister.errors import ClockError
from canister.life import deadline, last_retention, retention
from canister.record import (
    BACK,
    EMPTY,
    Cell,
    NodeId,
    Record,
    Slot,
    Version,
    digest_of,
    encode_record,
    latest,
    make_version,
    merge,
    newest,
    stamp_of,
)
from canister.sizes import check_size
from canister.store.base import Change, Edit, LogEntry, Mark, Merged, Stored

_LEAST, _GREATEST = Version(bytes(16)), NodeId(b"\xff" * 8)


class Row(msgspec.Struct, frozen=True, gc=False):
    """A stored session: what readers may see, and what is held back.

    Attributes:
        record: what readers may see.
        held: what is held back until its time comes.
        retain: when the data of both may go.
        digest: the digest of both merged; None while nobody has needed it.
    """

    record: Record
    held: Record | None
    retain: int
    digest: bytes | None = None

    @property
    def whole(self) -> Record:
        """Everything that is known of the session."""
        return self.record if self.held is None else merge(self.record, self.held)

    @property
    def visible(self) -> Record | None:
        """What readers may see; None while all there is of the session is held."""
        return None if self.record.birth is None and self.record.destroy is None else self.record

    @property
    def stored(self) -> Stored:
        """What a store tells of it."""
        return Stored(self.visible, self.held is not None)

    def packed(self, encoded: bytes) -> Stored:
        """Return what a store tells of it, not decoded if that is all there is of a live session.

        Args:
            encoded: the record.
        """
        end = deadline(self.record)
        if self.held is not None or end <= 0:
            return self.stored
        # An encoder's bytes have half as much again behind them, which a copy has not.
        return Stored(None, held=False, encoded=bytes(memoryview(encoded)), end=end)


def mark_of(session: bytes, row: Row, key: bytes) -> Mark:
    """Return what the digests need to know of a row; *key* is the cluster's."""
    digest = row.digest
    return Mark(digest_of(session, encode_record(row.whole), key) if digest is None else digest, row.retain)


Fresh = tuple[Record, bytes, Mark]
"""A session to be inserted: its record, that encoded, and its mark."""


class Rows(Protocol):
    """The primitive acts of one write transaction."""

    def get(self, session: bytes) -> Row | None:
        """Return a session's row."""
        ...

    def put(self, session: bytes, row: Row, encoded: bytes) -> None:
        """Insert the row of a session that was got before, or replace it; *encoded* is the row's record."""
        ...

    def insert(self, rows: Mapping[bytes, Fresh]) -> list[bytes]:
        """Insert rows that hold nothing back; return those that are here, left as they were."""
        ...

    def delete(self, session: bytes) -> None:
        """Delete a row."""
        ...

    def clock(self) -> int:
        """Return the greatest stamp that this node has drawn."""
        ...

    def append(self, entry: LogEntry) -> None:
        """Append to the log."""
        ...

    def vouch(self, node: NodeId, stamp: int, now: int) -> None:
        """Raise what is heard of a node; of this node only while it has forgotten something."""
        ...


class Scope(NamedTuple):
    """What is the same for all transactions of a store."""

    node: NodeId
    key: bytes
    drift: int
    max_session: int


def _waits_for_clock(delta: Record) -> bool:
    """Tell whether a commit has to wait, for it would carry a wrong time to the peers; a destroy never does.

    Raises:
        ClockError: the commit is more than an access, which is not worth an error.
    """
    if delta.destroy is not None:
        return False
    if delta.cells or delta.clear or delta.expiry or delta.birth:
        raise ClockError(
            "this node's clock is further from its peers' than max_clock_drift allows; set it right: "
            "until then sessions can be read and destroyed here, not written"
        )
    return True


class Transaction:
    """One write transaction at the instant *now*."""

    def __init__(self, rows: Rows, scope: Scope, now: int) -> None:
        self._rows = rows
        self._scope = scope
        self._now = now
        self._changes: list[Change] = []
        self._held = 0

    def commit(self, edits: Sequence[tuple[bytes, Edit]], *, clock_off: bool) -> Version | None:
        """Run the edits under one version and write what they return.

        Args:
            edits: what to run, by encoded session id.
            clock_off: whether this node's clock is too far from its peers'.
        """
        stamp = next_stamp(self._rows.clock(), self._now)
        version = make_version(stamp, self._scope.node)
        moment = Moment(version, self._now)
        for session, edit in edits:
            row = self._row(session)
            delta = edit(row.visible if row else None, moment)
            if delta is not None and not (clock_off and _waits_for_clock(delta)):
                self._write(session, row, delta)
        if not self._changes:
            return None
        self._rows.append(LogEntry(stamp, self._changes))
        return version

    def merge(
        self, batch: Iterable[tuple[bytes, Record]], heard: Mapping[NodeId, int], *, tell: bool = False
    ) -> Merged:
        """Merge records from a peer or another engine; see `canister.store.base.ReplicatedStore.merge`."""
        doubtful: list[bytes] = []
        back: list[bytes] = []
        others, seen = self._add(batch, tell=tell)
        for session, incoming in others:
            row = self._row(session)
            known = row.whole if row else EMPTY
            whole = merge(known, incoming)
            if whole.birth is None and whole.destroy is None:
                doubtful.append(session)
            elif retention(whole) > self._now and whole != known:
                if self._comes_back(known, incoming, whole):
                    back.append(session)
                delta = encode_record(incoming) if tell else None
                seen = max(seen, self._admit(session, row, incoming, whole, delta))
        changed = len(self._changes)
        self._log(seen, back)
        for node, stamp in heard.items() if not doubtful else ():
            self._rows.vouch(node, stamp, self._now)
        return Merged(changed, doubtful, self._held)

    def release(self, sessions: Iterable[bytes]) -> int:
        """Show held records whose last part has come due."""
        limit = self._now + self._scope.drift
        seen = 0
        for session in sessions:
            row = self._rows.get(session)
            if row is not None and row.held is not None and newest(row.held) <= limit:
                seen = max(seen, newest(row.held))
                self._put(session, row, row.whole, None, None)
        changed = len(self._changes)
        self._log(seen)
        return changed

    def advance(self, stamp: int) -> None:
        """See to it that stamps drawn from now on are greater than *stamp*."""
        if stamp > self._rows.clock():
            self._rows.append(LogEntry(stamp, []))

    def drop(self, session: bytes) -> int:
        """Drop a row, whatever it holds; return how many that were."""
        row = self._rows.get(session)
        if row is not None:
            self._drop(session, row, expired=False)
        self._log(0)
        return int(row is not None)

    def sweep(self, sessions: Iterable[bytes], gate: int, *, destroyed: bool) -> int:
        """Drop those sessions whose data may go; return how many.

        Args:
            sessions: what was found to be past its retention.
            gate: the instant up to which all members have reconciled.
            destroyed: sweep tombstones rather than expired sessions.
        """
        for session in sessions:
            row = self._rows.get(session)
            if row is not None and self._may_go(row, gate, destroyed=destroyed):
                self._drop(session, row, expired=not destroyed)
        changed = len(self._changes)
        self._log(0)
        return changed

    def may_sweep(self, session: bytes, gate: int, *, destroyed: bool) -> bool:
        """Tell whether `sweep` would drop a session."""
        row = self._rows.get(session)
        return row is not None and self._may_go(row, gate, destroyed=destroyed)

    def _may_go(self, row: Row, gate: int, *, destroyed: bool) -> bool:
        whole = row.whole
        if (whole.destroy is not None) != destroyed or row.retain > self._now:
            return False
        return row.retain <= gate or last_retention(whole, self._scope.drift) <= self._now

    def _drop(self, session: bytes, row: Row, *, expired: bool) -> None:
        self._rows.delete(session)
        self._changes.append(Change(session, self._mark(session, row), None, None, expired))

    def _row(self, session: bytes) -> Row | None:
        """Return a session's row. A tombstone past its time is gone, swept or not."""
        row = self._rows.get(session)
        if row is not None and row.record.destroy is not None and row.retain <= self._now:
            mark = self._mark(session, row)
            return Row(EMPTY, None, mark.retain, mark.digest)
        return row

    def _write(self, session: bytes, row: Row | None, delta: Record) -> None:
        record = merge(row.record if row else EMPTY, delta)
        held = row.held if row and record.destroy is None else None
        encoded = self._put(session, row, record, held, encode_record(delta))
        if len(encoded) > self._scope.max_session:
            check_size(encoded, row.record if row else None, delta, self._scope.max_session)

    def _add(
        self, batch: Iterable[tuple[bytes, Record]], *, tell: bool
    ) -> tuple[Sequence[tuple[bytes, Record]], int]:
        """Store the sessions of a batch that are not here; return the others, and the greatest stamp stored.

        They are most of what a new node gets, and one that was away. With nothing to merge and nothing to
        hold back, none of them has to be looked up.
        """
        limit = make_version(self._now + self._scope.drift, _GREATEST)
        now, key = self._now, self._scope.key
        fresh: dict[bytes, Fresh] = {}
        others: list[tuple[bytes, Record]] = []
        seen = _LEAST
        for session, incoming in batch:
            if incoming.birth is None or session in fresh:
                others.append((session, incoming))
                continue
            whole = merge(EMPTY, incoming)
            version = latest(whole)
            retain = retention(whole)
            if whole.birth is None or version > limit or retain <= now:
                others.append((session, incoming))
                continue
            encoded = encode_record(whole)
            fresh[session] = (whole, encoded, Mark(digest_of(session, encoded, key), retain))
            if version > seen:
                seen = version
        for session in self._rows.insert(fresh) if fresh else ():
            others.append((session, fresh.pop(session)[0]))
        self._changes += [
            Change(session, None, mark, encoded if tell else None)
            for session, (_, encoded, mark) in fresh.items()
        ]
        return others, stamp_of(seen)

    def _admit(
        self, session: bytes, row: Row | None, incoming: Record, whole: Record, delta: bytes | None
    ) -> int:
        """Merge a peer's record into what is visible or what is held; return its stamp if visible.

        *whole* is what it makes of everything that is known, *delta* what is logged to be sent.
        """
        ahead = newest(incoming)
        record = row.record if row else EMPTY
        held = row.held if row else None
        merged = whole if held is None else merge(record, incoming)
        if incoming.destroy is not None:
            # A destroy is never held back; it moves the clock only where it is not too far ahead.
            self._put(session, row, merged, None, delta)
            return ahead if ahead <= self._now + self._scope.drift else 0
        if ahead > self._now + self._scope.drift or merged.birth is None:
            # Held as a set: shown in parts, a session could have its birth and lack its touch.
            self._put(session, row, record, merge(held or EMPTY, incoming), delta)
            self._held += 1
            return 0
        self._put(session, row, merged, held, delta)
        return ahead

    def _put(
        self, session: bytes, row: Row | None, record: Record, held: Record | None, delta: bytes | None
    ) -> bytes:
        encoded = encode_record(record)
        whole = record if held is None else merge(record, held)
        everything = encoded if held is None else encode_record(whole)
        after = Mark(digest_of(session, everything, self._scope.key), retention(whole))
        self._rows.put(session, Row(record, held, after.retain, after.digest), encoded)
        self._changes.append(Change(session, self._mark(session, row) if row else None, after, delta))
        return encoded

    def _mark(self, session: bytes, row: Row) -> Mark:
        return mark_of(session, row, self._scope.key)

    def _comes_back(self, known: Record, incoming: Record, whole: Record) -> bool:
        """Tell whether a peer brings back a session that was over here, with rows the peer lacks.

        While it was over, comparisons left it out: the peers believe to have heard of these rows. One that
        is over still, for somebody at least, has not come back: nobody is served it.
        """
        soon = self._now + self._scope.drift
        over = known.birth is not None and retention(known) <= soon < retention(whole)
        return over and incoming.destroy is None and merge(incoming, known) != merge(incoming, EMPTY)

    def _mark_back(self, session: bytes, stamp: int) -> None:
        """Commit a session that came back, whole, with a mark of this node's own in it.

        Whoever is served these rows then carries the mark's version, which no peer has heard before
        it has the rows; nobody else's write can replace it.
        """
        row = self._rows.get(session)
        if row is not None and row.visible is not None and row.record.destroy is None:
            mark = Cell(make_version(stamp, self._scope.node), b"")
            record = merge(row.record, Record(cells={Slot(BACK + self._scope.node): mark}))
            self._put(session, row, record, row.held, encode_record(record))

    def _log(self, seen: int, back: Iterable[bytes] = ()) -> None:
        """Log what was not committed here. Stamps from peers raise this node's clock with it."""
        if self._changes:
            stamp = max(seen, next_stamp(self._rows.clock(), self._now))
            for session in back:
                self._mark_back(session, stamp)
            self._rows.append(LogEntry(stamp, self._changes))
