"""What is due at intervals goes on, whatever happens to the nodes' wall clocks."""

from collections.abc import Sequence
from datetime import timedelta

import pytest
from tests.simulation.front import Front

from canister import edits
from canister.clock import SECOND
from canister.codec import encode_id, encode_value, key_slot
from canister.config import Config
from canister.errors import CannotTellError, ClockError
from canister.freshness import seen_in
from canister.testing.simulation import Cluster, SimNode

HOUR = 3600 * SECOND


def put(node: SimNode, session: str = "s") -> None:
    cells = {key_slot("k"): encode_value(node.cluster.schedule.now)}
    node.commit(encode_id(session), lambda r, m: edits.write(r, m, node.cluster.policy, cells))


def step(nodes: Sequence[SimNode], error: int) -> None:
    for node in nodes:
        node.clock.error = error


@pytest.mark.parametrize("error", [HOUR, -HOUR], ids=["ahead", "behind"])
def test_a_clock_that_was_set_right_lets_its_node_write_at_once(error: int) -> None:
    """Within a second or two it is found to be wrong, and right again."""
    cluster = Cluster(3, seed=7)
    nodes = list(cluster.nodes.values())
    cluster.run(10)
    put(nodes[1])
    step(nodes[1:2], error)
    cluster.run(3)
    with pytest.raises(ClockError):
        put(nodes[1])
    step(nodes[1:2], 0)
    cluster.run(2)
    put(nodes[1])


def test_a_slow_network_says_nothing_of_the_clocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a peer says of its clock is old when it arrives over a link that is full; writes go on."""
    cluster = Cluster(2, seed=7, config=Config(max_clock_drift=timedelta(seconds=5)))
    nodes = list(cluster.nodes.values())
    cluster.run(5)
    begun = cluster.schedule.now
    monkeypatch.setattr(
        cluster.network, "delay", lambda: min(12 * SECOND, (cluster.schedule.now - begun) // 5)
    )
    for number in range(60):
        cluster.run(1)
        for node in nodes:
            put(node, f"{node.address}-{number}")
    assert not any("silent for" in event for event in cluster.events)
    step(nodes[:1], HOUR)
    cluster.run(3)
    with pytest.raises(ClockError):
        put(nodes[0])


@pytest.mark.parametrize("steps", [(HOUR, 0), (0, HOUR), (-HOUR, 0), (0, -HOUR)], ids=str)
def test_when_all_clocks_step_together_links_go_on(steps: tuple[int, int]) -> None:
    """As many heartbeats and comparisons as before; no link is given up; and a cut is noticed in time."""
    cluster = Cluster(2, seed=7)
    nodes = list(cluster.nodes.values())
    step(nodes, steps[0])
    cluster.run(15)
    sent = [cluster.network.messages.copy()]
    for error in (steps[0], steps[1]):
        step(nodes, error)
        cluster.run(60)
        sent.append(cluster.network.messages.copy())
    before, after = sent[1] - sent[0], sent[2] - sent[1]
    for kind in ("Heartbeat", "AskRoot"):
        assert after[kind] == pytest.approx(before[kind], rel=0.2), (before, after)
    assert not any("silent for" in event for event in cluster.events)
    cluster.network.cut(nodes[:1], nodes[1:])
    cluster.network.cut(nodes[1:], nodes[:1])
    cluster.run(cluster.config.node_interval.total_seconds())
    assert [node.store.peers().doubts for node in nodes] == [1, 1]


def test_the_log_is_trimmed_while_its_stamps_are_ahead_of_the_clock() -> None:
    """A clock was an hour ahead when its node wrote: for an hour all stamps go on from there."""
    cluster = Cluster(1, seed=7)
    (node,) = cluster.nodes.values()
    step([node], HOUR)
    put(node)
    step([node], 0)
    for _ in range(100):
        put(node)
        cluster.run(0.1)
    with node.store.snapshot() as snapshot:
        assert 5 / 0.1 <= len(snapshot.log(0)) < 6 / 0.1


def test_a_reader_gets_nothing_older_than_what_it_has_seen_where_that_is_held_back() -> None:
    """I8: what was fetched is newer, and not shown here before its time; so nobody can tell."""
    cluster = Cluster(2, seed=7)
    ahead, behind = cluster.nodes.values()
    cluster.run(3)
    put(ahead)
    cluster.run(1)
    step([behind], -90 * SECOND)
    put(ahead)
    record = ahead.visible(encode_id("s"))
    assert record is not None
    for _ in range(2):  # fetched for the first one, found here for the second one
        with pytest.raises(CannotTellError, match="held back"):
            Front(behind).load(encode_id("s"), after=seen_in(record))
