"""The default store: one SQLite database in WAL mode, shared by all processes of a node."""

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import apsw
import msgspec

from canister.clock import Clock, SystemClock
from canister.config import Config, Policy
from canister.edits import LONGEST
from canister.life import NEVER
from canister.record import (
    EMPTY,
    NodeId,
    Record,
    Version,
    decode_record,
    encode_record,
    new_node_id,
    newest,
    stamp_of,
)
from canister.store.base import (
    ABSENT,
    Edit,
    Fingerprints,
    Known,
    Member,
    Merged,
    Page,
    Peers,
    Stored,
)
from canister.store.cache import FACTS, Fact, SessionCache, stripe_of
from canister.store.connections import Handle, Pool, explain, pending_frames
from canister.store.datadir import DataDir
from canister.store.history import break_history, set_meta
from canister.store.kept import absence, keeping
from canister.store.notes import Notes
from canister.store.rows import (
    END,
    GET,
    SqliteRows,
    SqliteSnapshot,
    last_stamp,
    place_of,
    row_of,
    trim_some,
)
from canister.store.transaction import Scope, Transaction
from canister.store.turn import WriteTurn
from canister.store.wal import checkpoint, sync_log

T = TypeVar("T")

_OF_USER = "SELECT id, record FROM sessions WHERE user = ? ORDER BY place"
_META = "SELECT value FROM meta WHERE key = ?"
_SCAN = "SELECT place, id, record FROM sessions WHERE place > ? AND record <> ? ORDER BY place LIMIT ?"
_UNHEARD = """
    INSERT INTO heard (node, stamp, moved) VALUES (?1, 0, ?2)
    ON CONFLICT (node) DO UPDATE SET moved = max(moved, ?2)
"""
_HELD = "SELECT id FROM sessions WHERE held IS NOT NULL"
_NEXT_HELD = "SELECT id, held FROM sessions WHERE held IS NOT NULL AND id > ? ORDER BY id LIMIT ?"
_NOTHING = encode_record(EMPTY)
_DUE = """
    SELECT retain >> 26, place, id FROM sessions
    WHERE retain >> 26 BETWEEN ?2 AND ?1 >> 26 AND retain <= ?1 AND (retain >> 26, place) > (?2, ?3)
    ORDER BY retain >> 26, place LIMIT ?4
"""
_PAGE, _DUE_PAGE, _HELD_PAGE = 500, 100, 250

_member_decoder = msgspec.msgpack.Decoder(Member)


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
        self._notes = Notes(self.files.write_lock)
        self._turn = WriteTurn(self.files.write_lock, self.files.turn_lock, self._notes.busy)
        self._cache = SessionCache(self.files.counts, config.cache_size)
        self._looked_at = b""
        self._members = Fact(self._cache, self._read_members)
        self._peers = Fact(self._cache, self._read_peers)
        self._clock_off = Fact(self._cache, lambda: self._one(_META, ("clock_off",)) is not None)

    @property
    def node(self) -> NodeId:
        return self._node

    def load(self, session: bytes) -> Stored:
        stripe = stripe_of(session)
        count = self._cache.counts[stripe]
        kept = self._cache.find(session, stripe, count)
        if kept is not None:
            return kept.stored
        first = place_of(session)
        found = self._one(GET, (first, session))
        if found is None:
            self._cache.keep_absent(session, absence(count, first))
            return ABSENT
        place, record, held, retain = found
        row = row_of(record, held, retain)
        kept = keeping(count, row, row.stored, len(record) + len(held or b""), place)
        self._cache.keep(session, kept)
        return kept.stored

    def commit(self, edits: Sequence[tuple[bytes, Edit]], known: Known | None = None) -> Version | None:
        return self._turn.run(self._commit, edits, self._clock_off.get())

    def _commit(self, edits: Sequence[tuple[bytes, Edit]], clock_off: bool) -> Version | None:
        handle = self._pool.take()
        try:
            # Worked out while the writer before still writes. Nobody draws a stamp meanwhile.
            now, last = self._clock.now(), self._notes.drawn()
            rows, version = self._work_out(handle, now, last, edits, clock_off)
            if version is None:
                return None
            self._notes.note_drawn(stamp_of(version))
            self._turn.begin(alone=False)
            if rows.holds():
                self._run(handle, rows.write)
                return version
            return self._run(handle, partial(self._anew, handle, now, last, edits, clock_off))
        except apsw.Error as error:
            raise explain(error, self.files.database) from error
        finally:
            self._pool.give(handle)

    def _work_out(
        self, handle: Handle, now: int, last: int, edits: Sequence[tuple[bytes, Edit]], clock_off: bool
    ) -> tuple[SqliteRows, Version | None]:
        """Run edits under the version after *last*; return what is to be written and the version, if any."""
        rows = SqliteRows(handle, self._node, self._cache, last, keeps=True)
        return rows, Transaction(rows, self._scope, now).commit(edits, clock_off=clock_off)

    def _anew(
        self, handle: Handle, now: int, last: int, edits: Sequence[tuple[bytes, Edit]], clock_off: bool
    ) -> Version | None:
        """Write what was worked out before the writer before has changed one of its sessions."""
        rows, version = self._work_out(handle, now, last, edits, clock_off)
        rows.write()
        return version

    def scan(self) -> Iterator[tuple[bytes, Record]]:
        return (found for page in self.pages() for found in page.sessions)

    def pages(self, position: bytes = b"") -> Iterator[Page]:
        """Do what `scan` does, page by page; goes on after the page of *position*."""
        place = int.from_bytes(position, "big") if position else -1
        while True:
            with self._pool.lend() as handle:
                rows = handle.execute(_SCAN, (place, _NOTHING, _PAGE)).fetchall()
            if not rows:
                return
            place = rows[-1][0]
            sessions = [(session, decode_record(record)) for _, session, record in rows]
            yield Page(place.to_bytes(8, "big"), (place + 1) / END, sessions)

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
        self._turn.close()  # waits for the last writer
        self._pool.close()
        self._notes.close()
        self._cache.close()
        self.files.use.end()

    def merge(
        self, batch: Iterable[tuple[bytes, Record]], heard: Mapping[NodeId, int], *, tell: bool = False
    ) -> Merged:
        return self._transact(lambda t: t.merge(batch, heard, tell=tell))

    def release(self) -> int:
        with self._pool.lend() as handle:
            page = handle.execute(_NEXT_HELD, (self._looked_at, _HELD_PAGE)).fetchall()
        self._looked_at = page[-1][0] if len(page) == _HELD_PAGE else b""
        limit = self._clock.now() + self._scope.drift
        due = [session for session, held in page if newest(decode_record(held)) <= limit]
        return self._transact(lambda t: t.release(due)) if due else 0

    def held(self) -> list[bytes]:
        """Return the sessions of which something is held back until its time comes."""
        with self._pool.lend() as handle:
            return [session for (session,) in handle.execute(_HELD)]

    def sweep(self, gate: int, limit: int, *, destroyed: bool) -> int:
        due = self._due(gate, limit, destroyed=destroyed)
        if not due:
            return 0
        return self._transact(lambda t: t.sweep(due, gate, destroyed=destroyed))

    def _due(self, gate: int, limit: int, *, destroyed: bool) -> list[bytes]:
        """Find what may go, before anybody has to wait for it."""
        due: list[bytes] = []
        position = (-1, -1)
        while len(due) < limit:
            with self._pool.lend() as handle:
                page = handle.execute(_DUE, (self._clock.now(), *position, _DUE_PAGE)).fetchall()
                rows = SqliteRows(handle, self._node, self._cache, self._notes.drawn())
                transaction = Transaction(rows, self._scope, self._clock.now())
                for _, _, session in page:
                    if len(due) < limit and transaction.may_sweep(session, gate, destroyed=destroyed):
                        due.append(session)
            if len(page) < _DUE_PAGE:
                break
            position = page[-1][:2]
        return due

    def forget(self, session: bytes) -> bool:
        def drop(handle: Handle) -> bool:
            handle.execute("DELETE FROM heard")
            # Not heard of itself until all that it wrote so far is vouched for.
            handle.execute(_UNHEARD, (self._node, last_stamp(handle.execute)))
            return self._within(handle, lambda t: t.drop(session)) > 0

        return self._write(drop)

    def renounce(self, upto: int) -> None:
        def act(handle: Handle) -> None:
            handle.execute(_UNHEARD, (self._node, upto))
            break_history(handle)
            self._within(handle, lambda t: t.advance(upto))

        self._write(act)

    def trim_log(self, before: int) -> bool:
        def trim(handle: Handle) -> bool:
            if trim_some(handle, before):
                return True
            handle.execute("DELETE FROM heard WHERE moved < ?", (self._clock.now() - LONGEST,))
            return False

        return self._write(trim)

    @contextmanager
    def snapshot(self) -> Generator[SqliteSnapshot, None, None]:
        with self._pool.lend() as handle, handle.connection:
            yield SqliteSnapshot(handle, self._scope.key)

    def members(self) -> list[Member]:
        return list(self._members.get())

    def save_members(self, members: Iterable[Member]) -> None:
        rows = [(member.address, msgspec.msgpack.encode(member)) for member in members]

        def replace(handle: Handle) -> None:
            handle.execute("DELETE FROM members")
            handle.connection.executemany("INSERT INTO members (address, member) VALUES (?, ?)", rows)

        self._write_fact(replace)

    def sync(self) -> None:
        sync_log(self.files.database)

    def peers(self) -> Peers:
        return self._peers.get()

    def set_doubts(self, count: int) -> None:
        self._write_fact(lambda handle: set_meta(handle, "doubts", count))

    def fingerprints(self) -> Fingerprints:
        found = self._one(_META, ("keys",))
        return msgspec.msgpack.decode(found[0], type=Fingerprints) if found else []

    def save_fingerprints(self, fingerprints: Fingerprints) -> None:
        data = msgspec.msgpack.encode(fingerprints)
        self._write(lambda handle: set_meta(handle, "keys", data))

    def set_clock_off(self, off: bool) -> None:
        sql = (
            "INSERT OR IGNORE INTO meta (key) VALUES ('clock_off')"
            if off
            else "DELETE FROM meta WHERE key = 'clock_off'"
        )
        self._write_fact(lambda handle: handle.execute(sql))

    def check_file(self) -> None:
        """Refuse to go on where the database was removed or replaced; the agent's work."""
        self._pool.check_file()

    def pending_pages(self) -> int:
        """Return how many pages of the write-ahead log a checkpoint would have to move."""
        return pending_frames(self.files.database)

    def checkpoint(self) -> bool:
        """Move the write-ahead log into the database; the agent's work. False if that was locked just now."""
        return checkpoint(self.files.database, self._pool, self._turn)

    def _read_members(self) -> list[Member]:
        with self._pool.lend() as handle:
            rows = handle.execute("SELECT member FROM members").fetchall()
        return [_member_decoder.decode(member) for (member,) in rows]

    def _read_peers(self) -> Peers:
        found = self._one(_META, ("doubts",))
        return Peers.among(self._members.get(), self._node, int(found[0]) if found else 0)

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

        def write() -> T:
            with self._pool.lend() as handle:
                self._turn.begin(alone=True)
                return self._run(handle, lambda: act(handle))

        return self._turn.run(write)

    def _run(self, handle: Handle, act: Callable[[], T]) -> T:
        """Run *act* as one transaction; its turn has come.

        The exception of a signal handler may come after any call.
        """
        handle.stamp = 0
        self._cache.begin()
        try:
            handle.write("BEGIN IMMEDIATE")
            done = act()
            handle.write("COMMIT")
            if handle.stamp:
                self._notes.note_committed(handle.stamp)
        except BaseException:
            self._cache.fresh = []
            if handle.connection.in_transaction:
                handle.write("ROLLBACK")
            raise
        finally:
            self._cache.settle()
        return done

    def _write_fact(self, act: Callable[[Handle], object]) -> None:
        """Write what the processes of the node keep in memory besides sessions."""

        def marked(handle: Handle) -> None:
            self._cache.mark(FACTS)
            act(handle)

        self._write(marked)

    def _transact(self, act: Callable[[Transaction], T]) -> T:
        """Let *act* write sessions as one transaction; return what it returns."""
        return self._write(lambda handle: self._within(handle, act))

    def _within(self, handle: Handle, act: Callable[[Transaction], T]) -> T:
        rows = SqliteRows(handle, self._node, self._cache, self._notes.drawn())
        done = act(Transaction(rows, self._scope, self._clock.now()))
        rows.write()
        if handle.stamp:
            self._notes.note_drawn(handle.stamp)
        return done
