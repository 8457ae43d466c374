"""The member list: whose statement of an address holds, and how long removals are kept."""

from canister.record import NodeId, make_version
from canister.replication.membership import Membership
from canister.replication.messages import MOST_MEMBERS
from canister.store.base import Member

ME, FORMER, NEXT = NodeId(b"node-me."), NodeId(b"former.."), NodeId(b"next....")


def stated(address: str, joined: int, node: NodeId, *, removed: bool = False) -> Member:
    return Member(address, make_version(joined, node), removed, make_version(joined, node), node)


def test_a_node_never_speaks_under_the_id_of_another_one_at_its_address() -> None:
    """Two of them at once, as in a change from one to the other: each would vouch for the other's writes."""
    members = Membership([], stated("here:1", 5, ME))
    assert not members.merge([stated("here:1", 9, NEXT)])
    assert members.me.node == ME


def test_a_node_that_starts_does_not_take_over_the_id_of_the_former_one() -> None:
    """Its clock may be behind: what it states is then older than what is known of its address."""
    members = Membership([stated("here:1", 9, FORMER)], stated("here:1", 5, ME))
    assert members.me.node == ME


def test_a_peer_whose_address_is_anothers_by_now_is_known_as_such() -> None:
    members = Membership([stated("there:1", 9, NEXT)], stated("here:1", 1, ME))
    assert members.belongs_to_another(stated("there:1", 5, FORMER))
    assert not members.belongs_to_another(stated("there:1", 9, NEXT))
    assert not members.belongs_to_another(stated("there:1", 11, FORMER))
    assert not members.belongs_to_another(stated("new:1", 1, FORMER))


def test_a_removal_of_this_node_holds() -> None:
    members = Membership([], stated("here:1", 5, ME))
    assert members.merge([stated("here:1", 5, ME, removed=True)])
    assert members.me.removed


def test_the_newest_removals_are_kept_in_whatever_order_they_come() -> None:
    """Addresses that change with every deployment must not fill the list for good."""
    gone = [stated(f"gone-{n:04}:1", 10 + n, FORMER, removed=True) for n in range(2 * MOST_MEMBERS)]
    forth, back = (Membership([], stated("here:1", 5, ME)) for _ in range(2))
    for n in range(0, len(gone), 50):
        forth.merge(gone[n : n + 50])
        back.merge(gone[::-1][n : n + 50])
    assert (
        forth.all() == back.all() == sorted([*gone[-MOST_MEMBERS + 1 :], forth.me], key=lambda m: m.address)
    )
    assert not forth.merge(gone), "they bring nothing new"
    assert forth.merge([stated("new:1", 10_000, NEXT)])
    assert [member.address for member in forth.others()] == ["new:1"]
