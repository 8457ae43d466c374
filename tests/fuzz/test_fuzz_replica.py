"""A peer that says anything at all: the node stays whole, and nothing but ProtocolError comes out."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from types import SimpleNamespace

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fuzz import hostile
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
    Destroy,
    NodeId,
    Record,
    Slot,
    Touch,
    Version,
    check_record,
    digest_of,
    encode_record,
    make_version,
    merge,
    newest,
)
from canister.replication import messages as m
from canister.replication.digests import DigestTree, node_of_bucket
from canister.replication.membership import Membership
from canister.replication.messages import Message, decode_message, encode_message
from canister.replication.replica import Replica
from canister.store.base import BUCKETS, Member, ReplicatedStore, bucket_of
from canister.store.memory import MemoryStore
from canister.store.sqlite import SqliteStore
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


@settings(max_examples=200, deadline=None)
@given(st.lists(hostile.lying | st.integers(0, 30), max_size=12))
def test_lies_of_every_kind_leave_the_node_whole(said: list[Message | int]) -> None:
    """Any messages, between them time that passes: the digest is that of the rows, each row is possible."""
    victim = Victim()
    for word in said:
        if isinstance(word, int):
            victim.clock.advance(word * SECOND)
            victim.replica.tick()
            continue
        if 1 not in victim.replica.links and not victim.replica.membership.me.removed:
            try:
                victim.link(1, "n1:1", PEER)
            except (AssertionError, ProtocolError):
                break  # it has removed itself
        try:
            victim.hears(word)
        except ProtocolError as error:
            pytest.fail(f"out of place: {error}")
    victim.check()


@settings(max_examples=60, deadline=None)
@given(st.lists(hostile.lying, min_size=1, max_size=12))
def test_sqlite_takes_whatever_gets_through(said: list[Message]) -> None:
    """What the decoder lets pass, SQLite can hold: no integer too large, no text it refuses."""
    victim = _on_sqlite()
    victim.replica.links.clear()
    for word in said:
        if 1 not in victim.replica.links:
            if victim.replica.membership.me.removed or len(victim.replica.membership.all()) > 200:
                _forget_victim()
                return
            victim.replica.membership.merge(
                [Member("n1:1", Version(b"\xff" * 16), False, Version(b""), PEER)]
            )
            victim.replica.links.pop(1, None)
            stated = Member("n1:1", Version(b"\xff" * 16), False, Version(b""), PEER)
            hello = m.Hello(1, 1, "canister", stated, b"12345678", victim.clock.now(), [])
            victim.replica.opened(1, hello, dialed=False)
        victim.hears(word)
    victim.clock.advance(SECOND)
    victim.replica.tick()
    at = victim.clock.now()
    with victim.store.snapshot() as snapshot:
        fresh = DigestTree()
        fresh.build(snapshot, at)
        assert victim.replica.digest(at) == fresh.root()


_kept: dict[str, Victim] = {}


@pytest.fixture(autouse=True)
def directory(tmp_path_factory: pytest.TempPathFactory) -> None:
    _forget_victim()
    _paths[:] = [tmp_path_factory.mktemp("sqlite")]


_paths: list[Path] = []


def _on_sqlite() -> Victim:
    """Return a node on SQLite; the examples of a test share it."""
    if "it" not in _kept:
        path = _paths[0] / str(time.monotonic_ns())
        _kept["it"] = Victim(lambda clock: SqliteStore(path, CONFIG, clock))
    return _kept["it"]


def _forget_victim() -> None:
    if "it" in _kept:
        _kept.pop("it").store.close()


# What a hostile peer that speaks well could break, one by one.


@pytest.fixture
def victim() -> Victim:
    return Victim()


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


@pytest.mark.parametrize("ahead", [DRIFT + 1, DAY, 2**56])
def test_what_is_claimed_of_the_future_is_not_believed(victim: Victim, ahead: int) -> None:
    """R20: "all up to next year" would vouch for commits that are still to come, for ever."""
    now = victim.clock.now()
    victim.hears(equal_root(victim, {PEER: min(now + ahead, 2**57 - 1), OTHER: now + ahead, ME: now + ahead}))
    victim.hears(m.Heartbeat(now + ahead, 0, now))
    victim.hears(m.Live([[session_row("new", now)]], now + ahead))
    assert 1 in victim.replica.links, victim.runtime.dropped
    assert victim.store.load(encode_id("new")).record is not None
    assert (victim.store.heard_of(PEER), victim.store.heard_of(OTHER)) == (0, 0)


def test_what_is_claimed_up_to_now_is_believed(victim: Victim) -> None:
    """The bound takes nothing from a peer whose clock is right, or a little ahead."""
    now = victim.clock.now()
    victim.hears(equal_root(victim, {PEER: now + DRIFT, OTHER: now - 5, NodeId(b"nobody"): now + DRIFT + 1}))
    assert (victim.store.heard_of(PEER), victim.store.heard_of(OTHER)) == (now + DRIFT, now - 5)


def test_a_stamp_that_was_too_far_ahead_is_believed_when_its_time_has_come(victim: Victim) -> None:
    """A peer whose clock was set back says the same again with each heartbeat."""
    ahead = victim.clock.now() + DRIFT + 5 * SECOND
    victim.hears(equal_root(victim, {}))
    victim.hears(m.Heartbeat(ahead, 0, victim.clock.now()))
    assert victim.store.heard_of(PEER) == 0
    victim.clock.advance(6 * SECOND)
    victim.hears(m.Heartbeat(ahead, 0, victim.clock.now()))
    assert victim.store.heard_of(PEER) == ahead


def test_a_comparison_as_of_the_future_proves_nothing(victim: Victim) -> None:
    """As of next year all sessions are over and all digests equal: `heard` and the purge gate stay."""
    now = victim.clock.now()
    victim.hears(equal_root(victim, {PEER: now, OTHER: now}, at=now + 500 * DAY))
    link = victim.replica.links[1]
    assert link.pull is None
    assert not link.is_sound
    assert (victim.replica.gate(), victim.store.heard_of(PEER), victim.store.heard_of(OTHER)) == (0, 0, 0)
    victim.clock.advance(3 * SECOND)
    victim.hears(m.Heartbeat(0, 0, now))
    victim.clock.advance(9 * SECOND // 2)
    victim.hears(m.Heartbeat(0, 0, now))
    victim.clock.advance(9 * SECOND // 2)
    victim.replica.tick()
    assert link.pull is not None, "it compares again"
    victim.check()


def test_a_comparison_without_proof_counts_for_nothing(victim: Victim) -> None:
    """I8: a peer whose clock is far behind left out what is over by this one, and may be in use there."""
    now = victim.clock.now()
    victim.hears(msgspec.structs.replace(equal_root(victim, {PEER: now, OTHER: now}), proof=False))
    link = victim.replica.links[1]
    assert link.pull is None
    assert not link.is_sound
    assert (victim.store.heard_of(PEER), victim.store.heard_of(OTHER)) == (0, 0)


@pytest.mark.parametrize(("ahead", "proof"), [(DRIFT, True), (DRIFT + 1, False)])
def test_who_asks_with_a_clock_too_far_ahead_gets_no_proof(victim: Victim, ahead: int, proof: bool) -> None:
    """I8: what is over by its clock alone is left out, so it may not call it heard."""
    victim.hears(m.AskRoot(7, victim.clock.now() + ahead))
    (root,) = [message for message in victim.runtime.sent if isinstance(message, m.Root)]
    assert root.proof == proof


def test_made_up_node_ids_do_not_pile_up(victim: Victim) -> None:
    """Each comparison may name thousands of nodes: what is noted as heard has an end."""
    now = victim.clock.now()
    for turn in range(3):
        if victim.replica.links[1].pull is None:
            victim.replica.comparisons.start(victim.replica.links[1])
        claims = {NodeId(b"%d-%05d" % (turn, n)): now for n in range(6000)}
        victim.hears(equal_root(victim, claims))
    with victim.store.snapshot() as snapshot:
        assert len(snapshot.heard()) == 10_000


@pytest.mark.parametrize(
    ("offsets", "off"),
    [([0, 1], False), ([1, 1], True), ([0, -1], False), ([0, 0, 1], False), ([0, 1, 1], True), ([1], True)],
)
def test_one_wrong_clock_does_not_outvote_the_others(victim: Victim, offsets: list[int], off: bool) -> None:
    """A node of three that says it is next year must not stop the writes of the other two."""
    now = victim.clock.now()
    victim.replica.closed(1)
    victim.replica.closed(2)
    for number, offset in enumerate(offsets, 10):
        victim.link(number, f"n{number}:1", NodeId(b"node-%03d" % number), now + offset * 400 * DAY)
    victim.clock.advance(2 * SECOND)
    victim.replica.tick()
    assert any("further from its peers" in alarm for alarm in victim.runtime.alarms) == off


def test_an_immortal_session_is_refused(victim: Victim) -> None:
    """A birth of more than 400 days, or dated after its own stamp, ends the link."""
    now = victim.clock.now()
    version = make_version(now, PEER)
    for birth in (
        Birth(version, now, 401 * DAY, DAY, 1, 1),
        Birth(version, now + DAY, 400 * DAY, DAY, 1, 1),
    ):
        row = (encode_id("s"), encode_record(Record(birth=birth, reach=1, touch=Touch(version, now))))
        victim.hears(m.Live([[row]], now))
        assert victim.runtime.dropped.pop(1)
        victim.link(1, "n1:1", PEER)
    assert victim.store.load(encode_id("s")).record is None
    victim.check()


def test_a_destroy_far_ahead_does_not_move_the_clock(victim: Victim) -> None:
    """It is believed at once, and the stamps drawn here stay where they were."""
    victim.hears(
        m.Live([[(b"ss1", encode_record(Record(destroy=Destroy(make_version(2**56, PEER), 2**56))))]], 0)
    )
    record = victim.store.load(b"ss1").record
    assert record is not None
    assert record.destroy is not None
    victim.put("s5")
    victim.check()


def test_a_peer_that_heard_what_was_never_written(victim: Victim) -> None:
    """Believed once, where it can be true; nothing is lost by it."""
    now = victim.clock.now()
    for heard, alarms in ((now + 1, 0), (2**56, 0), (now - DAY, 1), (now - DAY, 1), (now - 9 * DAY, 1)):
        victim.hears(equal_root(victim, {victim.store.node: heard}))
        victim.replica.pull_now()
        assert len([what for what in victim.runtime.alarms if "put back" in what]) == alarms
    victim.put("s6")
    victim.check()


def test_an_answer_that_goes_on_for_ever_ends(victim: Victim) -> None:
    """Frames of rows with more=True: repeated, empty or foreign ones end the link."""
    now = victim.clock.now()
    wanted = encode_id("wanted")
    victim.put("wanted")
    for reason, rows in (
        ("empty", []),
        ("not asked", [session_row("other", now)]),
        ("twice", [session_row("wanted", now)]),
    ):
        _ask_rows(victim, wanted)
        number = asked(victim, m.AskRows).round
        for _ in range(2):
            victim.hears(m.Rows(number, list(rows), more=True, left=0))
        assert reason in victim.runtime.dropped.pop(1)
        victim.link(1, "n1:1", PEER)


@pytest.mark.parametrize(
    ("reason", "frames"),
    [("empty", [[]]), ("not asked", [[0], [19]]), ("twice", [[0], [0]]), ("out of order", [[1], [0]])],
)
def test_an_answer_with_all_sessions_that_goes_on_for_ever_ends(
    victim: Victim, reason: str, frames: list[list[int]]
) -> None:
    """Where nothing is here, what comes has to be in order, so nothing can come for ever."""
    now = victim.clock.now()
    rows = sorted((session_row(f"new-{number}", now) for number in range(20)), key=place)
    number = asked(victim, m.AskRoot).round
    digests = [bytes(8)] * 256
    for row in rows[:2]:
        digests[node_of_bucket(1, place(row)[0])] = b"differs!"
    victim.hears(m.Root(number, now, {}, [], b"different", b"".join(digests), 1000))
    assert asked(victim, m.AskAll)
    for frame in frames:
        assert not victim.runtime.dropped
        victim.hears(m.Rows(number, [rows[i] for i in frame], more=True, left=0))
    assert reason in victim.runtime.dropped[1]


def place(row: m.Row) -> tuple[int, bytes]:
    return bucket_of(row[0]), row[0]


def _ask_rows(victim: Victim, session: bytes) -> None:
    """Lead the comparison under way down to the bucket of a session."""
    now, bucket = victim.clock.now(), bucket_of(session)
    number = asked(victim, m.AskRoot).round
    with victim.store.snapshot() as snapshot:
        tree = DigestTree()
        tree.build(snapshot, now)
    for level, fan in ((0, 256), (1, 16), (2, 16)):
        (node,) = asked(victim, m.AskDigests).question.nodes if level else [0]
        below = bucket >> (8, 4, 0)[level]
        digests = tree.children(level, node)
        digests[below - node * fan] = b"differs!"
        joined = b"".join(digests)
        many = 10**9  # sessions, so that it goes all the way down
        root = m.Root(number, now, {}, [], b"different", joined, many)
        victim.hears(m.Digests(number, joined) if level else root)
    assert asked(victim, m.AskListing).question.nodes == [bucket]
    victim.hears(m.Listing(number, [b"unknown!"]))


def test_a_peer_that_never_answers_is_given_up(victim: Victim) -> None:
    """Its heartbeats do not make up for a comparison that stands still."""
    begun = victim.clock.now()
    while 1 in victim.replica.links:
        victim.clock.advance(SECOND)
        victim.hears(m.Heartbeat(0, 0, victim.clock.now()))
        victim.replica.tick()
        assert victim.clock.now() < begun + 40 * SECOND
    assert "does not answer" in victim.runtime.dropped[1]
    assert victim.clock.now() > begun + 30 * SECOND


def test_an_answer_that_takes_long_is_waited_for(victim: Victim) -> None:
    """As long as parts of it come; the link is not silent meanwhile, and is afterwards."""
    for _ in range(100):
        victim.clock.advance(SECOND)
        victim.replica.heard(1)
        victim.replica.tick()
        assert not victim.replica.is_silent(1)
    assert list(victim.replica.links) == [1]
    victim.clock.advance(3 * SECOND)
    assert victim.replica.is_silent(1)
    victim.clock.advance(4 * SECOND)
    victim.replica.tick()
    assert "silent for 7.0 s" in victim.runtime.dropped[1]
    victim.replica.heard(1)  # what came before it was closed


def test_commits_without_their_sessions_are_bounded(victim: Victim) -> None:
    """A flood of touches of unknown sessions: asked for fast, up to an end, and the link pays."""
    now = victim.clock.now()
    begun = time.monotonic()
    for turn in range(3):
        victim.hears(m.Live([[later_row(f"u{turn}-{n}", now)] for n in range(6000)], 0))
    assert time.monotonic() - begun < 5
    assert "too many sessions" in victim.runtime.dropped[1]
    victim.check()


def test_a_commit_without_its_session_is_asked_for_once(victim: Victim) -> None:
    """Until the answer has come, and again after it."""
    now = victim.clock.now()
    for _ in range(3):
        victim.hears(m.Live([[later_row("u", now)]], 0))
    fetches = [message for message in victim.runtime.sent if isinstance(message, m.Fetch)]
    assert len(fetches) == 1
    victim.hears(m.Fetched(fetches[0].number, None, {}, []))
    victim.hears(m.Live([[later_row("u", now)]], 0))
    assert len([message for message in victim.runtime.sent if isinstance(message, m.Fetch)]) == 2


def test_a_link_vouches_for_nothing_while_a_session_is_awaited_on_it(victim: Victim) -> None:
    """R17, R20: what is lacking is among what the peer's later commits would vouch for."""
    now = victim.clock.now()
    victim.hears(equal_root(victim, {}))
    victim.hears(m.Live([[later_row("u", now)]], now))
    victim.hears(m.Live([[session_row("new", now)]], now + 1))
    victim.hears(m.Heartbeat(now + 2, 0, now))
    assert victim.store.heard_of(PEER) == 0
    assert victim.store.peers().doubts == 2, "of the other peer nothing is known"
    (fetch,) = [message for message in victim.runtime.sent if isinstance(message, m.Fetch)]
    victim.hears(m.Fetched(fetch.number, session_row("u", now)[1], {}, []))
    assert victim.store.load(encode_id("u")).record is not None
    assert victim.store.heard_of(PEER) == now + 2
    assert victim.store.peers().doubts == 1


def test_what_was_said_before_a_peer_starts_over_counts_for_nothing(victim: Victim) -> None:
    """R19: it may have forgotten what it said then to be here once all is compared."""
    now = victim.clock.now()
    victim.hears(m.Heartbeat(now, 0, now))
    victim.hears(m.StartOver())
    victim.hears(equal_root(victim, {}))
    assert victim.store.heard_of(PEER) == 0
    assert victim.replica.links[1].is_sound
    victim.hears(m.StartOver())
    victim.hears(m.Heartbeat(now, 0, now))
    assert victim.store.heard_of(PEER) == 0
    assert victim.replica.gate() == 0
    victim.hears(equal_root(victim, {}))
    assert victim.store.heard_of(PEER) == now


def test_who_has_forgotten_vouches_in_no_way_for_itself(victim: Victim) -> None:
    """R19: before its own commits are all here again, and then only to who compares anew."""
    victim.hears(equal_root(victim, {}))
    victim.replica.forget(encode_id("s1"))
    last, sent = victim.store.last_stamp(), victim.runtime.sent
    del sent[:]

    def says() -> list[int]:
        """Return up to where it says that its commits are known, in all messages that do."""
        now = victim.clock.advance(3 * SECOND)
        for number in (1, 2):
            victim.hears(m.Heartbeat(0, 0, now), number)
        victim.put("s4")
        del sent[:]
        victim.replica.poll()
        victim.replica.tick()
        victim.hears(m.AskRoot(7, now))
        victim.hears(m.Fetch(7, encode_id("s4")))
        (live,), (root,), (reply,) = (
            [message for message in sent if isinstance(message, kind)] for kind in (m.Live, m.Root, m.Fetched)
        )
        beats = [message.upto for message in sent if isinstance(message, m.Heartbeat)]
        return [live.upto, *beats, root.claims[ME], reply.heard[ME]]

    assert says() == [0] * 5
    del sent[:]
    victim.hears(equal_root(victim, {ME: last}))
    assert [type(message) for message in sent[:1]] == [m.StartOver]
    assert says() == [victim.store.last_stamp()] * 5


def test_a_commit_is_on_the_disk_before_anybody_is_told_that_it_is_held(
    victim: Victim, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R25: by a peer that asks, and where it was made."""
    now = victim.clock.now()
    victim.hears(equal_root(victim, {PEER: now}))
    acts: list[str] = []
    monkeypatch.setattr(victim.store, "sync", lambda: acts.append("sync"))
    monkeypatch.setattr(victim.runtime, "send", lambda links, message: acts.append(type(message).__name__))
    victim.hears(m.AskAck(now, PEER, []))
    assert acts[:2] == ["sync", "Ack"]
    del acts[:]
    victim.replica.await_acks(now, 1, lambda holders: acts.append("held"))
    assert acts[:2] == ["sync", "held"]


def test_a_cluster_does_not_grow_without_end(victim: Victim) -> None:
    """Members by the hundred are refused before they are stored, told on or dialed."""
    made_up = [
        Member(f"192.0.2.1:{n}", make_version(n, PEER), False, make_version(n, PEER), PEER)
        for n in range(600)
    ]
    victim.hears(m.MemberList(made_up[:200]))
    assert 1 in victim.replica.links
    victim.hears(m.MemberList(made_up[200:400]))
    assert "members" in victim.runtime.dropped[1]
    assert len(victim.replica.membership.all()) == 203
    assert len(encode_message(victim.replica.hello())) < m.MAX_HELLO


def test_members_that_are_called_removed_as_well_count(victim: Victim) -> None:
    """Of two statements about an address in one list the later one holds."""

    def lives_on(n: int) -> list[Member]:
        gone, back = make_version(5, PEER), make_version(9, PEER)
        return [
            Member(f"m{n}:1", gone, True, gone, PEER),
            Member(f"m{n}:1", back, False, back, PEER),
        ]

    for begin in range(0, 450, 150):
        named = [member for n in range(begin, begin + 150) for member in lives_on(n)]
        victim.hears(m.MemberList(named), 1 if 1 in victim.replica.links else 2)
    assert len(victim.replica.membership.all()) <= m.MOST_MEMBERS
    assert "members" in victim.runtime.dropped[1]


def test_a_full_member_list_fits_a_hello(victim: Victim) -> None:
    """Honest nodes always understand each other's hello, however long the names in it."""
    long = [
        Member(f"{n:0100d}", Version(b"v" * 24), True, Version(b"v" * 24), NodeId(b"n" * 24))
        for n in range(m.MOST_MEMBERS - 3)
    ]
    victim.hears(m.MemberList(long))
    assert len(victim.replica.membership.all()) == m.MOST_MEMBERS
    assert len(encode_message(victim.replica.hello())) <= m.MAX_HELLO


def test_links_have_an_end(victim: Victim) -> None:
    """Peers that nobody lists get no more links than a full cluster would."""
    stated = Member("new:1", make_version(1, PEER), False, make_version(1, PEER), NodeId(b"new-node"))
    hello = m.Hello(1, 1, "canister", stated, b"12345678", victim.clock.now(), [])
    first = victim.replica.links[1]
    victim.replica.links.update(dict.fromkeys(range(100, 98 + m.MOST_MEMBERS), first))
    assert "300 links already" in str(victim.replica.refusal(hello))


@pytest.mark.parametrize(
    "question",
    [
        m.AskDigests(1, START, 0, [0] * 1000),
        m.AskDigests(1, START, -1, [0]),
        m.AskDigests(1, START, 3, [0]),
        m.AskDigests(1, START, 2**63, [0]),
        m.AskDigests(1, START, 2, [4096]),
        m.AskListing(1, START, 3, [7] * 1000),
        m.AskListing(1, START, 3, [-1]),
        m.AskListing(1, START, 3, [2**64 - 1]),
        m.AskListing(1, START, 4, [0]),
        m.AskRows(1, START, 3, [(7, [])] * 1000),
        m.AskRows(1, START, 3, [(65_536, [])]),
        m.AskRows(1, START, 1, [(256, [])]),
    ],
    ids=range(12),
)
def test_a_question_asks_for_each_thing_once(victim: Victim, question: Message) -> None:
    """Asking a thousand times for the same in one frame would make a small question a huge answer."""
    before = len(victim.runtime.sent)
    victim.hears(question)
    assert victim.runtime.dropped[1]
    assert len(victim.runtime.sent) == before


def test_questions_as_of_any_instant_leave_the_digests_right(victim: Victim) -> None:
    """The tree is moved to and fro by whoever asks."""
    for at in (0, 2**57 - 1, START, START + 500 * DAY, 1):
        victim.hears(m.AskRoot(1, at))
        victim.hears(m.AskDigests(1, at, 0, [0]))
        victim.hears(m.AskListing(1, at, 3, [bucket_of(encode_id("s1"))]))
        victim.check()
    assert not victim.runtime.dropped


def test_questions_wait_until_the_digests_are_read() -> None:
    """Nothing is compared with a part of them, whatever a peer asks; one question of a peer is kept."""
    victim = Victim(has_read=False)
    assert not [message for message in victim.runtime.sent if isinstance(message, m.AskRoot | m.Root)]
    for number in (1, 2):
        victim.hears(m.AskRoot(number, victim.clock.now()))
    victim.hears(m.Fetch(7, encode_id("s1")))
    assert isinstance(victim.runtime.sent[-1], m.Fetched)
    victim.replica.tick()
    assert not victim.replica.read(BUCKETS // 2)
    assert not [message for message in victim.runtime.sent if isinstance(message, m.AskRoot | m.Root)]
    assert victim.replica.read(BUCKETS // 2)
    assert [message.round for message in victim.runtime.sent if isinstance(message, m.Root)] == [2]
    assert len([message for message in victim.runtime.sent if isinstance(message, m.AskRoot)]) == 2
    victim.check()


def test_a_listing_asked_for_too_early_is_whole() -> None:
    """Who asks out of turn has the digests read at once; what others asked is still answered."""
    victim = Victim(has_read=False)
    victim.hears(m.AskRoot(1, victim.clock.now()), number=2)
    victim.hears(m.AskListing(1, START, 3, [bucket_of(encode_id("s1"))]))
    assert len(victim.runtime.sent[-1].nodes[0]) == 8
    assert victim.replica.read(1)
    assert [message.round for message in victim.runtime.sent if isinstance(message, m.Root)] == [1]
    victim.check()


def test_holders_that_are_no_members_are_not_kept(victim: Victim) -> None:
    """A peer may name any number of them."""
    for number in range(50):
        victim.hears(m.Ack(5, victim.store.node, f"nobody-{number}:1"))
    victim.hears(m.Ack(5, victim.store.node, "n1:1"))
    assert victim.replica.acks._held == {"n1:1": 5}


def test_what_a_removed_member_holds_does_not_count(victim: Victim) -> None:
    """R25: whoever said so before it was removed can return with empty data only."""
    stamp, found = victim.store.last_stamp(), []
    for number in (1, 2):
        victim.hears(m.Ack(stamp, victim.store.node, f"n{number}:1"), number)
    assert victim.replica.remove_member("n1:1")
    victim.replica.acks.expire(victim.replica.await_acks(stamp, 3, found.append))
    assert found == [(["n0:1", "n2:1"], 3)]


def test_a_node_that_has_another_ones_address_is_refused(victim: Victim) -> None:
    """It ran before the one that has it now, and its data is not what its peers believe to know of it."""
    former = NodeId(b"former..")
    stated = Member("n1:1", make_version(0, former), False, make_version(0, former), former)
    hello = m.Hello(1, 1, "canister", stated, b"12345678", victim.clock.now(), [])
    victim.clock.advance(3 * SECOND)  # the one that has it is not heard at the moment
    assert "the address of another node by now" in str(victim.replica.refusal(hello))


def test_a_node_that_takes_the_address_of_a_linked_one_is_refused(victim: Victim) -> None:
    """It was started with that address by mistake. Once the other one falls silent, it has replaced it."""
    newer = NodeId(b"newer...")
    version = make_version(victim.clock.now(), newer)
    hello = m.Hello(
        1, 1, "canister", Member("n1:1", version, False, version, newer), b"12345678", victim.clock.now(), []
    )
    assert "another node, which is linked" in str(victim.replica.refusal(hello))
    victim.clock.advance(3 * SECOND)
    assert victim.replica.refusal(hello) is None


def test_what_cannot_be_read_is_not_vouched_for(victim: Victim, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commits that have been taken in are sent, or none of them counts as taken in."""
    victim.put("s9")
    sent = len(victim.runtime.sent)
    with monkeypatch.context() as broken:
        broken.setattr(victim.store, "heard", lambda: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            victim.replica.poll()
    victim.replica.poll()
    live = [message for message in victim.runtime.sent[sent:] if isinstance(message, m.Live)]
    assert any(session == encode_id("s9") for commit in live[0].commits for session, _ in commit)
