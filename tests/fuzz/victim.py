"""A node that a hostile peer talks to, and what such a peer says."""

from collections.abc import Callable, Sequence
from random import Random
from types import SimpleNamespace

from tests.fuzz.hostile import NODES

from canister import edits
from canister.clock import DAY, SECOND
from canister.codec import encode_id
from canister.config import Config, Policy
from canister.errors import ProtocolError
from canister.life import retention
from canister.record import (
    KEY,
    Birth,
    Cell,
    NodeId,
    Record,
    Slot,
    Touch,
    check_record,
    digest_of,
    encode_record,
    make_version,
    merge,
    newest,
)
from canister.replication import messages as m
from canister.replication.digests import DigestTree
from canister.replication.membership import Membership
from canister.replication.messages import Message, decode_message, encode_message
from canister.replication.replica import Replica
from canister.store.base import BUCKETS, Member, ReplicatedStore
from canister.store.memory import MemoryStore
from canister.testing.clock import ManualClock
from canister.testing.simulation.schedule import START

ME, PEER, OTHER = NODES
CONFIG = Config()
POLICY = Policy.of(CONFIG)
DRIFT = POLICY.drift


class Recorder:
    """A runtime that keeps what a replica did."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.dropped: dict[int, str] = {}
        self.alarms: list[str] = []

    def send(self, links: Sequence[int], message: Message) -> None:
        if links:
            assert decode_message(encode_message(message)) == message  # what is sent, peers take
            self.sent.append(message)

    def drop(self, link: int, reason: str) -> None:
        self.dropped[link] = reason

    def alarm(self, what: str) -> None:
        self.alarms.append(what)

    def healed(self, report: object) -> None:
        pass


class Victim:
    """A node with some sessions of its own, linked with a hostile peer and a silent honest one."""

    def __init__(
        self,
        make: Callable[[ManualClock], ReplicatedStore] | None = None,
        *,
        linked: bool = True,
        has_read: bool = True,
    ) -> None:
        self.clock = ManualClock(START)
        self.store = make(self.clock) if make else MemoryStore(CONFIG, self.clock, ME)
        self.runtime = Recorder()
        me = Member("n0:1", make_version(1, self.store.node), False, make_version(1, self.store.node), ME)
        membership = Membership([], me)
        clock, runtime = self.clock, self.runtime
        self.replica = Replica(self.store, membership, CONFIG, clock, runtime, Random(1), clock.now)
        self.replica.start()
        if has_read:
            self.replica.read(BUCKETS)
        for name in ("s1", "s4"):
            self.put(name)
        if linked:
            self.link(1, "n1:1", PEER)
            self.link(2, "n2:1", OTHER)

    @classmethod
    def refusal_of(cls, hello: m.Hello) -> str | None:
        """Return what a fresh node says to a hello."""
        return cls(linked=False).replica.refusal(hello)

    def put(self, name: str) -> None:
        writes = {Slot(KEY + b"\xa1a"): b"\x01"}
        self.store.commit([(encode_id(name), lambda r, at: edits.write(r, at, POLICY, writes))])

    def link(self, number: int, address: str, node: NodeId, now: int = 0) -> None:
        stated = Member(address, make_version(1, node), False, make_version(1, node), node)
        hello = m.Hello(1, 1, "canister", stated, b"12345678", now or self.clock.now(), [stated])
        assert self.replica.refusal(hello) is None
        self.replica.opened(number, hello, dialed=False)

    def hears(self, message: Message, number: int = 1) -> None:
        """Take a message over the wire, as the agent does."""
        payload = encode_message(message)
        try:
            self.replica.received(number, decode_message(payload))
        except ProtocolError as error:
            self.runtime.drop(number, str(error))
            self.replica.closed(number)

    def check(self) -> None:
        """Check that the store and the digests are whole."""
        store = self.store
        at = self.clock.now()
        with store.snapshot() as snapshot:
            fresh = DigestTree()
            fresh.build(snapshot, at)
            assert self.replica.digest(at) == fresh.root()
            assert all(stamp <= at + DRIFT for stamp in snapshot.heard().values())
            assert snapshot.last_stamp() <= at + DRIFT
        if isinstance(store, MemoryStore):
            for session, row in store.rows.items():
                check_record(row.record)
                whole = encode_record(row.whole)
                assert row.digest == digest_of(session, whole, CONFIG.cluster.encode())
                assert row.retain == retention(row.whole)
                assert row.record == merge(row.record, row.record)
                if row.record.destroy is None:
                    assert newest(row.record) <= at + DRIFT
        assert len(self.replica.membership.all()) <= m.MOST_MEMBERS
        assert store.load(encode_id("s4")).record is not None


def session_row(name: str, at: int, node: NodeId = PEER) -> m.Row:
    version = make_version(at, node)
    record = Record(
        birth=Birth(version, at, DAY, 20 * 60 * SECOND, 60 * SECOND, 60 * SECOND),
        reach=21 * 60 * SECOND,
        touch=Touch(version, at),
        cells={Slot(KEY + b"\xa1a"): Cell(version, b"\x01")},
    )
    return encode_id(name), encode_record(record)


def later_row(name: str, at: int) -> m.Row:
    """A commit of a session that is not here."""
    return encode_id(name), encode_record(Record(touch=Touch(make_version(at, PEER), at)))


def asked(victim: Victim, kind: type[Message], number: int = 1) -> SimpleNamespace:
    pull = victim.replica.links[number].pull
    assert pull is not None
    assert isinstance(pull.asked[0], kind), pull.asked
    return SimpleNamespace(round=pull.round, question=pull.asked[0])


def equal_root(victim: Victim, claims: dict[NodeId, int], at: int | None = None) -> m.Root:
    """Answer the comparison under way with what the node itself holds."""
    at = victim.clock.now() if at is None else at
    return m.Root(asked(victim, m.AskRoot).round, at, claims, [], victim.replica.digest(at), bytes(2048), 0)
