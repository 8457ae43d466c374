"""Every interleaving of small cases holds, the search finds planted bugs, and it is to be trusted itself."""

import dataclasses
from typing import Any

import pytest

from canister.replication.messages import decode_message
from canister.testing.interleavings import CASES, Broken, Case, Op, explore
from canister.testing.interleavings.cluster import Cluster
from canister.testing.interleavings.node import Event, Node, describe

from . import planted

AT_LEAST = {
    "same key": 1_000,
    "destroy": 900,
    "keys": 3_500,
    "birth": 1_700,
    "too far ahead": 200,
    "destroy ahead": 100,
}


@pytest.mark.parametrize("name", AT_LEAST)
def test_every_interleaving_holds(name: str) -> None:
    """No order of events breaks I1, I3 to I5, I8, R2, R17 or R20; the search is complete."""
    found = explore(CASES[name], max_states=50_000)
    assert found.frontier == 0
    assert found.states > AT_LEAST[name], found
    assert found.finals >= 10, found


def test_a_search_stops_where_told() -> None:
    """A case with more states than allowed tells how many are left."""
    found = explore(CASES["everything cut"], max_states=2_000)
    assert found.states == 2_000
    assert 0 < found.frontier < 2_000
    assert found.depth >= 5


SEARCHED: dict[planted.Plant, tuple[str, str]] = {
    planted.r1_stamp_drawn_without_the_last: ("birth", "R1"),
    planted.r2_commit_applied_in_parts: ("clear", "R2"),
    planted.r3_outbox_sends_what_is_left: ("clear", "R2"),
    planted.r4_received_stamps_do_not_move_the_clock: ("clocks apart", "R4"),
    planted.r7_digest_of_visible_rows: ("too far ahead", "I1"),
    planted.r8_destroys_are_held_back: ("destroy ahead", "I4"),
    planted.r17_commit_without_its_birth_applied: ("birth", "R17"),
    planted.r20_claims_named_at_the_end: ("clocks apart", "R20"),
    planted.r20_live_vouches_before_a_comparison: ("two writes", "R20"),
    planted.r22_a_row_proves_all_before_it: ("two writes", "R20"),
}
"""Bugs that the search finds: in which case, and as the breach of which rule."""


@pytest.mark.parametrize("plant", SEARCHED, ids=lambda plant: plant.__name__)
def test_the_search_finds_the_planted_bug(plant: planted.Plant) -> None:
    """With a rule switched off something breaks within a dozen moves, and the way there is told."""
    name, rule = SEARCHED[plant]
    with plant(), pytest.raises(Broken) as broken:
        explore(CASES[name], max_states=8_000)
    assert str(broken.value).startswith(f"{rule}: ")
    assert len(broken.value.trace) <= 12


def test_twins_halve_the_search_and_hide_nothing() -> None:
    """Without the mirror images left out there are nearly twice as many states, and as deep."""
    case = dataclasses.replace(CASES["two writes"], ops=(Op(0, "put x"),))
    half = explore(case, max_states=50_000)
    whole = explore(dataclasses.replace(case, twins=None), max_states=50_000)
    assert whole.depth == half.depth
    assert half.states < whole.states <= 2 * half.states
    assert half.finals < whole.finals <= 2 * half.finals


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ops": (Op(1, "touch"),)}, "told apart"),
        ({"skew": (0, 1, 0)}, "same clock"),
        ({"cuts": ((0, 1),)}, "mirror image"),
    ],
)
def test_a_case_cannot_claim_false_twins(changes: dict[str, Any], message: str) -> None:
    """Twins that something tells apart are refused."""
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(CASES["birth"], **changes)


class Watched(Cluster):
    """Keeps the nodes that were taken for one in the same state, and what each was when it was made."""

    def __init__(self, case: Case) -> None:
        self.alike: dict[int, list[Node]] = {}
        super().__init__(case)

    def _number(self, node: Node) -> int:
        number = super()._number(node)
        self.alike.setdefault(number, []).append(node)
        return number

    def outcome(self, node: Node, event: Event) -> object:
        after, sent, commit = node.step(event)
        said = [(peer, generation, meaning(payload)) for peer, generation, payload in sent]
        return after.key(), said, commit


def meaning(payload: bytes) -> str:
    """Return what a message says, in whatever order."""
    return "".join(sorted(str(decode_message(payload)))) if payload else describe(payload)


def walk(cluster: Watched, most: int) -> None:
    states, seen = [cluster.start], {cluster.start}
    for state in states:
        for move in cluster.moves(state):
            after = cluster.after(state, move)
            if after not in seen and len(states) < most:
                seen.add(after)
                states.append(after)


@pytest.mark.parametrize("name", ["clear cut", "birth"])
def test_states_taken_for_one_act_alike(name: str) -> None:
    """What tells states apart tells all that matters: equal nodes answer every event alike."""
    cluster = Watched(dataclasses.replace(CASES[name], twins=None))
    walk(cluster, most=800)
    compared = 0
    for number, event in list(cluster._steps):
        first, *others = cluster.alike[number]
        for other in others[:2]:
            assert cluster.outcome(other, event) == cluster.outcome(first, event)
            compared += 1
    assert compared > 100


def test_a_step_leaves_the_state_before_it_alone() -> None:
    """States share nothing that a step from one of them could change."""
    cluster = Watched(CASES["destroy cut"])
    walk(cluster, most=800)
    assert len(cluster.alike) > 100
    for number, nodes in cluster.alike.items():
        assert [node.key() for node in nodes] == [cluster._keys.values[number]] * len(nodes)
