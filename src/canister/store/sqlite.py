"""The default store: one SQLite database in WAL mode, shared by all processes of a node."""

import os
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import starmap
from pathlib import Path
from typing import Any, TypeVar

import apsw
import msgspec

from canister.clock import Clock, SystemClock
from canister.config import Config, Policy
from canister.edits import LONGEST
from canister.errors import StoreError
from canister.life import NEVER
from canister.record import EMPTY, NodeId, Record, Version, decode_record, encode_record, new_node_id, user_of
from canister.store.base import (
    BUCKETS,
    Change,
    Edit,
    Fingerprints,
    Known,
    Listed,
    LogEntry,
    Mark,
    Member,
    Merged,
    Page,
    Stored,
    bucket_of,
)
from canister.store.cache import FACTS, SessionCache, group_of
from canister.store.connections import Cursor, Handle, Pool, explain, pending_frames
from canister.store.datadir import DataDir
from canister.store.transaction import Row, Scope, Transaction
from canister.store.turn import WriteTurn

T = TypeVar("T")

_LOAD = "SELECT record, held FROM sessions WHERE bucket = ? AND id = ?"
_GET = "SELECT record, held, digest, retain FROM sessions WHERE bucket = ? AND id = ?"
_PUT = """
    INSERT OR REPLACE INTO sessions (bucket, id, record, held, digest, retain, user)
    VALUES (?, ?, ?, ?, ?, ?, ?)
"""
_OF_USER = "SELECT id, record FROM sessions WHERE user = ? ORDER BY bucket, id"
_CHANGE = "UPDATE sessions SET record = ?, digest = ? WHERE bucket = ? AND id = ?"
_DELETE = "DELETE FROM sessions WHERE bucket = ? AND id = ?"
_LAST = "SELECT stamp FROM log ORDER BY stamp DESC LIMIT 1"
_META = "SELECT value FROM meta WHERE key = ?"
_SET_META = "INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)"
_CLOCK = "SELECT max(stamp), EXISTS (SELECT 1 FROM meta WHERE key = 'clock_off') FROM log"
_APPEND = "INSERT INTO log (stamp, changes) VALUES (?, ?)"
_VOUCH = """
    INSERT INTO heard (node, stamp, moved) VALUES (?1, ?2, ?3)
    ON CONFLICT (node) DO UPDATE SET stamp = ?2, moved = ?3 WHERE stamp < ?2
"""
_SCAN = """
    SELECT id, record FROM sessions
    WHERE (bucket, id) > (?, ?) AND record <> ? ORDER BY bucket, id LIMIT ?
"""
_HELD = "SELECT id FROM sessions WHERE held IS NOT NULL"
_NOTHING = encode_record(EMPTY)
_DUE = """
    SELECT retain, bucket, id FROM sessions
    WHERE retain <= ? AND (retain, bucket, id) > (?, ?, ?) ORDER BY retain, bucket, id LIMIT ?
"""
_ABSENT = Stored(None, held=False)
_NEVER_READ = -1
_PAGE = 500
_CHECKPOINT_AT = 2000
"""Pages in the write-ahead log from which they are moved into the database."""

_changes_encoder = msgspec.msgpack.Encoder()
_changes_decoder = msgspec.msgpack.Decoder(list[Change])
_member_decoder = msgspec.msgpack.Decoder(Member)


class _SqliteRows:
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
            self._execute(_VOUCH, (node, stamp, now))


class SqliteSnapshot:
    """A read transaction."""

    def __init__(self, handle: Handle) -> None:
        self._execute = handle.execute

    def log(self, after: int) -> list[LogEntry]:
        rows = self._execute("SELECT stamp, changes FROM log WHERE stamp > ? ORDER BY stamp", (after,))
        return [LogEntry(stamp, _changes_decoder.decode(changes)) for stamp, changes in rows]

    def last_stamp(self) -> int:
        return _last_stamp(self._execute)

    def marks(self, above: int, upto: int) -> Iterator[tuple[int, bytes]]:
        sql = "SELECT bucket, digest FROM sessions WHERE retain > ? AND retain <= ?"
        yield from self._execute(sql, (above, upto))

    def listing(self, buckets: range, at: int) -> list[Listed]:
        sql = "SELECT id, digest FROM sessions WHERE bucket >= ? AND bucket < ? AND retain > ? ORDER BY id"
        found = self._execute(sql, (buckets.start, buckets.stop, at))
        return list(starmap(Listed, found))

    def whole(self, session: bytes) -> bytes | None:
        found = self._execute(_LOAD, (bucket_of(session), session)).fetchone()
        if found is None:
            return None
        record, held = found
        if held is None:
            return bytes(record)
        row = Row(decode_record(record), decode_record(held), Mark(b"", 0))
        return encode_record(row.whole)

    def heard(self) -> dict[NodeId, int]:
        return dict(self._execute("SELECT node, stamp FROM heard").fetchall())


class SqliteStore:
    """A `ReplicatedStore` in a data directory. Safe to share between threads, processes and forks.

    Args:
        path: the data directory; made if it does not exist.
        config: the node's settings.
        clock: where the time comes from.
        draw: draws a node id where the directory has none that may be used again.

    Raises:
        StoreError: the directory or the database cannot be used; nothing in it was changed.
    """

    def __init__(
        self,
        path: Path,
        config: Config,
        clock: Clock | None = None,
        draw: Callable[[], NodeId] = new_node_id,
    ) -> None:
        self.files = DataDir(path)
        self._clock = clock or SystemClock()
        self._node = self.files.open(config, draw)
        self._scope = Scope(self._node, config.cluster.encode(), Policy.of(config).drift, config.max_session)
        self._pool = Pool(self.files.database, full=config.durability == "full")
        self._turn = WriteTurn(self.files.write_lock)
        self._cache = SessionCache(self.files.counts)
        self._doubts: tuple[int, int] = (_NEVER_READ, 0)
        self._members: tuple[int, list[Member]] = (_NEVER_READ, [])

    @property
    def node(self) -> NodeId:
        return self._node

    def load(self, session: bytes) -> Stored:
        bucket = bucket_of(session)
        count = self._cache.counts[group_of(bucket)]
        stored = self._cache.find(session, count)
        if stored is None:
            found = self._one(_LOAD, (bucket, session))
            if found is None:
                return _ABSENT
            record = decode_record(found[0])
            shown = record.birth is not None or record.destroy is not None
            stored = Stored(record if shown else None, found[1] is not None)
            self._cache.keep(session, count, stored, len(found[0]))
        return stored

    def commit(self, edits: Sequence[tuple[bytes, Edit]], known: Known | None = None) -> Version | None:
        def act(handle: Handle) -> Version | None:
            rows = _SqliteRows(handle, self._node, self._cache)
            version = Transaction(rows, self._scope, self._clock.now()).commit(edits)
            self._cache.fresh = rows.written
            return version

        return self._write(act)

    def scan(self) -> Iterator[tuple[bytes, Record]]:
        return (found for page in self.pages() for found in page.sessions)

    def pages(self, position: bytes = b"") -> Iterator[Page]:
        """Do what `scan` does, page by page; goes on after the page of *position*."""
        while True:
            after = (bucket_of(position), position) if position else (-1, b"")
            with self._pool.lend() as handle:
                rows = handle.execute(_SCAN, (*after, _NOTHING, _PAGE)).fetchall()
            if not rows:
                return
            position = rows[-1][0]
            share = (bucket_of(position) + 1) / BUCKETS
            yield Page(position, share, [(session, decode_record(record)) for session, record in rows])

    def load_all(self, sessions: Iterable[bytes]) -> dict[bytes, Record]:
        """Return those of *sessions* that are there."""
        found = ((session, self.load(session).record) for session in sessions)
        return {session: record for session, record in found if record is not None}

    def of_user(self, user: bytes) -> list[tuple[bytes, Record]]:
        with self._pool.lend() as handle:
            rows = handle.execute(_OF_USER, (user,)).fetchall()
        return [(session, decode_record(record)) for session, record in rows]

    def heard_of(self, node: NodeId) -> int:
        found = self._one("SELECT stamp FROM heard WHERE node = ?", (node,))
        if found is None:
            return NEVER if node == self._node else 0
        return int(found[0])

    def close(self) -> None:
        self._pool.close()
        self._turn.close()  # waits for the last writer
        self._cache.close()
        self._doubts = (_NEVER_READ, 0)
        self._members = (_NEVER_READ, [])
        self.files.use.end()

    def merge(
        self, batch: Iterable[tuple[bytes, Record]], heard: Mapping[NodeId, int], *, tell: bool = False
    ) -> Merged:
        return self._write(lambda handle: self._transaction(handle).merge(batch, heard, tell=tell))

    def release(self) -> int:
        held = self.held()
        return self._write(lambda handle: self._transaction(handle).release(held)) if held else 0

    def held(self) -> list[bytes]:
        """Return the sessions of which something is held back until its time comes."""
        with self._pool.lend() as handle:
            return [session for (session,) in handle.execute(_HELD)]

    def sweep(self, gate: int, limit: int, *, destroyed: bool) -> int:
        due: list[bytes] = []
        position: tuple[int, int, bytes] = (-1, -1, b"")
        while len(due) < limit:
            with self._pool.lend() as handle:
                page = handle.execute(_DUE, (self._clock.now(), *position, _PAGE)).fetchall()
                transaction = self._transaction(handle)
                due += [row[2] for row in page if transaction.may_drop(row[2], gate, destroyed=destroyed)]
            if len(page) < _PAGE:
                break
            position = page[-1]
        if not due:
            return 0

        def drop(handle: Handle) -> int:
            transaction = self._transaction(handle)
            sure = [s for s in due[:limit] if transaction.may_drop(s, gate, destroyed=destroyed)]
            return transaction.drop(sure, expired=not destroyed)

        return self._write(drop)

    def forget(self, session: bytes) -> bool:
        def drop(handle: Handle) -> bool:
            handle.execute("DELETE FROM heard")
            # Not heard of itself until a peer vouches for all it wrote so far.
            handle.execute(_VOUCH, (self._node, 0, _last_stamp(handle.execute)))
            return self._transaction(handle).drop([session]) > 0

        return self._write(drop)

    def trim_log(self, before: int) -> None:
        def trim(handle: Handle) -> None:
            sql = "DELETE FROM log WHERE stamp < min(?, (SELECT max(stamp) FROM log))"
            handle.execute(sql, (before,))
            handle.execute("DELETE FROM heard WHERE moved < ?", (self._clock.now() - LONGEST,))

        self._write(trim)

    @contextmanager
    def snapshot(self) -> Generator[SqliteSnapshot, None, None]:
        with self._pool.lend() as handle, handle.connection:
            yield SqliteSnapshot(handle)

    def members(self) -> list[Member]:
        count = self._cache.counts[FACTS]
        known, members = self._members
        if known != count:
            with self._pool.lend() as handle:
                rows = handle.execute("SELECT member FROM members").fetchall()
            members = [_member_decoder.decode(member) for (member,) in rows]
            self._members = (_read_at(count), members)
        return list(members)

    def save_members(self, members: Iterable[Member]) -> None:
        rows = [(member.address, msgspec.msgpack.encode(member)) for member in members]

        def replace(handle: Handle) -> None:
            handle.execute("DELETE FROM members")
            handle.connection.executemany("INSERT INTO members (address, member) VALUES (?, ?)", rows)

        self._write_fact(replace)

    def sync(self) -> None:
        log = self.files.database.with_name("canister.db-wal")
        try:
            handle = os.open(log, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
        except OSError as error:
            raise StoreError(f"{log} cannot be synced: {error.strerror}") from error

    def doubts(self) -> int:
        count = self._cache.counts[FACTS]
        known, doubts = self._doubts
        if known != count:
            found = self._one(_META, ("doubts",))
            doubts = int(found[0]) if found else 0
            self._doubts = (_read_at(count), doubts)
        return doubts

    def set_doubts(self, count: int) -> None:
        self._write_fact(lambda handle: handle.execute(_SET_META, ("doubts", count)))

    def fingerprints(self) -> Fingerprints:
        found = self._one(_META, ("keys",))
        return msgspec.msgpack.decode(found[0], type=Fingerprints) if found else []

    def save_fingerprints(self, fingerprints: Fingerprints) -> None:
        data = msgspec.msgpack.encode(fingerprints)
        self._write(lambda handle: handle.execute(_SET_META, ("keys", data)))

    def set_clock_off(self, off: bool) -> None:
        sql = (
            "INSERT OR IGNORE INTO meta (key) VALUES ('clock_off')"
            if off
            else "DELETE FROM meta WHERE key = 'clock_off'"
        )
        self._write(lambda handle: handle.execute(sql))

    def checkpoint_due(self) -> bool:
        """Tell whether so much is in the write-ahead log that it is worth a checkpoint."""
        return pending_frames(self.files.database) >= _CHECKPOINT_AT

    def checkpoint(self) -> None:
        """Move the write-ahead log into the database; the agent's work, never a request's."""
        with self._pool.lend() as handle:
            handle.connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)

    def _one(self, sql: str, parameters: tuple[Any, ...]) -> Any:
        """Return the first row of a query, None if there is none."""
        handle = self._pool.take()
        try:
            return handle.execute(sql, parameters).fetchone()
        except apsw.Error as error:
            raise explain(error, self.files.database) from error
        finally:
            self._pool.give(handle)

    def _write(self, act: Callable[[Handle], T]) -> T:
        """Run *act* as one transaction, in this writer's turn; return what it returns."""
        with self._turn:
            handle = self._pool.take()
            try:
                handle.execute("BEGIN IMMEDIATE")
                handle.stamp = 0
                try:
                    done = act(handle)
                    handle.execute("COMMIT")
                    if handle.stamp:
                        self._turn.note(handle.stamp)
                except BaseException:
                    if handle.connection.in_transaction:
                        handle.execute("ROLLBACK")
                    self._cache.fresh = {}
                    raise
                finally:
                    self._cache.settle()
            except apsw.Error as error:
                raise explain(error, self.files.database) from error
            finally:
                self._pool.give(handle)
            return done

    def _write_fact(self, act: Callable[[Handle], object]) -> None:
        """Write what the processes of the node keep in memory besides sessions."""

        def marked(handle: Handle) -> None:
            self._cache.mark(FACTS)
            act(handle)

        self._write(marked)

    def _transaction(self, handle: Handle) -> Transaction:
        return Transaction(_SqliteRows(handle, self._node, self._cache), self._scope, self._clock.now())


def _read_at(count: int) -> int:
    """Return the count at which what was read since holds; none while it is being written."""
    return _NEVER_READ if count & 1 else count


def _last_stamp(execute: Callable[..., Cursor]) -> int:
    found = execute(_LAST).fetchone()
    return found[0] if found else 0
