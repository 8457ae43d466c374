"""The seed's table of netsplits, row by row: what both nodes hold after the heal."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.integration.local import agree, heal, open_pair, split

from canister import Canister, Status

pytestmark = pytest.mark.integration

Pair = tuple[Canister, Canister]

CLEAR = "clear"
"""Clears the session; anything else in a row is a key that is put."""

ROWS: dict[str, tuple[list[tuple[int, str]], set[str]]] = {
    "changed on both sides": ([(0, "k1"), (1, "k2")], {"before", "k1", "k2"}),
    "clear on 1, later put on 2": ([(0, CLEAR), (1, "k2")], {"k2"}),
    "put on 2, later clear on 1": ([(1, "k2"), (0, CLEAR)], set()),
    "clear on 2, later put on 1": ([(1, CLEAR), (0, "k1")], {"k1"}),
    "put on 1, later clear on 2": ([(0, "k1"), (1, CLEAR)], set()),
    "clear on 2, nothing on 1": ([(1, CLEAR)], set()),
    "clear on 1, nothing on 2": ([(0, CLEAR)], set()),
}
"""What is done during the split, as pairs of node and action, and the keys that remain on both."""


@pytest.fixture(scope="module")
def shared_pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Yield two linked nodes for all rows of the table."""
    with open_pair(tmp_path_factory.mktemp("pair")) as pair:
        yield pair


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("creator", [0, 1])
def test_netsplit(shared_pair: Pair, row: str, creator: int) -> None:
    """Both nodes end alike, and a get on either says so, whichever created the session."""
    pair, id = shared_pair, f"{row}, made on {creator}"
    actions, expected = ROWS[row]
    pair[creator].put(id, "before", 0)
    agree(pair)
    split(pair)
    for node, action in actions:
        if action == CLEAR:
            pair[node].clear(id)
        else:
            pair[node].put(id, action, node)
    # The split was one: nobody has what was done on the other side.
    assert pair[0].get_data(id, local=True) != pair[1].get_data(id, local=True)
    heal(pair)
    for node in pair:
        assert set(node.get_data(id)) == expected
        assert (node.get(id, "before") is not None) == ("before" in expected)
        assert node.record_status(id).status is (Status.LIVE if expected else Status.CLEARED)


def test_netsplit_with_a_hundred_sessions_changed_on_each_side(tmp_path: Path) -> None:
    """All two hundred changes are on both nodes, and nothing else has moved."""
    with open_pair(tmp_path) as pair:
        for i in range(1000):
            pair[0].put(f"s{i}", "k", 0)
        agree(pair)
        split(pair)
        for i in range(100):
            pair[0].put(f"s{i}", "k", 1)
            pair[1].put(f"s{i + 100}", "k", 2)
        assert pair[1].peek("s0", "k") == pair[0].peek("s100", "k") == 0
        heal(pair)
        expected: dict[Any, int] = {f"s{i}": 1 if i < 100 else 2 if i < 200 else 0 for i in range(1000)}
        for node in pair:
            assert {id: node.peek(id, "k") for id in node.all_sessions()} == expected
