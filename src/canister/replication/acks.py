"""Write acknowledgements: which members hold a commit durably, asked for and told."""

from collections.abc import Callable, Iterable
from typing import Literal, NamedTuple

from canister.replication.link import Link
from canister.replication.membership import Membership
from canister.replication.messages import AskHeld, Held
from canister.replication.runtime import Runtime
from canister.store.base import ReplicatedStore

Needed = int | Literal["majority", "all"]
"""How many members must hold a commit."""


class Holders(NamedTuple):
    """The members that hold a commit durably, by address, and how many were needed."""

    members: list[str]
    needed: int


class _Waiter(NamedTuple):
    stamp: int
    needed: int
    done: Callable[[Holders], None]


class Acks:
    """What the members have said to hold of this node's commits, and who waits for it.

    Args:
        membership: whom the node knows; what a removed member said does not count.
        store: the node's sessions.
        runtime: what sends.
    """

    def __init__(self, membership: Membership, store: ReplicatedStore, runtime: Runtime) -> None:
        self._membership = membership
        self._store = store
        self._runtime = runtime
        self._held: dict[str, int] = {}
        self._number = 0
        self._waiting: dict[int, _Waiter] = {}

    def wait(self, stamp: int, needed: Needed, links: Iterable[Link], done: Callable[[Holders], None]) -> int:
        """Call *done* once as many members as *needed*, this one included, hold all up to *stamp*.

        The commits themselves must have been sent. Returns the number that `expire` takes.
        """
        members = 1 + len(self._membership.others())
        count = {"majority": members // 2 + 1, "all": members}[needed] if isinstance(needed, str) else needed
        self._store.sync()
        self._held[self._membership.address] = stamp
        self._number += 1
        self._waiting[self._number] = _Waiter(stamp, count, done)
        self._settle()
        self._runtime.send([link.number for link in links], AskHeld(stamp))
        return self._number

    def opened(self, link: Link) -> None:
        """A link came up: ask on it what is still waited for."""
        if self._waiting:
            stamp = max(waiter.stamp for waiter in self._waiting.values())
            self._runtime.send([link.number], AskHeld(stamp))

    def on_ask(self, link: Link, message: AskHeld) -> None:
        """A peer wants to be told once its commits are held here."""
        link.asked_held = max(link.asked_held, message.stamp)
        self.tell(link)

    def tell(self, link: Link) -> None:
        """Tell a peer that asked that its commits are here, once they would outlive a power cut."""
        if link.asked_held and self._store.heard_of(link.node) >= link.asked_held:
            stamp, link.asked_held = link.asked_held, 0
            self._store.sync()
            self._runtime.send([link.number], Held(stamp))

    def on_held(self, link: Link, message: Held) -> None:
        """A peer holds this node's commits durably."""
        self._held[link.address] = max(message.stamp, self._held.get(link.address, 0))
        self._settle()

    def expire(self, number: int) -> None:
        """Answer a waiter with what there is."""
        waiter = self._waiting.pop(number, None)
        if waiter is not None:
            waiter.done(Holders(self._holders(waiter.stamp), waiter.needed))

    def _settle(self) -> None:
        for number, waiter in list(self._waiting.items()):
            holders = self._holders(waiter.stamp)
            if len(holders) >= waiter.needed:
                del self._waiting[number]
                waiter.done(Holders(holders, waiter.needed))

    def _holders(self, stamp: int) -> list[str]:
        members = [self._membership.address, *(m.address for m in self._membership.others())]
        return [address for address in members if self._held.get(address, 0) >= stamp]
