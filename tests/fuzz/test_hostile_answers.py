"""A peer that speaks well and asks or answers without end, or not at all."""

import time

import pytest
from tests.fuzz.victim import (
    PEER,
    Victim,
    asked,
    equal_root,
    later_row,
    session_row,
)

from canister.clock import DAY, SECOND
from canister.codec import encode_id
from canister.record import (
    NodeId,
    make_version,
)
from canister.replication import messages as m
from canister.replication.digests import DigestTree, branch_of
from canister.replication.messages import Message
from canister.store.base import BUCKETS, Member, bucket_of
from canister.testing.simulation.schedule import START


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
        digests[branch_of(1, place(row)[0])] = b"differs!"
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
        (branch,) = asked(victim, m.AskDigests).question.branches if level else [0]
        below = bucket >> (8, 4, 0)[level]
        digests = tree.children(level, branch)
        digests[below - branch * fan] = b"differs!"
        joined = b"".join(digests)
        many = 10**9  # sessions, so that it goes all the way down
        root = m.Root(number, now, {}, [], b"different", joined, many)
        victim.hears(m.Digests(number, joined) if level else root)
    assert asked(victim, m.AskListing).question.branches == [bucket]
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
    assert len(victim.runtime.sent[-1].listings[0]) == 8
    assert victim.replica.read(1)
    assert [message.round for message in victim.runtime.sent if isinstance(message, m.Root)] == [1]
    victim.check()


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
