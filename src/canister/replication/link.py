"""One link to one peer: what has been compared on it, and what its live commits may vouch for."""

from collections.abc import Callable, Mapping
from typing import Any

from canister.clock import SECOND
from canister.record import NodeId
from canister.replication.awaited import Awaited
from canister.replication.messages import AskRoot, Hello, Message
from canister.replication.pull import Pull
from canister.store.base import Fingerprints

LinkId = int

_HEARTBEATS = 8
"""Heartbeats in one node interval."""
_SOONEST = SECOND
"""The least silence after which a link is doubted: TCP makes up for a lost packet meanwhile."""
_STALLED = 4
"""Node intervals a peer may take for one answer of a comparison."""
_CROSSING = 4 * SECOND
"""Within it two links that crossed come up: longer than a handshake at each end."""


class Patience:
    """How long a peer may be silent, in microseconds.

    Args:
        node_interval: within it a peer that is gone has to be noticed.
    """

    def __init__(self, node_interval: int) -> None:
        self.beat = node_interval // _HEARTBEATS
        """Between two heartbeats."""
        self.doubt = max(2 * self.beat, _SOONEST)
        """Until the peer is dialed anew."""
        self.end = node_interval - 2 * self.beat
        """Until the link is given up, early enough to be noticed within the interval."""
        self.stall = _STALLED * node_interval
        """Until a peer is given up that lives and does not go on with a comparison."""


class Link:
    """The state of a link; a new link to the same peer is a new one, with nothing assumed.

    Args:
        number: what it is called here.
        hello: what the peer said first.
        now: by the steady clock, as all that is said to have been, or to be due, at some time.
        ahead: microseconds by which the peer's wall clock is ahead at least.
        dialed: whether this node dialed it.
    """

    def __init__(self, number: LinkId, hello: Hello, now: int, *, ahead: int, dialed: bool) -> None:
        self.number = number
        self.address = hello.member.address
        self.node: NodeId = hello.member.node
        self.incarnation = hello.incarnation
        self.dialed = dialed
        self.fingerprints: Fingerprints = []
        """Of the peer's secret keys, as far as it has told them."""
        self.opened = now
        self.last_received = now
        self.next_beat = now
        self.ahead = ahead
        """By what the peer's wall clock is ahead at least: what it says of it gets older on its way."""
        self.told_ahead: int | None = None
        """By what this node's wall clock is ahead at least, as the peer has told; None if it has not."""
        self.heard_by_peer: int | None = None
        """Up to which stamp the peer said it had heard this node; None before its first word."""
        self.live_upto = 0
        self.reconciled_at = 0
        """As of which instant the last comparison on this link was; 0 before the first."""
        self.has_sent_future = False
        self.was_equal = False
        """Whether both sides held the same when the last comparison began."""
        self.next_pull = now
        self.pull: Pull | None = None
        self.pull_moved = now
        """When the comparison under way began or the peer last answered."""
        self.unanswered: AskRoot | None = None
        """What the peer asked while the digests of this node were not all there yet."""
        self.asked_held: dict[NodeId, int] = {}
        """Of which nodes, and up to which stamp, the peer asked to be told that the commits are held."""
        self.awaited = Awaited()

    @property
    def is_sound(self) -> bool:
        """Tell whether all the peer had when the link came up, and all since, is here."""
        return self.reconciled_at > 0 and not self.awaited

    @property
    def clock_offset(self) -> int:
        """Microseconds by which the peer's wall clock is ahead of this one, as far as that is certain.

        The true offset lies between what either side has found, as in NTP (RFC 5905), however late messages
        are; that which is nearest to zero is taken. Where the bounds cross, one of the clocks has been set,
        and what the peer has told is from before.
        """
        if self.ahead >= 0 or self.told_ahead is None:
            return self.ahead
        return min(0, max(self.ahead, -self.told_ahead))

    def vouched(self) -> dict[NodeId, int]:
        """Return what the live commits of this link let the node claim to have heard."""
        return {self.node: self.live_upto} if self.is_sound and self.live_upto else {}

    def outlives(self, new: "Link", address: str, silence: int) -> bool:
        """Tell whether this link stays when another one to the same peer comes up.

        Both ends must decide alike: of two links that crossed, the one dialed by the smaller
        address stays. Any other link yields: nobody dials beside a link but who finds it silent,
        and the other end may still hear on it. So does one to a former process of the peer.

        Args:
            new: the other link.
            address: this node's own.
            silence: microseconds without a message after which a link counts as silent.
        """
        crossed = self.dialed != new.dialed and new.opened - self.opened < _CROSSING
        if not crossed or self.is_silent(new.opened, silence) or self.incarnation != new.incarnation:
            return False
        return self.dialed == (address < self.address)

    def is_silent(self, now: int, silence: int) -> bool:
        """Tell whether nothing has come for more than *silence* microseconds."""
        return now - self.last_received > silence


Handlers = Mapping[type[Message], Callable[[Link, Any], None]]
"""What takes in a message that arrived on a link, by its type."""
