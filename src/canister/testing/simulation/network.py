"""The links between simulated nodes."""

from collections import Counter, deque
from collections.abc import Sequence
from random import Random
from typing import TYPE_CHECKING

from canister.errors import ProtocolError
from canister.replication.healing import HealReport
from canister.replication.link import LinkId
from canister.replication.messages import Live, Message, decode_message, encode_message
from canister.testing.simulation.schedule import Schedule

if TYPE_CHECKING:
    from canister.testing.simulation.cluster import SimNode

_LENGTH = 4
"""Bytes before each frame, as the agents write them."""


class Pipe:
    """One direction of a link: delivers in order, each message after the delay."""

    def __init__(self, network: "Network", source: "SimNode", target: "SimNode") -> None:
        self.network = network
        self.source = source
        self.target = target
        self.number: LinkId = 0
        """The link's number at the target."""
        self._queue: deque[bytes] = deque()
        self._ready_at = 0
        self._mute = False

    def send(self, payload: bytes) -> None:
        """Take a message; it arrives after the delay, behind all that was sent before."""
        self._queue.append(payload)
        self._schedule()

    def flow(self) -> None:
        """Put what a cut or a hung target held up on its way again."""
        self._mute = False
        for _ in self._queue:
            self._schedule()

    def _schedule(self) -> None:
        schedule = self.network.schedule
        self._ready_at = max(self._ready_at, schedule.now + self.network.delay())
        schedule.after(self._ready_at - schedule.now, self._deliver_next)

    def _deliver_next(self) -> None:
        # Held up, messages wait in the order they were sent, as they do in the buffers of TCP.
        if self.network.is_cut(self.source, self.target):
            self._mute = True
        if not self._queue or self._mute or self.target.hung:
            return
        wait = self.target.loop.wait
        if wait:
            self.network.effects["waited for a slow disk"] += 1
            self.network.schedule.after(wait, self._deliver_next)
        else:
            self.target.receive(self.number, self._queue.popleft())


class Network:
    """Who can reach whom, and how long it takes."""

    def __init__(self, schedule: Schedule, random: Random) -> None:
        self.schedule = schedule
        self.effects: Counter[str] = Counter()
        """What the faults led to, so that a run can show that they did something."""
        self.messages: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()
        """What was sent so far, by kind of message; bytes with the length that stands before each frame."""
        self.slowest = 5_000
        self.duplicates = 0.0
        """Share of the live messages that arrive twice."""
        self._random = random
        self._cuts: set[tuple[str, str]] = set()
        self._cut_at = 0
        self.pipes: dict[tuple[str, LinkId], Pipe] = {}
        """Outgoing pipes by address and number of the sending end."""

    def delay(self) -> int:
        """Return how long a message takes, in microseconds."""
        return self._random.randint(100, self.slowest)

    def duplicate(self) -> bool:
        """Tell whether the next live message arrives twice."""
        return self.duplicates > 0 and self._random.random() < self.duplicates

    def is_cut(self, source: "SimNode", target: "SimNode") -> bool:
        """Tell whether messages from *source* do not get to *target*."""
        return bool(self._cuts) and (source.address, target.address) in self._cuts

    def cut(self, sources: Sequence["SimNode"], targets: Sequence["SimNode"]) -> None:
        """Stop messages from all *sources* to all *targets*."""
        self._cut_at = self._cut_at if self._cuts else self.schedule.now
        self._cuts |= {(a.address, b.address) for a in sources for b in targets if a is not b}

    def heal(self) -> None:
        """Let all messages through again.

        What was held up waits for the next attempt of TCP, at the latest after as long again.
        """
        longest = self.schedule.now - self._cut_at if self._cuts else 0
        self._cuts.clear()
        for pipe in list(self.pipes.values()):
            self.schedule.after(self._random.randint(0, longest), pipe.flow)

    def connect(self, dialer: "SimNode", acceptor: "SimNode") -> None:
        """Dial: exchange hellos and open both ends, unless something forbids it."""
        if self.is_cut(dialer, acceptor) or self.is_cut(acceptor, dialer) or acceptor.hung:
            return
        if dialer.replica is None or acceptor.replica is None:
            return
        mine, theirs = dialer.replica.hello(), acceptor.replica.hello()
        if dialer.replica.refusal(theirs) or acceptor.replica.refusal(mine):
            self.effects["link refused"] += 1
            return
        there, back = Pipe(self, dialer, acceptor), Pipe(self, acceptor, dialer)
        there.number, back.number = acceptor.draw(), dialer.draw()
        self.pipes[dialer.address, back.number] = there
        self.pipes[acceptor.address, there.number] = back
        accepted, dialed = acceptor.replica, dialer.replica
        acceptor.loop.run(lambda: accepted.opened(there.number, mine, dialed=False))
        dialer.loop.run(lambda: dialed.opened(back.number, theirs, dialed=True))

    def close(self, node: "SimNode", number: LinkId, *, tell: bool) -> None:
        """Close a link; the other end hears of it after a delay, unless the way there is cut."""
        there = self.pipes.pop((node.address, number), None)
        if there is None:
            return
        self.pipes.pop((there.target.address, there.number), None)
        other, theirs = there.target, there.number
        if tell and not self.is_cut(node, other):
            self.schedule.after(self.delay(), lambda: other.lost(theirs))

    def drop_all(self, node: "SimNode") -> None:
        """Close all links of a node that went away."""
        for address, number in [key for key in self.pipes if key[0] == node.address]:
            del address
            self.close(node, number, tell=True)


class SimRuntime:
    """What a simulated replica acts through."""

    def __init__(self, node: "SimNode", network: Network) -> None:
        self._node = node
        self._network = network

    def send(self, links: Sequence[LinkId], message: Message) -> None:
        """Send on links; encoded, so that what arrives shares nothing with what was sent."""
        payload = encode_message(message)
        self._node.loop.send(lambda: self._put(links, payload, type(message)))

    def _put(self, links: Sequence[LinkId], payload: bytes, kind: type[Message]) -> None:
        for number in links:
            pipe = self._network.pipes.get((self._node.address, number))
            if pipe is not None:
                self._network.messages[kind.__name__] += 1
                self._network.bytes[kind.__name__] += _LENGTH + len(payload)
                pipe.send(payload)
                if kind is Live and self._network.duplicate():
                    pipe.send(payload)

    def healed(self, report: HealReport) -> None:
        """Note a heal."""
        self._node.trace(f"healed with {report.peer}: {len(report.differences)} differed")

    def alarm(self, what: str) -> None:
        """Note an alarm."""
        self._node.trace(f"alarm: {what}")

    def drop(self, link: LinkId, reason: str) -> None:
        """Close a link."""
        self._node.trace(f"drops link {link}: {reason}")
        self._network.close(self._node, link, tell=True)


def deliver(node: "SimNode", number: LinkId, payload: bytes) -> None:
    """Hand a message to a replica; a protocol error costs the link, as in the agent."""
    if node.replica is None:
        return
    try:
        node.replica.received(number, decode_message(payload))
    except ProtocolError as error:
        node.trace(f"protocol error: {error}")
        node.network.effects["protocol error"] += 1
        node.network.close(node, number, tell=True)
        node.replica.closed(number)
