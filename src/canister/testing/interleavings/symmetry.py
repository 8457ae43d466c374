"""Which states are mirror images of each other, where two nodes differ in their names only."""

from canister.testing.interleavings.cases import Case
from canister.testing.interleavings.node import CLOSED, Event, Payload
from canister.testing.interleavings.parts import Step, T, Table


class Mirror:
    """Which parts of a state are the mirror images of which.

    The image of what a step leads to is what the image of the step leads to. Nothing is renamed, so
    that versions and digests need not be understood; an image that is not unique disproves the case's
    claim that its twins are alike.
    """

    def __init__(self, case: Case) -> None:
        self.case = case
        self.nodes: dict[int, int] = {}
        self._payloads: dict[Payload, Payload] = {CLOSED: CLOSED}
        self._queues: dict[int, int] = {}

    def event(self, event: Event) -> Event:
        """Return the image of what happens to a node."""
        if event.kind in ("operate", "poll"):
            return event
        return event._replace(peer=self.case.swap(event.peer), payload=self._payloads[event.payload])

    def pair_up(self, step: Step, image: Step) -> None:
        """Note what two steps that are mirror images lead to.

        Raises:
            ValueError: they are no mirror images.
        """
        self._bind(self.nodes, step.node, image.node)
        swapped = sorted(((self.case.swap(p), g, m) for p, g, m in step.sent), key=lambda sent: sent[0])
        others = sorted(image.sent, key=lambda sent: sent[0])
        if step.commit != image.commit or [s[:2] for s in swapped] != [s[:2] for s in others]:
            raise ValueError(f"{self.case.name}: the twins do not act alike")
        for (_, _, mine), (_, _, other) in zip(swapped, others, strict=True):
            self._bind(self._payloads, mine, other)

    def queue(self, number: int, queues: Table[tuple[Payload, ...]]) -> int:
        """Return the image of a queue."""
        found = self._queues.get(number)
        if found is None:
            found = queues.number(tuple(self._payloads[payload] for payload in queues.values[number]))
            self._bind(self._queues, number, found)
        return found

    def _bind(self, images: dict[T, T], one: T, other: T) -> None:
        if images.setdefault(one, other) != other or images.setdefault(other, one) != one:
            raise ValueError(f"{self.case.name}: the twins are not interchangeable")
