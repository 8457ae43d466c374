"""Which members a node has compared all it holds with, on their present links."""

from collections.abc import Mapping

from canister.life import NEVER
from canister.replication.link import Link, LinkId
from canister.replication.membership import Membership
from canister.store.base import ReplicatedStore


class Coverage:
    """What the comparisons on all links come to; it tells the node's processes what is in doubt.

    Args:
        membership: whom the node knows.
        store: the node's sessions.
        links: the node's links, as they are at any time.
    """

    def __init__(self, membership: Membership, store: ReplicatedStore, links: Mapping[LinkId, Link]) -> None:
        self._membership = membership
        self._store = store
        self._links = links
        self._doubts = -1

    def gate(self) -> int:
        """Return the instant up to which all members have been compared with on their present links."""
        by_address = {link.address: link.reconciled_at for link in self._links.values()}
        return min((by_address.get(m.address, 0) for m in self._membership.others()), default=NEVER)

    def are_all_linked(self) -> bool:
        """Tell whether there is a link to every member."""
        linked = {link.address for link in self._links.values()}
        return all(member.address in linked for member in self._membership.others())

    def is_full(self) -> bool:
        """Tell whether all members have been fully compared with on their present links."""
        return self._doubted() == 0

    def tell(self) -> None:
        """Tell the node's processes how many members have not been fully compared with."""
        doubts = self._doubted()
        if doubts != self._doubts:
            self._store.set_doubts(doubts)
            self._doubts = doubts

    def _doubted(self) -> int:
        sound = {link.address for link in self._links.values() if link.is_sound}
        doubts = sum(member.address not in sound for member in self._membership.others())
        return doubts + (not self._membership.has_met_cluster)
