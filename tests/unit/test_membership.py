"""The member list: whose statement of an address holds, and how long removals are kept."""

from canister.record import NodeId, make_version, stamp_of
from canister.replication.membership import Membership, introduce, statement
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


def test_a_node_that_moved_leaves_its_former_address() -> None:
    """Whatever else is known of that address is later, and holds."""
    old, new = stated("old:1", 5, ME), stated("new:1", 9, ME)
    others = [stated("there:1", 1, NEXT), stated("gone:1", 1, FORMER, removed=True)]
    members = Membership([old, *others], new)
    assert members.leave_former() == [old]
    assert [m.address for m in members.all() if m.removed] == ["gone:1", "old:1"]
    assert (members.others(), members.leave_former()) == ([others[0]], [])
    assert not members.merge([old]), "peers that do not know of it yet bring nothing back"
    peer = Membership([old, new], others[0])
    assert peer.merge(members.all())
    assert peer.others() == [new]
    assert not peer.is_removed(stated("newer:1", 10, ME))
    assert peer.merge([stated("new:1", 11, FORMER)]), "it moves on, and another one takes its address first"
    assert not peer.is_removed(stated("newer:1", 10, ME))
    assert peer.merge([stated("old:1", 5, ME, removed=True)]), "who was removed by somebody is"
    assert peer.is_removed(stated("newer:1", 10, ME))
    taken = Membership([stated("old:1", 7, NEXT)], stated("there:1", 1, NEXT))
    assert not taken.merge(m for m in members.all() if m.address == "old:1")


def test_a_node_that_moves_joins_anew_at_its_address() -> None:
    """Also at one that it had before, or that another node had; but not where it was removed."""
    version = make_version(9, ME)
    fresh = Member("here:1", version, False, version, ME)
    elsewhere, away = stated("there:1", 5, ME), stated("here:1", 4, ME, removed=True)
    other = stated("here:1", 4, NEXT)

    def introduced(*stored: Member) -> Member:
        return introduce(stored, "here:1", ME, version, empty=False)

    assert introduced(elsewhere) == introduced(elsewhere, away) == introduced(elsewhere, other) == fresh
    assert introduced(away).removed
    assert introduced(stated("there:1", 5, ME, removed=True), away).removed
    here = stated("here:1", 4, ME)
    assert introduced(elsewhere, here) == here


def test_who_was_removed_is_known_at_another_address() -> None:
    """By its node id, as long as no address is known at which it is a member."""
    gone, back = stated("gone:1", 5, NEXT, removed=True), stated("back:1", 9, NEXT)
    assert Membership([gone], stated("here:1", 1, ME)).is_removed(back)
    assert not Membership([gone, back], stated("here:1", 1, ME)).is_removed(back)
    assert not Membership([gone, stated("there:1", 7, NEXT)], stated("here:1", 1, ME)).is_removed(back)
    assert not Membership([gone], stated("here:1", 1, ME)).is_removed(stated("gone:1", 9, NEXT))
    assert not Membership([gone], stated("here:1", 1, ME)).is_removed(stated("back:1", 9, FORMER))


def test_what_a_node_states_is_later_than_what_it_has_stated() -> None:
    """Its clock may have been set back since."""
    stored = [stated("old:1", 50, ME), stated("there:1", 99, NEXT)]
    assert [stamp_of(statement(stored, ME, last, 7)) for last in (0, 60)] == [51, 61]
    stored.append(stated("forged:1", 2**64 - 1, ME))
    assert stamp_of(statement(stored, ME, 0, 7)) == 51


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
