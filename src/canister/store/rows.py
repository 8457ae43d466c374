"""How sessions lie in a SQLite database: what a transaction does to their rows, and what the agent reads."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import starmap

import apsw
import msgspec

from canister.record import NodeId, decode_record, encode_record, user_of
from canister.store.base import Change, Listed, LogEntry, Mark, Stored, bucket_of
from canister.store.cache import SessionCache, group_of
from canister.store.connections import Cursor, Handle
from canister.store.transaction import Row

_WHOLE = "SELECT id, record, held FROM sessions WHERE bucket = ? AND id = ?"
_GET = "SELECT record, held, digest, retain FROM sessions WHERE bucket = ? AND id = ?"
_PUT = """
    INSERT OR REPLACE INTO sessions (bucket, id, record, held, digest, retain, user)
    VALUES (?, ?, ?, ?, ?, ?, ?)
"""
_INSERT = """
    INSERT INTO sessions (bucket, id, record, held, digest, retain, user) VALUES (?, ?, ?, NULL, ?, ?, ?)
"""
_IS_HERE = "SELECT id FROM sessions WHERE bucket = ? AND id = ?"
_CHANGE = "UPDATE sessions SET record = ?, digest = ? WHERE bucket = ? AND id = ?"
_DELETE = "DELETE FROM sessions WHERE bucket = ? AND id = ?"
_LAST = "SELECT stamp FROM log ORDER BY stamp DESC LIMIT 1"
_CLOCK = "SELECT max(stamp), EXISTS (SELECT 1 FROM meta WHERE key = 'clock_off') FROM log"
_APPEND = "INSERT INTO log (stamp, changes) VALUES (?, ?)"
VOUCH = """
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

_changes_encoder = msgspec.msgpack.Encoder()
_changes_decoder = msgspec.msgpack.Decoder(list[Change])


class SqliteRows:
    """The primitive acts of a transaction, on one connection."""

    def __init__(self, handle: Handle, node: NodeId, cache: SessionCache) -> None:
        self._handle = handle
        self._execute = handle.execute
        self._node = node
        self._cache = cache
        self._indexed: dict[bytes, tuple[int, bytes | None]] = {}
        """Retention and user of the rows read in this transaction that hold nothing back."""
        self.written: dict[bytes, tuple[int, Stored, int]] = {}
        """The sessions written, with group and bytes of each."""

    def get(self, session: bytes) -> Row | None:
        found = self._execute(_GET, (bucket_of(session), session)).fetchone()
        if found is None:
            return None
        record, held, digest, retain = found
        shown = decode_record(record)
        if held is None:
            self._indexed[session] = (retain, user_of(shown))
        return Row(shown, None if held is None else decode_record(held), Mark(digest, retain))

    def put(self, session: bytes, row: Row, encoded: bytes) -> None:
        digest, retain = row.mark
        user = user_of(row.record)
        bucket = bucket_of(session)
        group = group_of(bucket)
        self._cache.mark(group)
        self.written[session] = (group, Stored(row.visible, row.held is not None), len(encoded))
        if row.held is None and self._indexed.get(session) == (retain, user):
            # Where all indexes stay as they are, a write changes two pages in place of four.
            self._execute(_CHANGE, (encoded, digest, bucket, session))
            return
        self._indexed.pop(session, None)
        held = None if row.held is None else encode_record(row.held)
        self._execute(_PUT, (bucket, session, encoded, held, digest, retain, user))

    def insert(self, rows: Mapping[bytes, tuple[Row, bytes]]) -> list[bytes]:
        # In the order of the table: neighbours then share pages.
        ordered = sorted((bucket_of(s), s, e, *row.mark, user_of(row.record)) for s, (row, e) in rows.items())
        for bucket in {row[0] for row in ordered}:
            self._cache.mark(group_of(bucket))
        connection = self._handle.connection
        done = connection.total_changes()
        try:
            connection.executemany(_INSERT, ordered)
        except apsw.ConstraintError:
            rest = ordered[connection.total_changes() - done :]
            found = connection.executemany(_IS_HERE, [row[:2] for row in rest])
            here = dict.fromkeys(session for (session,) in found)
            connection.executemany(_INSERT, [row for row in rest if row[1] not in here])
            return list(here)
        return []

    def delete(self, session: bytes) -> None:
        self._indexed.pop(session, None)
        self.written.pop(session, None)
        bucket = bucket_of(session)
        self._cache.mark(group_of(bucket))
        self._execute(_DELETE, (bucket, session))

    def clock(self) -> tuple[int, bool]:
        last, off = self._execute(_CLOCK).fetchone()
        return last or 0, bool(off)

    def append(self, entry: LogEntry) -> None:
        self._execute(_APPEND, (entry.stamp, _changes_encoder.encode(entry.changes)))
        self._handle.stamp = entry.stamp

    def vouch(self, node: NodeId, stamp: int, now: int) -> None:
        if node == self._node:
            self._execute("DELETE FROM heard WHERE node = ? AND moved <= ?", (node, stamp))
        else:
            self._execute(VOUCH, (node, stamp, now))


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
        for session, record, held in self._connection.executemany(_WHOLE, keys):
            if held is not None:
                row = Row(decode_record(record), decode_record(held), Mark(b"", 0))
                record = encode_record(row.whole)
            yield session, record

    def heard(self) -> dict[NodeId, int]:
        return dict(self._execute("SELECT node, stamp FROM heard").fetchall())


def last_stamp(execute: Callable[..., Cursor]) -> int:
    """Return the greatest stamp in the log."""
    found = execute(_LAST).fetchone()
    return found[0] if found else 0
