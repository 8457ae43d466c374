"""One link to one peer: what has been compared on it, and what its live commits may vouch for."""

from canister.record import NodeId
from canister.replication.messages import Hello
from canister.replication.pull import Pull

LinkId = int


class Link:
    """The state of a link; a new link to the same peer is a new one, with nothing assumed."""

    def __init__(self, number: LinkId, hello: Hello, now: int, *, dialed: bool) -> None:
        self.number = number
        self.address = hello.member.address
        self.node: NodeId = hello.member.node
        self.incarnation = hello.incarnation
        self.dialed = dialed
        self.opened = now
        self.last_received = now
        self.last_sent = 0
        self.clock_offset = hello.now - now
        self.held_by_peer = 0
        self.live_upto = 0
        self.reconciled_at = 0
        """As of which instant the last comparison on this link was; 0 before the first."""
        self.next_pull = now
        self.pull: Pull | None = None
        self.awaited: dict[int, bytes] = {}
        """Sessions asked for because a commit came without the one that created them."""

    @property
    def is_sound(self) -> bool:
        """Tell whether all the peer had when the link came up, and all since, is here."""
        return self.reconciled_at > 0 and not self.awaited

    def vouched(self) -> dict[NodeId, int]:
        """Return what the live commits of this link let the node claim to have heard."""
        return {self.node: self.live_upto} if self.is_sound and self.live_upto else {}
