"""How sessions lie in a SQLite database: what a transaction does to their rows, and what the agent reads."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from itertools import chain
from typing import Any

import apsw
import msgspec

from canister.errors import StoreError
from canister.record import NodeId, decode_record, digest_of, encode_record, merge, user_of
from canister.store.base import BUCKETS, Change, Listed, LogEntry, bucket_of
from canister.store.cache import SessionCache, Written, next_count, stripe_of
from canister.store.connections import Cursor, Handle
from canister.store.kept import keeping
from canister.store.transaction import Fresh, Row

_PLACES = 1 << 7
"""Neighbouring places, of which a session takes one: hardly two ids are alike in all other bits.

The statements have it in figures: 127 is the last of them.
"""
_PER_BUCKET = 1 << 47
END = BUCKETS * _PER_BUCKET
"""What no place reaches."""

_WHOLE = "SELECT id, record, held FROM sessions WHERE place BETWEEN ?1 AND ?1 + 127 AND id = ?2"
_ALL = """
    SELECT id, record, held FROM sessions WHERE place > ? AND place <= ? AND retain > ? ORDER BY place
"""
GET = """
    SELECT place, record, held, retain FROM sessions WHERE place BETWEEN ?1 AND ?1 + 127 AND id = ?2
"""
_TAKEN = "SELECT place, id FROM sessions WHERE place BETWEEN ?1 AND ?1 + 127"
_MOVE = "UPDATE sessions SET place = ? WHERE place = ?"
_INSERT = "INSERT INTO sessions (place, id, record, retain, user, held) VALUES (?, ?, ?, ?, ?, ?)"
_AT_ONCE = 256
"""Rows inserted by one statement: what it costs to begin one is then shared."""
_INSERT_MANY = _INSERT + ", (?, ?, ?, ?, ?, ?)" * (_AT_ONCE - 1)
_IS_HERE = "SELECT id FROM sessions WHERE place BETWEEN ?1 AND ?1 + 127 AND id = ?2"
_CHANGE = "UPDATE sessions SET record = ? WHERE place = ? AND id = ?"
_REPLACE = "UPDATE sessions SET record = ?, retain = ?, user = ?, held = ? WHERE place = ? AND id = ?"
_DELETE = "DELETE FROM sessions WHERE place BETWEEN ?1 AND ?1 + 127 AND id = ?2"
_LAST = "SELECT stamp FROM log ORDER BY stamp DESC LIMIT 1"
_TRIM = "DELETE FROM log WHERE stamp < min(?, (SELECT max(stamp) FROM log))"
_TRIMMED = 200
"""Entries of the log that are dropped at once, while writers wait."""
_FIRST_KEPT = "SELECT stamp FROM log WHERE stamp < ? ORDER BY stamp LIMIT 1 OFFSET ?"
_APPEND = "INSERT INTO log (stamp, changes) VALUES (?, ?)"
_VOUCH = """
    INSERT INTO heard (node, stamp, moved) VALUES (?1, ?2, ?3)
    ON CONFLICT (node) DO UPDATE SET stamp = ?2, moved = ?3 WHERE stamp < ?2
"""
_MARKS = """
    SELECT id, record, held FROM sessions
    WHERE retain >> 26 BETWEEN ?1 >> 26 AND ?2 >> 26 AND retain > ?1 AND retain <= ?2
"""

_Values = tuple[int, bytes, bytes, int, bytes | None, bytes | None]
"""What is inserted of a row: place, id, record, retention, user, and what is held."""

_changes_encoder = msgspec.msgpack.Encoder()
_changes_decoder = msgspec.msgpack.Decoder(list[Change])


class _Seen(msgspec.Struct, frozen=True, gc=False):
    """A session as found *at* a count of its stripe: its place, and its row if it has one."""

    stripe: int
    at: int
    place: int
    row: Row | None


class _Write(Written, frozen=True, gc=False):
    """What is to be written of a session: the statement, and the row."""

    sql: str
    values: tuple[Any, ...]
    row: Row


class SqliteRows:
    """The primitive acts of a transaction, on one connection.

    Rows that are put, and the log, are written at the end, by `write`. So a commit can be worked out while
    the writer before still writes, and be written if it `holds` when its turn has come: others have to wait
    for so much less.

    Args:
        handle: the connection.
        node: this node's id.
        cache: what this process keeps.
        last: the stamp that was drawn last.
        keeps: whether what is put is kept in memory.
    """

    def __init__(
        self, handle: Handle, node: NodeId, cache: SessionCache, last: int, *, keeps: bool = False
    ) -> None:
        self._handle = handle
        self._node = node
        self._cache = cache
        self._last = last
        self._seen: dict[bytes, _Seen] = {}
        self._writes: dict[bytes, _Write] = {}
        self._entry: tuple[int, bytes] | None = None
        self._keeps = keeps

    def get(self, session: bytes) -> Row | None:
        write = self._writes.get(session)
        if write is not None:
            return write.row
        stripe = stripe_of(session)
        count = self._cache.counts[stripe]
        kept = self._cache.find(session, stripe, count)
        if kept is not None:
            place, row = kept.place, kept.row
        else:
            place, row = place_of(session), None
            found = self._handle.execute(GET, (place, session)).fetchone()
            if found is not None:
                place, row = found[0], row_of(*found[1:])
        self._seen[session] = _Seen(stripe, count, place, row)
        return row

    def put(self, session: bytes, row: Row, encoded: bytes) -> None:
        seen, retain = self._seen[session], row.retain
        held = None if row.held is None else encode_record(row.held)
        user, place, before = user_of(row.record), seen.place, seen.row
        values: tuple[Any, ...]
        if before is None:
            sql, values = _INSERT, (place, session, encoded, retain, user, held)
        elif (retain, held, user) == (before.retain, before.held, user_of(before.record)):
            # Where all indexes stay as they are, a write changes two pages in place of four.
            sql, values = _CHANGE, (encoded, place, session)
        else:
            sql, values = _REPLACE, (encoded, retain, user, held, place, session)
        leaves = self._keeps and self._cache.leaves_rows()
        stored = row.packed(encoded) if leaves else row.stored
        kept = keeping(next_count(seen.at), row, stored, len(encoded) + len(held or b""), place)
        recent = self._cache.row_for_others(session, kept) if leaves else None
        self._writes[session] = _Write(session, seen.stripe, kept, recent, sql, values, row)

    def holds(self) -> bool:
        """Tell whether all sessions are still as they were found; the turn has come."""
        counts = self._cache.counts
        for found in self._seen.values():
            if counts[found.stripe] != found.at or found.at & 1:
                break
        else:
            return True
        return False

    def write(self) -> None:
        """Write what has been put and appended; the connection's transaction has begun."""
        handle = self._handle
        for write in self._writes.values():
            kept = write.kept
            at, place = self._cache.mark(write.stripe), kept.place
            if write.sql is _INSERT:
                place = _insert_one(handle, write.values)
            else:
                handle.write(write.sql, write.values)
                if not handle.connection.changes():
                    raise StoreError("a session is not in its place; nothing was written, try again")
            if self._keeps and at == kept.at and place == kept.place:
                self._cache.fresh.append(write)
        if self._entry is not None:
            handle.write(_APPEND, self._entry)
            handle.stamp = self._entry[0]

    def insert(self, rows: Mapping[bytes, Fresh]) -> list[bytes]:
        # In the order of the table: neighbours then share pages.
        for stripe in set(map(stripe_of, rows)):
            self._cache.mark(stripe)
        ordered: list[_Values] = sorted(
            [
                (place_of(session), session, encoded, mark.retain, user_of(record), None)
                for session, (record, encoded, mark) in rows.items()
            ]
        )
        here: list[bytes] = []
        for at in range(0, len(ordered), _AT_ONCE):
            here += self._insert(ordered[at : at + _AT_ONCE])
        return here

    def _insert(self, rows: Sequence[_Values]) -> list[bytes]:
        connection = self._handle.connection
        done = connection.total_changes()
        try:
            if len(rows) == _AT_ONCE:
                self._handle.execute(_INSERT_MANY, tuple(chain.from_iterable(rows)))
            else:
                connection.executemany(_INSERT, rows)
        except apsw.ConstraintError:
            rest = rows[connection.total_changes() - done :]
            found = connection.executemany(_IS_HERE, [row[:2] for row in rest])
            here = dict.fromkeys(session for (session,) in found)
            for row in rest:
                if row[1] not in here:
                    _insert_one(self._handle, row)
            return list(here)
        return []

    def delete(self, session: bytes) -> None:
        self._cache.mark(stripe_of(session))
        place = place_of(session)
        self._handle.write(_DELETE, (place, session))
        # Who lies beside its first place does so because that is taken: else `insert` would not find it.
        taken: dict[int, bytes] = dict(self._handle.execute(_TAKEN, (place,)).fetchall())
        if taken and (last := max(taken)) >= place + len(taken):
            free = next(number for number in range(place, last) if number not in taken)
            self._cache.mark(stripe_of(taken[last]))
            self._handle.write(_MOVE, (free, last))

    def clock(self) -> int:
        return self._last

    def append(self, entry: LogEntry) -> None:
        self._entry = (entry.stamp, _changes_encoder.encode(entry.changes))

    def vouch(self, node: NodeId, stamp: int, now: int) -> None:
        if node == self._node:
            self._handle.execute("DELETE FROM heard WHERE node = ? AND moved <= ?", (node, stamp))
        else:
            self._handle.execute(_VOUCH, (node, stamp, now))


def _insert_one(handle: Handle, row: _Values) -> int:
    """Insert a session that is not here; return its place: the first one that no other id has taken."""
    place, *values = row
    try:
        handle.write(_INSERT, row)
    except apsw.ConstraintError:
        taken = {number for number, _ in handle.execute(_TAKEN, (place,))}
        place = next(number for number in range(place, place + _PLACES) if number not in taken)
        handle.write(_INSERT, (place, *values))
    return place


def place_of(session: bytes) -> int:
    """Return the first of the places at which a session may lie: its bucket, and 40 bits of a hash."""
    number = int.from_bytes(blake2b(session, digest_size=5).digest(), "big")
    return bucket_of(session) * _PER_BUCKET + number * _PLACES


def _bounds(buckets: range) -> tuple[int, int]:
    """Return the last place before neighbouring buckets, and their last one."""
    return buckets.start * _PER_BUCKET - 1, buckets.stop * _PER_BUCKET - 1


def row_of(record: bytes, held: bytes | None, retain: int) -> Row:
    """Return the row that `GET` finds."""
    return Row(decode_record(record), None if held is None else decode_record(held), retain)


class SqliteSnapshot:
    """A read transaction.

    Args:
        handle: the connection.
        key: the cluster's, which the digests are made with. They are not stored: whoever needs one reads
            the pages of the record as well.
    """

    def __init__(self, handle: Handle, key: bytes) -> None:
        self._execute = handle.execute
        self._connection = handle.connection
        self._key = key

    def log(self, after: int) -> list[LogEntry]:
        rows = self._execute("SELECT stamp, changes FROM log WHERE stamp > ? ORDER BY stamp", (after,))
        return [LogEntry(stamp, _changes_decoder.decode(changes)) for stamp, changes in rows]

    def last_stamp(self) -> int:
        return last_stamp(self._execute)

    def marks(self, above: int, upto: int) -> Iterator[tuple[int, bytes]]:
        return self._digests(_merged(self._execute(_MARKS, (above, upto))))

    def digests(self, buckets: range, at: int) -> Iterator[tuple[int, bytes]]:
        return self._digests(self.all(buckets, at))

    def listing(self, buckets: range, at: int) -> list[Listed]:
        return [Listed(s, digest_of(s, whole, self._key)) for s, whole in self.all(buckets, at)]

    def whole(self, session: bytes) -> bytes | None:
        return next((record for _, record in self.wholes([session])), None)

    def wholes(self, sessions: Iterable[bytes]) -> Iterator[tuple[bytes, bytes]]:
        keys = [(place_of(session), session) for session in sessions]
        return _merged(self._connection.executemany(_WHOLE, keys))

    def all(self, buckets: range, at: int) -> Iterator[tuple[bytes, bytes]]:
        return _merged(self._execute(_ALL, (*_bounds(buckets), at)))

    def heard(self) -> dict[NodeId, int]:
        return dict(self._execute("SELECT node, stamp FROM heard").fetchall())

    def _digests(self, sessions: Iterable[tuple[bytes, bytes]]) -> Iterator[tuple[int, bytes]]:
        return ((bucket_of(s), digest_of(s, whole, self._key)) for s, whole in sessions)


def _merged(found: Iterable[tuple[bytes, bytes, bytes | None]]) -> Iterator[tuple[bytes, bytes]]:
    """Return sessions with all that is known of them: what is shown, and what is held."""
    for session, record, held in found:
        if held is not None:
            record = encode_record(merge(decode_record(record), decode_record(held)))
        yield session, record


def trim_some(handle: Handle, before: int) -> bool:
    """Drop log entries with a stamp less than *before*, but the last one; tell whether there may be more."""
    found = handle.execute(_FIRST_KEPT, (before, _TRIMMED)).fetchone()
    handle.execute(_TRIM, (before if found is None else found[0],))
    return found is not None


def last_stamp(execute: Callable[..., Cursor]) -> int:
    """Return the greatest stamp in the log."""
    found = execute(_LAST).fetchone()
    return found[0] if found else 0
