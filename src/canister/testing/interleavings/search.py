"""The search itself: breadth-first, each state once, with the way back to the start."""

from typing import NamedTuple

from canister.testing.interleavings.cases import Case
from canister.testing.interleavings.cluster import Cluster, State
from canister.testing.interleavings.node import Event
from canister.testing.interleavings.parts import Move
from canister.testing.simulation.checks import Violation


class Explored(NamedTuple):
    """What a search came to. It is complete if no state is left in the *frontier*.

    *depth* is the most moves that a state visited is away from the start, *frontier* the number of
    states whose moves were not all tried, *finals* that of states in which everything is done and
    delivered, *steps* that of different steps of single nodes.
    """

    states: int
    depth: int
    frontier: int
    finals: int
    steps: int


class Broken(Violation):
    """Something does not hold; tells a shortest way there."""

    def __init__(self, what: object, trace: list[str]) -> None:
        super().__init__("\n  ".join([f"{what}, after {len(trace)} moves:", *trace]))
        self.trace = trace


_NO_MOVE = Move(None, Event("hello"))


class _Search:
    """The states seen so far, each with the move that led to it."""

    def __init__(self, case: Case) -> None:
        self.cluster = Cluster(case)
        self.states = [self.cluster.start]
        self.finals = 0
        self._ways: list[tuple[int, Move]] = [(0, _NO_MOVE)]
        self._depths = [0]
        self._seen = {self.cluster.canonical(self.cluster.start)}

    def expand(self, number: int, max_states: int) -> bool:
        """Try all moves of a state; return False if there was no room for what they led to."""
        state = self.states[number]
        for move in self.cluster.moves(state):
            try:
                found = self._visit(number, move, self.cluster.after(state, move), max_states)
            except Violation as error:
                raise Broken(error, self._trace(number, move)) from error
            if not found:
                return False
        return True

    @property
    def depth(self) -> int:
        """The distance of the last state from the first."""
        return self._depths[-1]

    def _visit(self, number: int, move: Move, state: State, max_states: int) -> bool:
        key = self.cluster.canonical(state)
        if key in self._seen:
            return True
        if len(self.states) >= max_states:
            return False
        self._seen.add(key)
        self.states.append(state)
        self._ways.append((number, move))
        self._depths.append(self._depths[number] + 1)
        self.finals += self.cluster.check(state)
        return True

    def _trace(self, number: int, last: Move) -> list[str]:
        trace = [self.cluster.describe(last)]
        while number:
            number, move = self._ways[number]
            trace.append(self.cluster.describe(move))
        return trace[::-1]


def explore(case: Case, max_states: int) -> Explored:
    """Visit every state that can arise in a case, nearest first, and check it.

    Args:
        case: what is explored.
        max_states: where to stop if there are more.

    Raises:
        Broken: something does not hold.
    """
    search = _Search(case)
    expanded = 0
    while expanded < len(search.states) and search.expand(expanded, max_states):
        expanded += 1
    states = len(search.states)
    return Explored(states, search.depth, states - expanded, search.finals, search.cluster.steps())
