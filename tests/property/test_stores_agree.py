import secrets
import tempfile
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from tests.records import B, slot
from tests.redis_servers import StoreBeside, running_cluster, running_redis

from canister import edits
from canister.clock import DAY, SECOND
from canister.config import Config, Policy
from canister.edits import Moment
from canister.errors import CanisterError
from canister.life import deadline
from canister.record import EMPTY, Record, make_version, merge
from canister.store.base import BUCKETS, ReplicatedStore, bucket_of
from canister.store.memory import MemoryStore
from canister.store.redis import RedisStore
from canister.store.sqlite import SqliteStore
from canister.testing.clock import ManualClock
from canister.testing.contract import told

MINUTE = 60 * SECOND
SESSIONS = (b"s1", b"s336475", b"s175556", b"s1\x00")
"""The first three are in one bucket, the first two in one stripe."""
CONFIG = Config(max_value=100, max_session=600)
POLICY = Policy.of(CONFIG)
START = 1_800_000_000 * SECOND
FOREVER = 2**62

MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
"""Where the databases are, so that no time is lost waiting for a disk."""

sessions = st.sampled_from(SESSIONS)
times = st.sampled_from([-MINUTE, 0, 1, MINUTE, 2 * MINUTE, 30 * MINUTE, 2 * 60 * MINUTE, 31 * DAY])
offsets = st.sampled_from([-MINUTE, 0, MINUTE, MINUTE + 1, 5 * MINUTE])
names = st.sampled_from(["x", "y", "z"])
flags = st.tuples(st.booleans(), st.booleans())
contents = st.sampled_from([None, b"1", b"2" * 300])


class Verbs(RuleBasedStateMachine):
    """A store does exactly what the simple reference store does, in what every store can do."""

    store: Any
    memory: MemoryStore

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock(START)

    def both(self, act: Any) -> None:
        """Do the same on both stores; they answer alike or raise alike."""
        assert outcome(act, self.store) == outcome(act, self.memory)

    @rule(by=times)
    def wait(self, by: int) -> None:
        if self.clock.now() < START + 390 * DAY:  # later, what was heard is forgotten
            self.clock.advance(by)

    @rule(session=sessions, other=sessions, name=names, content=contents, flags=flags)
    def write(self, session: bytes, other: bytes, name: str, content: Any, flags: tuple[bool, bool]) -> None:
        clear, known = flags

        def edit(record: Record | None, moment: Moment) -> Record:
            return edits.write(record, moment, POLICY, {slot(name): content}, clear=clear)

        old = {session: self.memory.load(session).record} if known else None
        self.both(lambda store: store.commit([(session, edit), (other, edit)], old))

    @rule(session=sessions)
    def touch(self, session: bytes) -> None:
        self.both(lambda store: store.commit([(session, lambda r, m: edits.touch(r, m, m.now))]))

    @rule(session=sessions, idle=st.none() | st.integers(1, 120))
    def set_expiry(self, session: bytes, idle: int | None) -> None:
        span = None if idle is None else idle * MINUTE

        def edit(record: Record | None, moment: Moment) -> Record | None:
            return edits.set_expiry(record, moment, POLICY, span, moment.now + MINUTE)

        self.both(lambda store: store.commit([(session, edit)]))

    @rule(session=sessions)
    def destroy(self, session: bytes) -> None:
        self.both(lambda s: s.commit([(session, lambda r, m: edits.destroy(r, m, POLICY))]))

    @invariant()
    def stores_are_equal(self) -> None:
        self.both(self.everything)

    def everything(self, store: Any) -> list[Any]:
        """Return all that a store answers to any question."""
        return [*(told(store, session) for session in SESSIONS), *sorted(store.scan())]


class StoresAgree(Verbs):
    """The default store does exactly what the simple reference store does."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory(dir=MEMORY)
        self.store = SqliteStore(Path(self.directory.name), CONFIG, self.clock)
        self.reader = SqliteStore(Path(self.directory.name), CONFIG, self.clock)
        self.memory = MemoryStore(CONFIG, self.clock, self.store.node)
        self.peers: dict[bytes, Record] = {}

    def teardown(self) -> None:
        self.reader.close()
        self.store.close()
        self.directory.cleanup()

    @invariant()
    def another_process_sees_the_same(self) -> None:
        """What a process keeps in memory is never older than what another one has written."""
        for session in SESSIONS:
            stored = self.reader.load(session)
            assert told(self.reader, session) == told(self.memory, session)
            assert stored.end in (0, deadline(stored.record or EMPTY))
        assert self.reader.peers() == self.memory.peers()

    @rule(count=st.integers(0, 2))
    def set_doubts(self, count: int) -> None:
        self.both(lambda store: store.set_doubts(count))

    @rule(session=sessions, offset=offsets, name=names, content=contents, part=st.booleans())
    def arrive(self, session: bytes, offset: int, name: str, content: Any, part: bool) -> None:
        """Let the peer write, by a clock of its own, and send this or all it has of the session."""
        now = self.clock.now() + offset
        known = self.peers.get(session)
        moment = Moment(make_version(now, B), now)
        try:
            delta = edits.write(known, moment, POLICY, {slot(name): content})
        except CanisterError:
            delta = edits.destroy(known, moment, POLICY)
        self.peers[session] = delta if known is None else merge(known, delta)
        sent = delta if part else self.peers[session]
        self.both(lambda store: store.merge([(session, sent)], {B: now}))

    @rule(session=sessions, offset=offsets)
    def arrive_destroy(self, session: bytes, offset: int) -> None:
        now = self.clock.now() + offset
        sent = edits.destroy(self.peers.get(session), Moment(make_version(now, B), now), POLICY)
        self.both(lambda store: store.merge([(session, sent)], {}))

    @rule()
    def release(self) -> None:
        self.both(lambda store: store.release())

    @rule(destroyed=st.booleans(), gate=st.sampled_from([0, FOREVER]))
    def sweep(self, destroyed: bool, gate: int) -> None:
        self.both(lambda store: store.sweep(gate, 100, destroyed=destroyed))

    @rule(session=sessions)
    def forget(self, session: bytes) -> None:
        if self.memory.last_stamp():
            self.both(lambda store: store.forget(session))

    @rule(back=st.integers(0, 3))
    def trim(self, back: int) -> None:
        self.both(lambda store: store.trim_log(self.clock.now() - back))

    @rule(off=st.sampled_from([True, False, False, False]))
    def set_clock_off(self, off: bool) -> None:
        self.both(lambda store: store.set_clock_off(off))

    def everything(self, store: ReplicatedStore) -> list[Any]:
        """Return all that a store answers to any question."""
        found = super().everything(store)
        found += [store.heard_of(B), store.heard_of(store.node)]
        with store.snapshot() as view:
            found += [view.last_stamp(), view.heard(), sorted(view.marks(0, FOREVER))]
            # The order within a bucket, a sweep or a release is the store's own affair.
            found += [(entry.stamp, sorted(entry.changes, key=repr)) for entry in view.log(0)]
            for session in SESSIONS:
                bucket = bucket_of(session)
                assert 0 <= bucket < BUCKETS
                found += [view.whole(session), sorted(view.listing(range(bucket, BUCKETS), 0))]
        return found


class StoresAgreeOnIdsAlike(StoresAgree):
    """It does so where ids of one bucket have the same hash, and so want the same place in the table."""

    def __init__(self) -> None:
        super().__init__()
        alike = patch("canister.store.rows.blake2b", lambda _, digest_size: blake2b(digest_size=digest_size))
        alike.start()
        self.put_back = alike.stop

    def teardown(self) -> None:
        super().teardown()
        self.put_back()


class RedisAgrees(Verbs):
    """The store on Redis does exactly what the simple reference store does."""

    url: str
    kind = RedisStore

    def __init__(self) -> None:
        super().__init__()
        config = replace(CONFIG, cluster=secrets.token_hex(8))
        self.store = self.kind(self.url, config, self.clock)
        self.memory = MemoryStore(CONFIG, self.clock, self.store.node)

    def teardown(self) -> None:
        self.store.close()


class ClusterAgrees(RedisAgrees):
    """On a cluster it does too, and in the awaitable forms."""

    kind = StoreBeside


def outcome(act: Any, store: ReplicatedStore) -> Any:
    try:
        return act(store)
    except CanisterError as error:
        return type(error), str(error)


TestStoresAgree = StoresAgree.TestCase
TestStoresAgree.settings = settings(max_examples=15, stateful_step_count=40, deadline=None)
TestStoresAgreeOnIdsAlike = StoresAgreeOnIdsAlike.TestCase
TestStoresAgreeOnIdsAlike.settings = TestStoresAgree.settings


@pytest.mark.integration
def test_redis_agrees(tmp_path: Path) -> None:
    with running_redis(tmp_path) as server:
        RedisAgrees.url = server.url
        run_state_machine_as_test(RedisAgrees, settings=TestStoresAgree.settings)


@pytest.mark.integration
def test_redis_cluster_agrees(tmp_path: Path) -> None:
    with running_cluster(tmp_path) as servers:
        ClusterAgrees.url = f"redis+cluster://{servers[0].address}"
        few = settings(TestStoresAgree.settings, max_examples=8)
        run_state_machine_as_test(ClusterAgrees, settings=few)
