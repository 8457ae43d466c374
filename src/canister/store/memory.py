"""The reference store: one process, nothing durable. Read this one first."""

import bisect
import threading
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from canister.clock import Clock, SystemClock
from canister.config import Config, Policy
from canister.errors import StoreError
from canister.life import NEVER
from canister.record import NodeId, Record, Version, encode_record, new_node_id, user_of
from canister.store.base import (
    ABSENT,
    NO_PEERS,
    Edit,
    Fingerprints,
    Known,
    Listed,
    LogEntry,
    Mark,
    Member,
    Merged,
    Peers,
    Stored,
    bucket_of,
)
from canister.store.transaction import Fresh, Row, Scope, Transaction, mark_of


class _Undo:
    """Rows over the store's dictionaries that can be rolled back."""

    def __init__(self, store: "MemoryStore") -> None:
        self._store = store
        self._before: dict[bytes, Row | None] = {}

    def get(self, session: bytes) -> Row | None:
        return self._store.rows.get(session)

    def put(self, session: bytes, row: Row, encoded: bytes) -> None:
        self._before.setdefault(session, self._store.rows.get(session))
        self._store.rows[session] = row

    def insert(self, rows: Mapping[bytes, Fresh]) -> list[bytes]:
        here: list[bytes] = []
        for session, (record, encoded, mark) in rows.items():
            if session in self._store.rows:
                here.append(session)
            else:
                self.put(session, Row(record, None, mark.retain, mark.digest), encoded)
        return here

    def delete(self, session: bytes) -> None:
        self._before.setdefault(session, self._store.rows.pop(session))

    def clock(self) -> int:
        return self._store.last_stamp()

    def append(self, entry: LogEntry) -> None:
        self._store.entries.append(entry)

    def vouch(self, node: NodeId, stamp: int, now: int) -> None:
        vouched = self._store.vouched
        if node != self._store.node:
            vouched[node] = max(stamp, vouched.get(node, 0))
        elif node in vouched and stamp >= self._store.forgot_at:
            del vouched[node]

    def roll_back(self) -> None:
        for session, row in self._before.items():
            if row is None:
                self._store.rows.pop(session, None)
            else:
                self._store.rows[session] = row


class MemoryStore:
    """A `ReplicatedStore` in dictionaries."""

    def __init__(self, config: Config, clock: Clock | None = None, node: NodeId | None = None) -> None:
        self._config = config
        self._clock = clock or SystemClock()
        self._node = node or new_node_id()
        drift = Policy.of(config).drift
        self._scope = Scope(self._node, config.cluster.encode(), drift, config.max_session)
        self._lock = threading.RLock()
        self._members: list[Member] = []
        self._peers = NO_PEERS
        self._fingerprints: Fingerprints = []
        self._closed = False
        self.rows: dict[bytes, Row] = {}
        self.entries: list[LogEntry] = []
        self.vouched: dict[NodeId, int] = {}
        self.forgot_at = 0
        self.clock_off = False

    def copy(self, clock: Clock | None = None, node: NodeId | None = None) -> "MemoryStore":
        """Return a store with the same content; under another node id nothing in its log is its own."""
        twin = MemoryStore(self._config, clock or self._clock, node or self._node)
        with self._lock:
            twin.rows = dict(self.rows)
            twin.vouched = dict(self.vouched)
            twin.forgot_at = self.forgot_at
            twin.save_members(self._members)
            last = [LogEntry(entry.stamp, []) for entry in self.entries[-1:]]
            twin.entries = list(self.entries) if twin.node == self.node else last
        return twin

    @property
    def node(self) -> NodeId:
        return self._node

    def load(self, session: bytes) -> Stored:
        self._check_open()
        row = self.rows.get(session)
        return row.stored if row else ABSENT

    def commit(self, edits: Sequence[tuple[bytes, Edit]], known: Known | None = None) -> Version | None:
        with self._transaction() as transaction:
            return transaction.commit(edits, clock_off=self.clock_off)

    def scan(self) -> Iterator[tuple[bytes, Record]]:
        self._check_open()
        with self._lock:
            rows = list(self.rows.items())
        return ((session, row.visible) for session, row in rows if row.visible is not None)

    def of_user(self, user: bytes) -> list[tuple[bytes, Record]]:
        return [(session, record) for session, record in self.scan() if user_of(record) == user]

    def heard_of(self, node: NodeId) -> int:
        self._check_open()
        return self.vouched.get(node, NEVER if node == self._node else 0)

    def close(self) -> None:
        self._closed = True

    def merge(
        self, batch: Iterable[tuple[bytes, Record]], heard: Mapping[NodeId, int], *, tell: bool = False
    ) -> Merged:
        with self._transaction() as transaction:
            return transaction.merge(batch, heard, tell=tell)

    def release(self) -> int:
        with self._transaction() as transaction:
            return transaction.release([s for s, row in self.rows.items() if row.held is not None])

    def sweep(self, gate: int, limit: int, *, destroyed: bool) -> int:
        with self._transaction() as transaction:
            due = [s for s in self.rows if transaction.may_sweep(s, gate, destroyed=destroyed)]
            return transaction.sweep(due[:limit], gate, destroyed=destroyed)

    def forget(self, session: bytes) -> bool:
        with self._transaction() as transaction:
            self.forgot_at = self.last_stamp()
            self.vouched = {self._node: 0}
            return transaction.drop(session) > 0

    def renounce(self, upto: int) -> None:
        with self._transaction() as transaction:
            self.forgot_at = max(upto, self.forgot_at)
            self.vouched[self._node] = 0
            transaction.advance(upto)

    def trim_log(self, before: int) -> bool:
        self._check_open()
        with self._lock:
            self.entries[:-1] = [entry for entry in self.entries[:-1] if entry.stamp >= before]
        return False

    @contextmanager
    def snapshot(self) -> Generator["MemoryStore", None, None]:
        self._check_open()
        with self._lock:
            yield self

    def log(self, after: int) -> list[LogEntry]:
        return self.entries[bisect.bisect_right(self.entries, after, key=lambda entry: entry.stamp) :]

    def last_stamp(self) -> int:
        return self.entries[-1].stamp if self.entries else 0

    def marks(self, above: int, upto: int) -> Iterator[tuple[int, bytes]]:
        for session, row in self.rows.items():
            if above < row.retain <= upto:
                yield bucket_of(session), self._mark(session, row).digest

    def digests(self, buckets: range, at: int) -> Iterator[tuple[int, bytes]]:
        for session, row in self.rows.items():
            bucket = bucket_of(session)
            if buckets.start <= bucket < buckets.stop and row.retain > at:
                yield bucket, self._mark(session, row).digest

    def listing(self, buckets: range, at: int) -> list[Listed]:
        rows = sorted((bucket_of(s), s, row) for s, row in self.rows.items() if bucket_of(s) in buckets)
        return [Listed(s, self._mark(s, row).digest) for _, s, row in rows if row.retain > at]

    def wholes(self, sessions: Iterable[bytes]) -> Iterator[tuple[bytes, bytes]]:
        found = ((session, self.whole(session)) for session in sessions)
        return ((session, record) for session, record in found if record is not None)

    def all(self, buckets: range, at: int) -> Iterator[tuple[bytes, bytes]]:
        return self.wholes(listed.session for listed in self.listing(buckets, at))

    def whole(self, session: bytes) -> bytes | None:
        row = self.rows.get(session)
        return encode_record(row.whole) if row else None

    def heard(self) -> dict[NodeId, int]:
        return dict(self.vouched)

    def members(self) -> list[Member]:
        self._check_open()
        return list(self._members)

    def save_members(self, members: Iterable[Member]) -> None:
        self._members = list(members)
        self.set_doubts(self._peers.doubts)

    def sync(self) -> None:
        pass  # nothing here outlives anything

    def peers(self) -> Peers:
        self._check_open()
        return self._peers

    def set_doubts(self, count: int) -> None:
        self._peers = Peers.among(self._members, self._node, count)

    def fingerprints(self) -> Fingerprints:
        return self._fingerprints

    def save_fingerprints(self, fingerprints: Fingerprints) -> None:
        self._fingerprints = fingerprints

    def set_clock_off(self, off: bool) -> None:
        self.clock_off = off

    @contextmanager
    def _transaction(self) -> Generator[Transaction, None, None]:
        self._check_open()
        with self._lock:
            rows = _Undo(self)
            try:
                yield Transaction(rows, self._scope, self._clock.now())
            except BaseException:
                rows.roll_back()
                raise

    def _mark(self, session: bytes, row: Row) -> Mark:
        return mark_of(session, row, self._scope.key)

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError("the store is closed")
