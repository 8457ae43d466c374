"""Who belongs to the cluster: a replicated set of addresses with tombstones.

There is room for `MOST_MEMBERS`; the tombstones that are kept are the newest, on every node the same.
"""

from collections.abc import Iterable

from canister.clock import next_stamp
from canister.life import NEVER
from canister.record import NODE_ID_BYTES, NodeId, Version, make_version, stamp_of
from canister.replication.messages import MOST_MEMBERS
from canister.store.base import Member

_MOVED = make_version(0, NodeId(bytes(NODE_ID_BYTES)))
"""The version in the tombstone of who has moved away: a removal at the same address is later, and holds."""


class Membership:
    """The member list of one node; merging two lists keeps the later statement of each address."""

    def __init__(self, stored: Iterable[Member], me: Member, seeds: Iterable[str] = ()) -> None:
        self._members = {member.address: member for member in stored}
        self._all: list[Member] = []
        self._others: list[Member] = []
        self._has_seeds = any(seed != me.address for seed in seeds)
        self.address = me.address
        self._node = me.node
        known = self._members.get(me.address)
        if known is not None and self._is_anothers(known):
            del self._members[me.address]
        self._state(me)
        self._sort()

    def __contains__(self, address: str) -> bool:
        """Tell whether an address is in the list, as a member or as one that was removed."""
        return address in self._members

    @property
    def me(self) -> Member:
        """This node's own entry."""
        return self._members[self.address]

    @property
    def has_met_cluster(self) -> bool:
        """Tell whether the list can be taken for whole: a node that has yet to meet a seed knows nobody."""
        return bool(self.others()) or not self._has_seeds

    def all(self) -> list[Member]:
        """Return every entry, tombstones too, in order of address."""
        return list(self._all)

    def others(self) -> list[Member]:
        """Return the members other than this node that were not removed."""
        return list(self._others)

    def merge(self, members: Iterable[Member]) -> bool:
        """Take in another node's list; return whether anything changed."""
        before = self._all
        changes = [self._state(member) for member in members]
        if any(changes):
            self._sort()
        return self._all != before

    def remove(self, address: str) -> bool:
        """Put a tombstone in place of a member; return whether there was one."""
        member = self._members.get(address)
        if member is None or member.removed or address == self.address:
            return False
        return self.merge([Member(address, member.joined, True, member.version, member.node)])

    def leave_former(self) -> list[Member]:
        """Put tombstones in place of the members that this node was at other addresses; return those.

        Peers learn of them with the list that names it at its new address, so it is a member at any time.
        """
        former = _former(self._members.values(), self.address, self._node)
        self.merge(Member(m.address, m.joined, True, _MOVED, m.node) for m in former)
        return former

    def is_removed(self, member: Member) -> bool:
        """Tell whether a member as it states itself was removed, here or at an address it had before."""
        known = self._members.get(member.address)
        if known is not None and (not known.removed or known.joined >= member.joined):
            return known.removed
        before = [m for m in self._members.values() if m.node == member.node and m.address != member.address]
        before = [m for m in before if m.version != _MOVED]
        return bool(before) and all(m.removed for m in before)  # its data is what it was removed with

    def belongs_to_another(self, member: Member) -> bool:
        """Tell whether the address of a member, as it states itself, is another node's by now."""
        known = self._members.get(member.address)
        return known is not None and known.node != member.node and known.order() > member.order()

    def _is_anothers(self, member: Member) -> bool:
        """Tell whether a statement about this node's address is of a node that had it, or has it as well.

        Whoever spoke under the other one's id would vouch for what the other one writes.
        """
        return member.address == self.address and member.node != self._node and not member.removed

    def _sort(self) -> None:
        removed = [member for member in self._members.values() if member.removed]
        spare = len(self._members) - MOST_MEMBERS
        for member in sorted(removed, key=Member.order)[: max(0, spare)]:
            if member.address != self.address:
                del self._members[member.address]
        self._all = sorted(self._members.values(), key=lambda member: member.address)
        self._others = [m for m in self._all if not m.removed and m.address != self.address]

    def _state(self, member: Member) -> bool:
        known = self._members.get(member.address)
        if self._is_anothers(member) or (known is not None and known.order() >= member.order()):
            return False
        self._members[member.address] = member
        return True


def statement(stored: Iterable[Member], node: NodeId, last: int, now: int) -> Version:
    """Return the version of what a starting node states: later than all it has stated before.

    Args:
        stored: the members it knows.
        node: its id.
        last: its last stamp.
        now: what its clock says.
    """
    own = [member for member in stored if member.node == node]
    said = [stamp_of(version) for member in own for version in (member.joined, member.version)]
    # A peer may have stated anything of this node, but nothing is later than the last of all stamps.
    return make_version(next_stamp(max([last, *(stamp for stamp in said if stamp < NEVER)]), now), node)


def introduce(
    stored: Iterable[Member], address: str, node: NodeId, version: Version, *, empty: bool
) -> Member:
    """Return what a starting node states about itself.

    A node that still has data keeps its membership, so that a removal while it was down holds; one
    that starts empty joins anew. So does one that has moved here: what is known of this address is of
    another node, or of the time before it moved away.
    """
    stored = list(stored)
    known = next((member for member in stored if member.address == address), None)
    has_moved = bool(_former(stored, address, node))
    if known is None or (known.removed and empty) or (has_moved and (known.removed or known.node != node)):
        return Member(address, version, False, version, node)
    return known if known.node == node else Member(address, known.joined, known.removed, version, node)


def _former(members: Iterable[Member], address: str, node: NodeId) -> list[Member]:
    """Return the members that *node* was before it got *address*.

    A node id is one history, so nobody else is meant: a copy of the data has an id of its own.
    """
    return [m for m in members if m.node == node and m.address != address and not m.removed]
