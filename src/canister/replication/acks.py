"""Write acknowledgements: which members hold a commit durably, asked for and told."""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from canister.errors import ProtocolError
from canister.replication.link import Handlers, Link, LinkId
from canister.replication.membership import Membership
from canister.replication.messages import MOST_MEMBERS, Ack, AskAck
from canister.replication.runtime import Runtime
from canister.store.base import Needed, ReplicatedStore


class Holders(NamedTuple):
    """The members that hold a commit durably, by address, and how many were needed."""

    members: list[str]
    needed: int


def needed_of(needed: Needed, members: int) -> int:
    """Return how many of so many members are needed."""
    return {"majority": members // 2 + 1, "all": members}[needed] if isinstance(needed, str) else needed


class _Waiter(NamedTuple):
    stamp: int
    needed: Needed
    done: Callable[[Holders], None]


class Acks:
    """What the members have said to hold of this node's commits, and who waits for it.

    Args:
        membership: whom the node knows; what a removed member said does not count.
        store: the node's sessions.
        runtime: what sends.
        links: the node's links, as they are at any time.
    """

    def __init__(
        self,
        membership: Membership,
        store: ReplicatedStore,
        runtime: Runtime,
        links: Mapping[LinkId, Link],
    ) -> None:
        self._membership = membership
        self._store = store
        self._runtime = runtime
        self._links = links
        self._held: dict[str, int] = {}
        self._number = 0
        self._waiting: dict[int, _Waiter] = {}
        self.handlers: Handlers = {AskAck: self.on_ask, Ack: self.on_ack}
        """What takes in which message."""

    def wait(self, stamp: int, needed: Needed, done: Callable[[Holders], None]) -> int:
        """Call *done* once as many members as *needed*, this one included, hold all up to *stamp*.

        The commits themselves must have been sent. Returns the number that `expire` takes.
        """
        self._store.sync()
        me = self._membership.address
        self._held[me] = max(
            stamp, self._held.get(me, 0)
        )  # threads may ask in another order than they committed
        self._number += 1
        self._waiting[self._number] = _Waiter(stamp, needed, done)
        self._settle()
        self._ask(self._links, stamp)
        return self._number

    def opened(self, link: Link) -> None:
        """A link came up: ask on it what is still waited for."""
        if self._waiting:
            self._ask([link.number], max(waiter.stamp for waiter in self._waiting.values()))

    def on_ask(self, link: Link, message: AskAck) -> None:
        """A peer wants to be told once commits, of itself or of one that asked it, are held here.

        Raises:
            ProtocolError: it asks about more nodes than there can be.
        """
        if len(link.asked_held) >= MOST_MEMBERS and message.node not in link.asked_held:
            raise ProtocolError("it asks about the commits of too many nodes")
        link.asked_held[message.node] = max(message.stamp, link.asked_held.get(message.node, 0))
        self.tell(link)
        if message.node == link.node:  # else it is passed on already
            reached = [other.number for other in self._links.values() if other.address in message.unlinked]
            self._runtime.send(reached, AskAck(message.stamp, message.node, []))

    def tell(self, link: Link) -> None:
        """Tell a peer that asked that the commits are here, once they would outlive a power cut."""
        for node, stamp in list(link.asked_held.items()):
            if self._store.heard_of(node) >= stamp:
                del link.asked_held[node]
                self._store.sync()
                self._runtime.send([link.number], Ack(stamp, node, self._membership.address))

    def on_ack(self, link: Link, message: Ack) -> None:
        """A member holds commits durably: this node's, or those of a peer that it has no link to."""
        if message.node == self._store.node:
            if message.holder not in self._membership:
                return  # only members count, and a peer may name any number of others
            self._held[message.holder] = max(message.stamp, self._held.get(message.holder, 0))
            self._settle()
        elif message.holder == link.address:
            askers = [other.number for other in self._links.values() if other.node == message.node]
            self._runtime.send(askers, message)

    def expire(self, number: int) -> None:
        """Answer a waiter with what there is."""
        waiter = self._waiting.pop(number, None)
        if waiter is not None:
            waiter.done(Holders(self._holders(waiter.stamp), self._count(waiter.needed)))

    def _ask(self, receivers: Iterable[LinkId], stamp: int) -> None:
        linked = {link.address for link in self._links.values()}
        unlinked = [m.address for m in self._membership.others() if m.address not in linked]
        question = AskAck(stamp, self._store.node, unlinked)
        self._runtime.send(list(receivers), question)

    def _settle(self) -> None:
        for number, waiter in list(self._waiting.items()):
            holders, count = self._holders(waiter.stamp), self._count(waiter.needed)
            if len(holders) >= count:
                del self._waiting[number]
                waiter.done(Holders(holders, count))

    def _count(self, needed: Needed) -> int:
        """Return how many members are needed; one more than is known at least before a seed was met."""
        count = needed_of(needed, 1 + len(self._membership.others()))
        knows_all = self._membership.has_met_cluster or not isinstance(needed, str)
        return count if knows_all else max(2, count)

    def _holders(self, stamp: int) -> list[str]:
        members = [self._membership.address, *(m.address for m in self._membership.others())]
        return [address for address in members if self._held.get(address, 0) >= stamp]
