"""What is explored: small data, a few operations on fixed nodes and the link that may fail."""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Literal, NamedTuple

from canister import edits
from canister.clock import SECOND
from canister.codec import encode_id, encode_value, key_slot
from canister.config import Config, Policy
from canister.store.base import Edit

NODES = range(3)
NAMES = "ABC"
SESSION = encode_id("s")
OTHER = encode_id("other")

CONFIG = Config(
    session_timeout=timedelta(hours=1),
    absolute_lifetime=timedelta(days=1),
    touch_interval=timedelta(0),  # every access counts, so that a touch always writes
    max_clock_drift=timedelta(seconds=4),
    cluster="interleavings",
)
POLICY = Policy.of(CONFIG)
WAIT = 10 * SECOND
"""How far ``wait`` moves a node's clock: past anything that is held back."""

Verb = Literal["put x", "put y", "update", "remove x", "clear", "destroy", "touch", "put other", "wait"]


class Op(NamedTuple):
    """One operation on the session, on one node.

    ``update`` writes both keys in one commit, ``put other`` another session; ``wait`` moves the
    node's clock and shows what was held back until then.
    """

    node: int
    verb: Verb


Pair = tuple[int, int]
"""Two linked nodes, the smaller number first."""


@dataclass(frozen=True)
class Case:
    """One search.

    Args:
        name: what it is called on the command line.
        ops: what happens, in any order.
        cuts: the links of which one may go down, at any time and once, and come up again.
        before: what has happened, one after the other and everywhere, when the search begins.
        skew: how far each node's clock is ahead, in microseconds.
        twins: two nodes that nothing but their names tells apart, so that of two states that are
            mirror images only one is visited.
    """

    name: str
    ops: tuple[Op, ...]
    cuts: tuple[Pair, ...] = ()
    before: tuple[Op, ...] = (Op(0, "update"),)
    skew: tuple[int, int, int] = field(default=(0, 0, 0))
    twins: Pair | None = None

    def __post_init__(self) -> None:
        if self.twins is None:
            return
        # A node that writes is never a twin: its id is in versions, and their order breaks ties.
        if any(op.node in self.twins for op in (*self.ops, *self.before)):
            raise ValueError("a node that operates on the session is told apart by its versions")
        if self.skew[self.twins[0]] != self.skew[self.twins[1]]:
            raise ValueError("twins have the same clock")
        if {self.mirrored(cut) for cut in self.cuts} != set(self.cuts):
            raise ValueError("the mirror image of a cut must be a cut as well")

    @property
    def clocks_agree(self) -> bool:
        """Tell whether all clocks are within the greatest difference allowed."""
        return max(self.skew) - min(self.skew) <= POLICY.drift

    def swap(self, node: int) -> int:
        """Return the node's mirror image."""
        if self.twins is None or node not in self.twins:
            return node
        return self.twins[0] if node == self.twins[1] else self.twins[1]

    def mirrored(self, pair: Pair) -> Pair:
        """Return a link's mirror image."""
        a, b = sorted((self.swap(pair[0]), self.swap(pair[1])))
        return (a, b)


def edit_of(verb: Verb, number: int) -> tuple[bytes, Edit]:
    """Return the session that an operation is about and what it does; its number is what it writes."""
    x, y, value = key_slot("x"), key_slot("y"), encode_value(number)
    match verb:
        case "put x":
            return SESSION, lambda r, m: edits.write(r, m, POLICY, {x: value})
        case "put y":
            return SESSION, lambda r, m: edits.write(r, m, POLICY, {y: value})
        case "update":
            return SESSION, lambda r, m: edits.write(r, m, POLICY, {x: value, y: value})
        case "put other":
            return OTHER, lambda r, m: edits.write(r, m, POLICY, {x: value})
        case "remove x":
            return SESSION, lambda r, m: edits.write(r, m, POLICY, {x: None}) if r else None
        case "clear":
            return SESSION, lambda r, m: edits.write(r, m, POLICY, {}, clear=True) if r else None
        case "destroy":
            return SESSION, lambda r, m: edits.destroy(r, m, POLICY)
        case "touch":
            return SESSION, lambda r, m: edits.touch(r, m, m.now)
        case "wait":
            raise ValueError("wait writes nothing")


AB, AC = (0, 1), (0, 2)
EVERYTHING = (Op(0, "put x"), Op(1, "clear"), Op(2, "destroy"), Op(0, "touch"))

CASES = {
    case.name: case
    for case in (
        Case("keys", (Op(0, "put x"), Op(1, "put y")), cuts=(AB,)),
        Case("same key", (Op(0, "put x"), Op(1, "put x"), Op(2, "remove x"))),
        Case("two writes", (Op(0, "put x"), Op(0, "update")), cuts=(AB, AC), twins=(1, 2)),
        Case("clear", (Op(0, "clear"), Op(1, "update"), Op(2, "put y"))),
        Case("clear cut", (Op(0, "clear"), Op(1, "update"), Op(1, "touch")), cuts=(AB,)),
        Case("destroy", (Op(0, "destroy"), Op(1, "put x"), Op(2, "touch"))),
        Case("destroy cut", (Op(0, "destroy"), Op(1, "put x"), Op(0, "put other")), cuts=(AB,)),
        Case("birth", (Op(0, "update"), Op(0, "put x")), cuts=(AB, AC), before=(), twins=(1, 2)),
        Case("clocks apart", (Op(0, "put x"), Op(1, "put x")), cuts=(AB,), skew=(3 * SECOND, 0, 0)),
        Case("too far ahead", (Op(0, "update"), Op(1, "put y"), Op(1, "wait")), skew=(9 * SECOND, 0, 0)),
        Case(
            "destroy ahead",
            (Op(0, "destroy"), Op(1, "put x"), Op(2, "wait")),
            before=(Op(1, "update"),),
            skew=(9 * SECOND, 0, 0),
        ),
        Case("everything", EVERYTHING),
        Case("everything cut", EVERYTHING, cuts=(AB,)),
    )
}
