"""How sessions lie in a SQLite database: what a transaction does to their rows, and what the agent reads."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from itertools import chain, starmap

import apsw
import msgspec

from canister.record import NodeId, decode_record, encode_record, user_of
from canister.store.base import BUCKETS, Change, Listed, LogEntry, Mark, bucket_of
from canister.store.cache import Kept, SessionCache, group_of
from canister.store.connections import Cursor, Handle
from canister.store.notes import Notes
from canister.store.transaction import Fresh, Row

_PLACES = 1 << 7
"""Neighbouring places, of which a session takes one: hardly two ids are alike in all other bits.

The statements have it in figures: 127 is the last of them, `place >> 47` the bucket.
"""
_PER_BUCKET = 1 << 47
END = BUCKETS * _PER_BUCKET
"""What no place reaches."""

_WHOLE = "SELECT id, record, held FROM sessions WHERE place BETWEEN ?1 AND ?1 + 127 AND id = ?2"
_ALL = """
    SELECT id, record, held FROM sessions WHERE place > ? AND place <= ? AND retain > ? ORDER BY place
"""
GET = """
    SELECT place, record, held, digest, retain FROM sessions WHERE place BETWEEN ?1 AND ?1 + 127 AND id = ?2
"""
_TAKEN = "SELECT place FROM sessions WHERE place BETWEEN ?1 AND ?1 + 127"
_INSERT = "INSERT INTO sessions (place, id, record, digest, retain, user, held) VALUES (?, ?, ?, ?, ?, ?, ?)"
_AT_ONCE = 256
"""Rows inserted by one statement: what it costs to begin one is then shared."""
_INSERT_MANY = _INSERT + ", (?, ?, ?, ?, ?, ?, ?)" * (_AT_ONCE - 1)
_IS_HERE = "SELECT id FROM sessions WHERE place BETWEEN ?1 AND ?1 + 127 AND id = ?2"
_CHANGE = "UPDATE sessions SET record = ?, digest = ? WHERE place = ?"
_REPLACE = "UPDATE sessions SET record = ?, digest = ?, retain = ?, user = ?, held = ? WHERE place = ?"
_DELETE = "DELETE FROM sessions WHERE place BETWEEN ?1 AND ?1 + 127 AND id = ?2"
_LAST = "SELECT stamp FROM log ORDER BY stamp DESC LIMIT 1"
_APPEND = "INSERT INTO log (stamp, changes) VALUES (?, ?)"
_VOUCH = """
    INSERT INTO heard (node, stamp, moved) VALUES (?1, ?2, ?3)
    ON CONFLICT (node) DO UPDATE SET stamp = ?2, moved = ?3 WHERE stamp < ?2
"""
_MARKS = """
    SELECT place >> 47, digest FROM sessions
    WHERE retain >> 26 BETWEEN ?1 >> 26 AND ?2 >> 26 AND retain > ?1 AND retain <= ?2
"""
_DIGESTS = "SELECT place >> 47, digest FROM sessions WHERE place > ? AND place <= ? AND retain > ?"
_LISTING = "SELECT id, digest FROM sessions WHERE place > ? AND place <= ? AND retain > ? ORDER BY place"

_Values = tuple[int, bytes, bytes, bytes, int, bytes | None, bytes | None]
"""What is inserted of a row: place, id, record, digest, retention, user, and what is held."""

_changes_encoder = msgspec.msgpack.Encoder()
_changes_decoder = msgspec.msgpack.Decoder(list[Change])


class SqliteRows:
    """The primitive acts of a transaction, on one connection."""

    def __init__(self, handle: Handle, node: NodeId, cache: SessionCache, notes: Notes) -> None:
        self._handle = handle
        self._execute = handle.execute
        self._write = handle.write
        self._node = node
        self._cache = cache
        self._notes = notes
        self._places: dict[bytes, int] = {}
        self.written: dict[bytes, Kept] = {}
        """The sessions written, as they are to be kept."""

    def get(self, session: bytes) -> Row | None:
        bucket = bucket_of(session)
        count = self._cache.counts[group_of(bucket)]
        kept = self._cache.find(session, count)
        if kept is not None:
            self._places[session] = kept.place
            return kept.row
        if self._cache.is_absent(session, count):
            return None
        found = self._execute(GET, (place_of(bucket, session), session)).fetchone()
        if found is None:
            return None
        self._places[session] = found[0]
        return row_of(*found[1:])

    def put(self, session: bytes, before: Row | None, row: Row, encoded: bytes) -> None:
        bucket = bucket_of(session)
        held = b"" if row.held is None else encode_record(row.held)
        at = self._cache.mark(group_of(bucket))
        values = (encoded, row.mark.digest, row.mark.retain, user_of(row.record), held or None)
        if before is None:
            place = self._places[session] = self._insert_one((place_of(bucket, session), session, *values))
        else:
            place = self._places[session]
            if _indexed_alike(before, row):
                # Where all indexes stay as they are, a write changes two pages in place of four.
                self._write(_CHANGE, (encoded, row.mark.digest, place))
            else:
                self._write(_REPLACE, (*values, place))
        self.written[session] = Kept(at, row.stored, row, len(encoded) + len(held), place)

    def insert(self, rows: Mapping[bytes, Fresh]) -> list[bytes]:
        # In the order of the table: neighbours then share pages.
        buckets = [bucket_of(session) for session in rows]
        for group in {group_of(bucket) for bucket in buckets}:
            self._cache.mark(group)
        ordered: list[_Values] = sorted(
            [
                (place_of(bucket, session), session, encoded, mark.digest, mark.retain, user_of(record), None)
                for bucket, (session, (record, encoded, mark)) in zip(buckets, rows.items(), strict=True)
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
                self._execute(_INSERT_MANY, tuple(chain.from_iterable(rows)))
            else:
                connection.executemany(_INSERT, rows)
        except apsw.ConstraintError:
            rest = rows[connection.total_changes() - done :]
            found = connection.executemany(_IS_HERE, [row[:2] for row in rest])
            here = dict.fromkeys(session for (session,) in found)
            for row in rest:
                if row[1] not in here:
                    self._insert_one(row)
            return list(here)
        return []

    def _insert_one(self, row: _Values) -> int:
        """Insert a session that is not here; return its place: the first one that no other id has taken."""
        place, *values = row
        try:
            self._write(_INSERT, row)
        except apsw.ConstraintError:
            taken = {number for (number,) in self._execute(_TAKEN, (place,))}
            place = next(number for number in range(place, place + _PLACES) if number not in taken)
            self._write(_INSERT, (place, *values))
        return place

    def delete(self, session: bytes) -> None:
        self.written.pop(session, None)
        bucket = bucket_of(session)
        self._cache.mark(group_of(bucket))
        self._write(_DELETE, (place_of(bucket, session), session))

    def clock(self) -> int:
        return self._notes.drawn()

    def append(self, entry: LogEntry) -> None:
        self._notes.note_drawn(entry.stamp)
        self._write(_APPEND, (entry.stamp, _changes_encoder.encode(entry.changes)))
        self._handle.stamp = entry.stamp

    def vouch(self, node: NodeId, stamp: int, now: int) -> None:
        if node == self._node:
            self._execute("DELETE FROM heard WHERE node = ? AND moved <= ?", (node, stamp))
        else:
            self._execute(_VOUCH, (node, stamp, now))


def place_of(bucket: int, session: bytes) -> int:
    """Return the first of the places at which a session may lie: its bucket, and 40 bits of a hash."""
    number = int.from_bytes(blake2b(session, digest_size=5).digest(), "big")
    return bucket * _PER_BUCKET + number * _PLACES


def _bounds(buckets: range) -> tuple[int, int]:
    """Return the last place before neighbouring buckets, and their last one."""
    return buckets.start * _PER_BUCKET - 1, buckets.stop * _PER_BUCKET - 1


def row_of(record: bytes, held: bytes | None, digest: bytes, retain: int) -> Row:
    """Return the row that `GET` finds."""
    return Row(decode_record(record), None if held is None else decode_record(held), Mark(digest, retain))


def _indexed_alike(a: Row, b: Row) -> bool:
    """Tell whether no index has to change where one row takes the place of another."""
    return (
        a.mark.retain == b.mark.retain
        and user_of(a.record) == user_of(b.record)
        and a.held is None
        and b.held is None
    )


class SqliteSnapshot:
    """A read transaction."""

    def __init__(self, handle: Handle) -> None:
        self._execute = handle.execute
        self._connection = handle.connection

    def log(self, after: int) -> list[LogEntry]:
        rows = self._execute("SELECT stamp, changes FROM log WHERE stamp > ? ORDER BY stamp", (after,))
        return [LogEntry(stamp, _changes_decoder.decode(changes)) for stamp, changes in rows]

    def last_stamp(self) -> int:
        return last_stamp(self._execute)

    def marks(self, above: int, upto: int) -> Iterator[tuple[int, bytes]]:
        yield from self._execute(_MARKS, (above, upto))

    def digests(self, buckets: range, at: int) -> Iterator[tuple[int, bytes]]:
        yield from self._execute(_DIGESTS, (*_bounds(buckets), at))

    def listing(self, buckets: range, at: int) -> list[Listed]:
        found = self._execute(_LISTING, (*_bounds(buckets), at))
        return list(starmap(Listed, found))

    def whole(self, session: bytes) -> bytes | None:
        return next((record for _, record in self.wholes([session])), None)

    def wholes(self, sessions: Iterable[bytes]) -> Iterator[tuple[bytes, bytes]]:
        keys = [(place_of(bucket_of(session), session), session) for session in sessions]
        return _merged(self._connection.executemany(_WHOLE, keys))

    def all(self, buckets: range, at: int) -> Iterator[tuple[bytes, bytes]]:
        return _merged(self._execute(_ALL, (*_bounds(buckets), at)))

    def heard(self) -> dict[NodeId, int]:
        return dict(self._execute("SELECT node, stamp FROM heard").fetchall())


def _merged(found: Iterable[tuple[bytes, bytes, bytes | None]]) -> Iterator[tuple[bytes, bytes]]:
    """Return sessions with all that is known of them: what is shown, and what is held."""
    for session, record, held in found:
        if held is not None:
            row = Row(decode_record(record), decode_record(held), Mark(b"", 0))
            yield session, encode_record(row.whole)
        else:
            yield session, record


def last_stamp(execute: Callable[..., Cursor]) -> int:
    """Return the greatest stamp in the log."""
    found = execute(_LAST).fetchone()
    return found[0] if found else 0
