"""Every interleaving of small cases holds, the search finds planted bugs, and it is to be trusted itself."""

import dataclasses
from typing import Any

import pytest

from canister.testing.interleavings import CASES, Broken, Case, Explored, Op, explore
from canister.testing.interleavings.cluster import Cluster
from canister.testing.interleavings.node import Event, Node, describe
from canister.testing.interleavings.search import Search

from . import planted

AT_LEAST = {
    "same key": 1_000,
    "destroy": 900,
    "clear": 2_000,
    "keys": 7_000,
    "birth": 3_500,
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


@pytest.mark.parametrize(
    ("plant", "name", "rule"),
    [
        (planted.r1_stamp_drawn_without_the_last, "birth", "R1"),
        (planted.r2_commit_applied_in_parts, "clear", "R2"),
        (planted.r3_outbox_sends_what_is_left, "clear", "R2"),
        (planted.r4_received_stamps_do_not_move_the_clock, "clocks apart", "R4"),
        (planted.r7_digest_of_visible_rows, "too far ahead", "I1"),
        (planted.r8_destroys_are_held_back, "destroy ahead", "I4"),
        (planted.r17_commit_without_its_birth_applied, "birth", "R17"),
        (planted.r20_claims_named_at_the_end, "clocks apart", "R20"),
        (planted.r20_live_vouches_before_a_comparison, "two writes", "R20"),
        (planted.r22_a_row_proves_all_before_it, "birth", "R20"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_the_search_finds_the_planted_bug(plant: planted.Plant, name: str, rule: str) -> None:
    """With a rule switched off something breaks within a dozen moves, and the way there is told."""
    with plant(), pytest.raises(Broken) as broken:
        explore(CASES[name], max_states=8_000)
    assert str(broken.value).startswith(f"{rule}: ")
    assert len(broken.value.trace) <= 12
