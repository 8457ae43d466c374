"""A peer that speaks well and lies: what it claims of clocks, of what it has heard, and of what is held."""

import msgspec
import pytest
from tests.fuzz.victim import DRIFT, ME, OTHER, PEER, Victim, equal_root, session_row

from canister.clock import DAY, SECOND
from canister.codec import encode_id
from canister.record import (
    Birth,
    Destroy,
    NodeId,
    Record,
    Touch,
    encode_record,
    make_version,
)
from canister.replication import messages as m


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
