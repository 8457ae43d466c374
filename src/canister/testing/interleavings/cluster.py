"""The cluster of a case: what can happen in a state, and what comes of it.

A step of one node depends on that node and on what happens to it alone. So each is run once and
remembered, and a state of the cluster is a tuple of numbers that stand for its parts: the recursive
indexing of Holzmann, "State Compression in SPIN" (1997).
"""

from collections.abc import Hashable, Iterator

from canister.clock import SECOND
from canister.testing.interleavings.cases import NAMES, NODES, Case, Op, Pair
from canister.testing.interleavings.checks import check_final, check_node
from canister.testing.interleavings.node import CLOSED, Commit, Event, Node, Payload, Seat, describe
from canister.testing.interleavings.parts import Links, Move, Step, Table
from canister.testing.interleavings.symmetry import Mirror

State = tuple[int, ...]
"""The numbers of each node, of the queue of each of `LANES` and of what was written; the links."""

LANES = tuple((a, b) for a in NODES for b in NODES if a != b)
"""Every direction in which messages go; each delivers in order."""
_LANE = {lane: len(NODES) + number for number, lane in enumerate(LANES)}
_DONE = len(NODES) + len(LANES)
_LINKS = _DONE + 1

_PENDING = -1
_NOTHING = -2
"""In the list of what was written: an operation yet to come, and one that wrote nothing."""


class Cluster:
    """The nodes and links of a case, in all the states they were ever asked for.

    Args:
        case: what is explored.
    """

    def __init__(self, case: Case) -> None:
        self.case = case
        self.ops: tuple[Op, ...] = ()
        self._links = Links(case)
        self._keys: Table[Hashable] = Table()
        self._nodes: list[Node] = []
        self._news: list[bool] = []
        self._queues: Table[tuple[Payload, ...]] = Table()
        self._commits: Table[Commit] = Table()
        self._done: Table[tuple[int, ...]] = Table()
        self._steps: dict[tuple[int, Event], Step] = {}
        self._checked: set[tuple[int, int]] = set()
        self._mirror: Mirror | None = None
        self.start = self._begin()

    def moves(self, state: State) -> Iterator[Move]:
        """Return all that can happen next."""
        done = self._done.values[state[_DONE]]
        for number, op in enumerate(self.ops):
            if done[number] == _PENDING:
                yield Move(op.node, Event("operate", number))
        for node in NODES:
            if self._news[state[node]]:
                yield Move(node, Event("poll"))
        for source, target in LANES:
            queue = self._queues.values[state[_LANE[source, target]]]
            if queue:
                generation = self._links.generation(state[_LINKS], (source, target)) or 0
                if queue[0] == CLOSED:
                    generation = 0
                yield Move(target, Event("receive", source, generation, queue[0]))
        for pair, _ in self._links.moves(state[_LINKS]):
            yield Move(None, Event("hello"), pair)

    def after(self, state: State, move: Move) -> State:
        """Return the state that a move leads to.

        Raises:
            Violation: it leads where no correct code goes.
        """
        if move.node is None:
            return self._toggle(state, move.pair)
        event = move.event
        if event.kind == "receive":
            lane = _LANE[event.peer, move.node]
            rest = self._queues.values[state[lane]][1:]
            state = _with(state, lane, self._queues.number(rest))
        return self._act(state, move.node, event)

    def is_final(self, state: State) -> bool:
        """Tell whether everything is done and delivered, and all links are up."""
        return (
            not any(self._queues.values[state[lane]] for lane in _LANE.values())
            and _PENDING not in self._done.values[state[_DONE]]
            and self._links.down(state[_LINKS]) is None
            and not any(self._news[state[node]] for node in NODES)
        )

    def check(self, state: State) -> bool:
        """Check a state; return whether it is a final one.

        Raises:
            Violation: something does not hold.
        """
        numbers = self._done.values[state[_DONE]]
        commits = [self._commits.values[number] for number in numbers if number >= 0]
        for node in NODES:
            # Equal nodes in equal histories are looked at once.
            if (state[node], state[_DONE]) not in self._checked:
                self._checked.add((state[node], state[_DONE]))
                check_node(self._nodes[state[node]], commits)
        if not self.is_final(state):
            return False
        nodes = [self._nodes[state[node]] for node in NODES]
        check_final(nodes, commits, clocks_agree=self.case.clocks_agree)
        return True

    def canonical(self, state: State) -> State:
        """Return one and the same of a state and its mirror image."""
        mirror = self._mirror
        if mirror is None:
            return state
        swap = self.case.swap
        image = (
            *(mirror.nodes[state[swap(node)]] for node in NODES),
            *(mirror.queue(state[_LANE[swap(a), swap(b)]], self._queues) for a, b in LANES),
            state[_DONE],
            self._links.images[state[_LINKS]],
        )
        return min(state, image)

    def steps(self) -> int:
        """Return how many different steps of single nodes were run."""
        return len(self._steps)

    def describe(self, move: Move) -> str:
        """Return a move as a person would tell it."""
        if move.node is None:
            return f"the link {NAMES[move.pair[0]]}-{NAMES[move.pair[1]]} goes down or comes up"
        name, event = NAMES[move.node], move.event
        if event.kind == "operate":
            return f"{name}: {self.ops[event.peer].verb}"
        if event.kind == "poll":
            return f"{name} sends what it has committed"
        return f"{name} receives {describe(event.payload)} from {NAMES[event.peer]}"

    def _begin(self) -> State:
        """Start and link the nodes and do what happens before; return where the search begins."""
        seats = [Seat(number, self.case) for number in NODES]
        nodes = [self._number(Node.boot(seat)) for seat in seats]
        empty = self._queues.number(())
        total = len(self.case.ops) + len(self.case.before)
        state = (*nodes, *[empty] * len(LANES), self._done.number((_PENDING,) * total), 0)
        for a, b in LANES:
            state = self._act(state, a, Event("hello", b))
        state = self._drain(state)
        for number, op in enumerate(self.case.before, start=len(self.case.ops)):
            state = self._drain(self._act(state, op.node, Event("operate", number)))
        self.ops = self.case.ops
        later = [self._nodes[state[node]].later(SECOND) for node in NODES]
        state = (*map(self._number, later), *state[len(NODES) :])
        if self.case.twins is not None:
            self._steps.clear()  # so that each step from here on has its image
            self._mirror = Mirror(self.case)
            self._mirror.nodes = {state[node]: state[self.case.swap(node)] for node in NODES}
        return state

    def _drain(self, state: State) -> State:
        while True:
            move = next((m for m in self.moves(state) if m.event.kind in ("receive", "poll")), None)
            if move is None:
                return state
            state = self.after(state, move)

    def _toggle(self, state: State, pair: Pair) -> State:
        """A link goes down: what is on its way is lost, and both ends notice in their own time."""
        a, b = pair
        links = next(after for cut, after in self._links.moves(state[_LINKS]) if cut == pair)
        state = _with(state, _LINKS, links)
        if self._links.down(links) is not None:
            closed = self._queues.number((CLOSED,))
            return _with(_with(state, _LANE[a, b], closed), _LANE[b, a], closed)
        return self._act(self._act(state, a, Event("hello", b, 1)), b, Event("hello", a, 1))

    def _act(self, state: State, node: int, event: Event) -> State:
        step = self._step(state[node], event)
        after = list(state)
        after[node] = step.node
        if event.kind == "operate":
            done = list(self._done.values[state[_DONE]])
            done[event.peer] = step.commit
            after[_DONE] = self._done.number(tuple(done))
        for peer, generation, payload in step.sent:
            if self._links.generation(state[_LINKS], (node, peer)) == generation:
                lane = _LANE[node, peer]
                after[lane] = self._queues.number((*self._queues.values[after[lane]], payload))
        return tuple(after)

    def _step(self, node: int, event: Event) -> Step:
        step = self._steps.get((node, event))
        if step is None:
            step = self._steps[node, event] = self._run(node, event)
            if self._mirror is not None:
                other, image = self._mirror.nodes[node], self._mirror.event(event)
                if (other, image) not in self._steps:
                    self._steps[other, image] = self._run(other, image)
                self._mirror.pair_up(step, self._steps[other, image])
        return step

    def _run(self, node: int, event: Event) -> Step:
        after, sent, commit = self._nodes[node].step(event)
        number = _NOTHING if commit is None else self._commits.number(commit)
        return Step(self._number(after), list(sent), number)

    def _number(self, node: Node) -> int:
        number = self._keys.number(node.key())
        if number == len(self._nodes):
            self._nodes.append(node)
            self._news.append(node.has_news)
        return number


def _with(state: State, place: int, value: int) -> State:
    return (*state[:place], value, *state[place + 1 :])
