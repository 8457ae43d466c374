"""How sessions lie in a SQLite database: what a transaction does to their rows, and what the agent reads."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, starmap

import apsw
import msgspec

from canister.record import NodeId, decode_record, encode_record, user_of
from canister.store.base import Change, Listed, LogEntry, Mark, bucket_of
from canister.store.cache import Kept, SessionCache, group_of
from canister.store.connections import Cursor, Handle
from canister.store.notes import Notes
from canister.store.transaction import Fresh, Row

_WHOLE = "SELECT id, record, held FROM sessions WHERE bucket = ? AND id = ?"
_ALL = "SELECT id, record, held FROM sessions WHERE bucket >= ? AND bucket < ? AND retain > ?"
GET = "SELECT record, held, digest, retain FROM sessions WHERE bucket = ? AND id = ?"
_PUT = """
    INSERT OR REPLACE INTO sessions (bucket, id, record, held, digest, retain, user)
    VALUES (?, ?, ?, ?, ?, ?, ?)
"""
_INSERT = "INSERT INTO sessions (bucket, id, record, digest, retain, user) VALUES (?, ?, ?, ?, ?, ?)"
_AT_ONCE = 256
"""Rows inserted by one statement: what it costs to begin one is then shared."""
_INSERT_MANY = _INSERT + ", (?, ?, ?, ?, ?, ?)" * (_AT_ONCE - 1)
_IS_HERE = "SELECT id FROM sessions WHERE bucket = ? AND id = ?"
_CHANGE = "UPDATE sessions SET record = ?, digest = ? WHERE bucket = ? AND id = ?"
_DELETE = "DELETE FROM sessions WHERE bucket = ? AND id = ?"
_LAST = "SELECT stamp FROM log ORDER BY stamp DESC LIMIT 1"
_APPEND = "INSERT INTO log (stamp, changes) VALUES (?, ?)"
_VOUCH = """
    INSERT INTO heard (node, stamp, moved) VALUES (?1, ?2, ?3)
    ON CONFLICT (node) DO UPDATE SET stamp = ?2, moved = ?3 WHERE stamp < ?2
"""
_MARKS = """
    SELECT bucket, digest FROM sessions JOIN (
        SELECT bucket, id FROM sessions
        WHERE retain >> 26 BETWEEN ?1 >> 26 AND ?2 >> 26 AND retain > ?1 AND retain <= ?2
    ) USING (bucket, id)
"""
_DIGESTS = "SELECT bucket, digest FROM sessions WHERE bucket >= ? AND bucket < ? AND retain > ?"
_LISTING = """
    SELECT id, digest FROM sessions WHERE bucket >= ? AND bucket < ? AND retain > ? ORDER BY bucket, id
"""

_Values = tuple[int, bytes, bytes, bytes, int, bytes | None]
"""What is inserted of a row: bucket, id, record, digest, retention and user."""

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
        self.written: dict[bytes, Kept] = {}
        """The sessions written, as they are to be kept."""

    def get(self, session: bytes) -> Row | None:
        bucket = bucket_of(session)
        count = self._cache.counts[group_of(bucket)]
        kept = self._cache.find(session, count)
        if kept is not None:
            return kept.row
        if self._cache.is_absent(session, count):
            return None
        found = self._execute(GET, (bucket, session)).fetchone()
        return None if found is None else row_of(*found)

    def put(self, session: bytes, before: Row | None, row: Row, encoded: bytes) -> None:
        bucket = bucket_of(session)
        held = b"" if row.held is None else encode_record(row.held)
        at = self._cache.mark(group_of(bucket))
        self.written[session] = Kept(at, row.stored, row, len(encoded) + len(held))
        if before is not None and _indexed_alike(before, row):
            # Where all indexes stay as they are, a write changes two pages in place of four.
            self._write(_CHANGE, (encoded, row.mark.digest, bucket, session))
        else:
            self._write(_PUT, (bucket, session, encoded, held or None, *row.mark, user_of(row.record)))

    def insert(self, rows: Mapping[bytes, Fresh]) -> list[bytes]:
        # In the order of the table: neighbours then share pages.
        ordered = sorted(
            [
                (bucket_of(session), session, encoded, mark.digest, mark.retain, user_of(record))
                for session, (record, encoded, mark) in rows.items()
            ]
        )
        for group in {group_of(row[0]) for row in ordered}:
            self._cache.mark(group)
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
            connection.executemany(_INSERT, [row for row in rest if row[1] not in here])
            return list(here)
        return []

    def delete(self, session: bytes) -> None:
        self.written.pop(session, None)
        bucket = bucket_of(session)
        self._cache.mark(group_of(bucket))
        self._write(_DELETE, (bucket, session))

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
        yield from self._execute(_DIGESTS, (buckets.start, buckets.stop, at))

    def listing(self, buckets: range, at: int) -> list[Listed]:
        found = self._execute(_LISTING, (buckets.start, buckets.stop, at))
        return list(starmap(Listed, found))

    def whole(self, session: bytes) -> bytes | None:
        return next((record for _, record in self.wholes([session])), None)

    def wholes(self, sessions: Iterable[bytes]) -> Iterator[tuple[bytes, bytes]]:
        keys = [(bucket_of(session), session) for session in sessions]
        return _merged(self._connection.executemany(_WHOLE, keys))

    def all(self, buckets: range, at: int) -> Iterator[tuple[bytes, bytes]]:
        return _merged(self._execute(_ALL, (buckets.start, buckets.stop, at)))

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
