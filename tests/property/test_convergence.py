from functools import reduce
from itertools import pairwise, permutations
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from tests.records import A, B, C, slot

from canister import edits
from canister.clock import DAY, SECOND
from canister.config import Config, Policy, load_config
from canister.errors import SessionError
from canister.record import (
    EMPTY,
    META,
    Record,
    decode_record,
    encode_record,
    merge,
    node_of,
    stamp_of,
)
from canister.store.memory import MemoryStore
from canister.testing.clock import ManualClock

MINUTE = 60 * SECOND
EXAMPLES = 80

START = 1_800_000_000 * SECOND
SESSIONS = (b"s1", b"s2")

replicas = st.integers(0, 2)
sessions = st.sampled_from(SESSIONS)
slots = st.sampled_from([slot("x"), slot("y"), slot("secret", META)])


class Convergence(RuleBasedStateMachine):
    """Three replicas, each with a clock of its own; what they tell each other is lost or late."""

    settings_of_nodes: dict[str, Any]
    steps = st.integers(-2 * MINUTE, 3 * MINUTE)
    """By how much a clock moves: more than the 60 s of drift allowed between nodes."""

    def __init__(self) -> None:
        super().__init__()
        config: Config = load_config(self.settings_of_nodes, {})
        self.policy = Policy.of(config)
        self.clocks = [ManualClock(START) for _ in range(3)]
        self.stores = [
            MemoryStore(config, clock, node) for clock, node in zip(self.clocks, (A, B, C), strict=True)
        ]
        self.latest = START
        self.tombstones = dict.fromkeys(SESSIONS, 0)

    @rule(replica=replicas, session=sessions, slot=slots, value=st.sampled_from([b"1", b"2", None]))
    def put_or_remove(self, replica: int, session: bytes, slot: Any, value: bytes | None) -> None:
        self.commit(replica, session, lambda r, m: edits.write(r, m, self.policy, {slot: value}))

    @rule(replica=replicas, session=sessions)
    def clear(self, replica: int, session: bytes) -> None:
        self.commit(replica, session, lambda r, m: edits.write(r, m, self.policy, {}, clear=True))

    @rule(replica=replicas, session=sessions)
    def touch(self, replica: int, session: bytes) -> None:
        self.commit(replica, session, lambda r, m: edits.touch(r, m, m.now))

    @rule(replica=replicas, session=sessions, idle=st.none() | st.integers(1, 30), end=st.booleans())
    def set_expiry(self, replica: int, session: bytes, idle: int | None, end: bool) -> None:
        until = self.clocks[replica].now() + 10 * MINUTE if end else None
        span = None if idle is None else idle * MINUTE
        self.commit(replica, session, lambda r, m: edits.set_expiry(r, m, self.policy, span, until))

    @rule(replica=replicas, session=sessions, sure=st.integers(0, 3))
    def destroy(self, replica: int, session: bytes, sure: int) -> None:
        if sure == 0:
            self.commit(replica, session, lambda r, m: edits.destroy(r, m, self.policy))

    @rule(replica=replicas, step=st.data())
    def move_clock(self, replica: int, step: st.DataObject) -> None:
        self.latest = max(self.latest, self.clocks[replica].advance(step.draw(self.steps)))

    @rule(source=replicas, sink=replicas, which=st.integers(0, 1000), twice=st.booleans())
    def deliver_a_commit(self, source: int, sink: int, which: int, twice: bool) -> None:
        """Send any commit ever made, early or late, as it was written."""
        made = self.made_by(source)
        if made:
            for _ in range(1 + twice):
                self.stores[sink].merge([made[which % len(made)]], {})

    @rule(source=replicas, sink=replicas, session=sessions)
    def deliver_a_session(self, source: int, sink: int, session: bytes) -> None:
        """Send all that the source has of a session, what it holds back as well."""
        whole = self.stores[source].whole(session)
        if whole is not None:
            merged = self.stores[sink].merge([(session, decode_record(whole))], {})
            assert merged.doubtful == []

    @rule(replica=replicas)
    def release(self, replica: int) -> None:
        self.stores[replica].release()

    @rule(replica=replicas, destroyed=st.booleans())
    def sweep(self, replica: int, destroyed: bool) -> None:
        """Sweep without waiting for anybody: only what is past its hard end may go."""
        self.stores[replica].sweep(0, 10, destroyed=destroyed)

    @invariant()
    def no_half_session_is_visible(self) -> None:
        """R17: what readers see has its birth, or is a tombstone and nothing else."""
        for store in self.stores:
            for session in SESSIONS:
                record = store.load(session).record
                if record is not None:
                    assert record.birth is not None or record == Record(destroy=record.destroy)

    @invariant()
    def stamps_strictly_increase(self) -> None:
        """I11: each node's stamps increase whatever its clock did, and name the node."""
        for store in self.stores:
            stamps = [entry.stamp for entry in store.log(0)]
            assert all(a < b for a, b in pairwise(stamps))
            for entry in store.log(0):
                for change in entry.changes:
                    if change.delta is not None:
                        assert own_version(change.delta) == (entry.stamp, store.node)

    def teardown(self) -> None:
        """Let all clocks agree and all exchange what they have, until nobody learns anything."""
        for clock in self.clocks:
            clock.set(self.latest)
        for store in self.stores:
            store.release()
        while self.exchange_everything():
            pass
        self.check_replicas_are_equal()
        self.check_destroyed_stay_destroyed()

    def check_replicas_are_equal(self) -> None:
        """I1: all hold the same of every session that is still retained."""
        for one, other in pairwise(self.stores):
            assert retained(one, self.latest) == retained(other, self.latest)
            assert list(one.marks(self.latest, 2**63)) != [] or retained(one, self.latest) == {}
            assert sorted(one.marks(self.latest, 2**63)) == sorted(other.marks(self.latest, 2**63))

    def check_destroyed_stay_destroyed(self) -> None:
        """I4: while the tombstone lives, every replica has it and nothing else."""
        for session, keep in self.tombstones.items():
            for store in self.stores if keep > self.latest else ():
                record = store.load(session).record
                assert record is not None
                assert record.destroy is not None

    def exchange_everything(self) -> int:
        """Send every session from everybody to everybody; return how many changed anywhere."""
        changed = 0
        for source, target in permutations(self.stores, 2):
            batch = [(s, decode_record(w)) for s in SESSIONS if (w := source.whole(s)) is not None]
            changed += target.merge(batch, {}).changed
        return changed

    def commit(self, replica: int, session: bytes, edit: Any) -> None:
        store = self.stores[replica]
        before = (store.last_stamp(), store.whole(session))
        try:
            version = store.commit([(session, edit)])
        except SessionError:
            assert (store.last_stamp(), store.whole(session)) == before
            return
        assert version is None or stamp_of(version) > before[0]
        assert version is None or stamp_of(version) >= self.clocks[replica].now()
        record = store.load(session).record
        if version is not None and record is not None and record.destroy is not None:
            self.tombstones[session] = max(self.tombstones[session], record.destroy.keep)

    def made_by(self, replica: int) -> list[tuple[bytes, Record]]:
        return [
            (change.session, decode_record(change.delta))
            for entry in self.stores[replica].log(0)
            for change in entry.changes
            if change.delta is not None
        ]


def own_version(delta: bytes) -> tuple[int, bytes]:
    """Return the one version that everything in a commit has."""
    record = decode_record(delta)
    facts = (record.birth, record.expiry, record.touch, record.destroy, *record.cells.values())
    found = {fact.version for fact in facts if fact is not None}
    found |= set() if record.clear is None else {record.clear}
    (version,) = found
    return stamp_of(version), node_of(version)


def retained(store: MemoryStore, now: int) -> dict[bytes, bytes]:
    return {s: encode_record(row.whole) for s, row in store.rows.items() if row.mark.retain > now}


class Everything(Convergence):
    """Sessions last so long that none is ever dropped: then no acknowledged commit may be missing."""

    settings_of_nodes = {"grace_period": "30d", "session_timeout": "5m", "absolute_lifetime": "30m"}  # noqa: RUF012

    def teardown(self) -> None:
        super().teardown()
        commits = [commit for replica in range(3) for commit in self.made_by(replica)]
        for session in SESSIONS:
            union = reduce(merge, (delta for s, delta in commits if s == session), EMPTY)
            for store in self.stores:
                got = store.load(session).record
                assert (EMPTY if got is None else got) == union


class Lifetimes(Convergence):
    """Sessions and tombstones end all the time, are dropped, and ids are used again."""

    settings_of_nodes = {  # noqa: RUF012
        "grace_period": "4m",
        "session_timeout": "5m",
        "absolute_lifetime": "15m",
        "touch_interval": "0s",
    }
    steps = st.integers(-2 * MINUTE, 3 * MINUTE) | st.sampled_from([8 * MINUTE, 20 * MINUTE, DAY])


TestEverything = Everything.TestCase
TestLifetimes = Lifetimes.TestCase
TestEverything.settings = TestLifetimes.settings = settings(
    max_examples=EXAMPLES, stateful_step_count=50, deadline=None
)
