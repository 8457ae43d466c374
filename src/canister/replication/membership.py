"""Who belongs to the cluster: a replicated set of addresses with tombstones.

There is room for `MOST_MEMBERS`; the tombstones that are kept are the newest, on every node the same.
"""

from collections.abc import Iterable

from canister.record import NodeId, Version
from canister.replication.messages import MOST_MEMBERS
from canister.store.base import Member


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

    def is_removed(self, member: Member) -> bool:
        """Tell whether a member as it states itself has been removed."""
        known = self._members.get(member.address)
        return known is not None and known.removed and known.joined >= member.joined

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


def introduce(
    stored: Iterable[Member], address: str, node: NodeId, version: Version, *, empty: bool
) -> Member:
    """Return what a starting node states about itself.

    A node that still has data keeps its membership, so that a removal while it was down holds; one
    that starts empty joins anew.
    """
    known = next((member for member in stored if member.address == address), None)
    if known is None or (empty and known.removed):
        return Member(address, version, False, version, node)
    return known if known.node == node else Member(address, known.joined, known.removed, version, node)
