"""A peer that speaks well and tells of members that there are not."""

from tests.fuzz.victim import PEER, Victim

from canister.clock import SECOND
from canister.record import (
    NodeId,
    Version,
    make_version,
)
from canister.replication import messages as m
from canister.replication.messages import encode_message
from canister.store.base import Member


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
