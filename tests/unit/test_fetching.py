"""Who shares the answers of a fetch, and who asks anew."""

from types import SimpleNamespace
from typing import Any, cast

from canister.freshness import Fetched
from canister.record import NodeId
from canister.replication.fetches import Fetches

B, C = NodeId(b"B" * 8), NodeId(b"C" * 8)


def link(number: int, node: NodeId) -> Any:
    return SimpleNamespace(number=number, node=node)


def test_an_answer_from_before_somebody_asked_is_none_to_him() -> None:
    """What his client has seen since, who answered may have written since (I8)."""
    asked: list[tuple[int, int]] = []
    told: dict[str, Fetched] = {}
    members = SimpleNamespace(has_met_cluster=True, others=lambda: [link(1, B), link(2, C)])
    fetches = Fetches(cast("Any", members), lambda number, message: asked.append((number, message.number)))
    first, same = (
        fetches.start(b"s", [1, 2], lambda f, who=who: told.update({who: f})) for who in ("first", "same")
    )
    assert first == same
    assert len(asked) == 2
    fetches.answered(link(1, B), first, {B: 10})
    later = fetches.start(b"s", [1, 2], lambda f: told.update(later=f))
    assert asked == [(1, first), (2, first), (1, later), (2, later)]
    fetches.answered(link(2, C), first, {B: 3, C: 5})
    assert told == dict.fromkeys(("first", "same"), Fetched([{B: 10}, {B: 3, C: 5}], everyone=True))
    fetches.answered(link(1, B), later, {B: 20})
    fetches.answered(link(2, C), later, {C: 5})
    assert told["later"].answers == [{B: 20}, {C: 5}]
    assert len(fetches) == 0
