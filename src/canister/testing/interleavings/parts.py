"""What states are made of: numbers for parts, and the state of the links."""

from collections.abc import Hashable, Iterator
from typing import Generic, NamedTuple, TypeVar

from canister.testing.interleavings.cases import Case, Pair
from canister.testing.interleavings.node import Event, Payload

T = TypeVar("T", bound=Hashable)


class Move(NamedTuple):
    """A step of the cluster: something happens to a node, or (without a node) to a link."""

    node: int | None
    event: Event
    pair: Pair = (0, 0)


class Step(NamedTuple):
    """What a step of one node came to: its new number, what it sent, and the number of its commit."""

    node: int
    sent: list[tuple[int, int, Payload]]
    commit: int


class Table(Generic[T]):
    """Values and the small numbers that stand for them."""

    def __init__(self) -> None:
        self.values: list[T] = []
        self._numbers: dict[T, int] = {}

    def number(self, value: T) -> int:
        """Return the number of a value."""
        found = self._numbers.get(value)
        if found is None:
            found = self._numbers[value] = len(self.values)
            self.values.append(value)
        return found


class Links:
    """The state of the links as a number: all up, or one of the case's cuts down, or up again."""

    def __init__(self, case: Case) -> None:
        self._cuts = case.cuts
        self.images = [0]
        """The mirror image of each."""
        for cut in case.cuts:
            image = 1 + 2 * case.cuts.index(case.mirrored(cut))
            self.images += [image, image + 1]

    def down(self, links: int) -> Pair | None:
        """Return the link that is down."""
        return self._cuts[links // 2] if links % 2 else None

    def generation(self, links: int, pair: tuple[int, int]) -> int | None:
        """Return the generation of the link between two nodes, None while it is down."""
        if links == 0 or self._cuts[(links - 1) // 2] != (min(pair), max(pair)):
            return 0
        return None if links % 2 else 1

    def moves(self, links: int) -> Iterator[tuple[Pair, int]]:
        """Return the links that can go down or come up, each with the state that follows."""
        down = self.down(links)
        if down is not None:
            yield down, links + 1
        elif links == 0:
            for number, cut in enumerate(self._cuts):
                yield cut, 2 * number + 1
