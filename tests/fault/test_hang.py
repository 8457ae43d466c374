"""A peer that is stopped, not dead: its kernel still takes connections and data."""

import signal
import time
from statistics import median

import pytest
from tests.integration.cluster import Cluster, Node, await_equal, eventually

from canister.codec import encode_id

pytestmark = pytest.mark.fault

STOPPED = 4.0
"""Seconds, twice the node interval."""


def timed_round(node: Node, number: int) -> list[float]:
    """Put, read what is here and read what is not; return how long each took."""
    taken: list[float] = []
    for act in (
        lambda: node.store.put(f"s-{number % 10}", f"{node.name}-{number}", "x" * 100),
        lambda: node.store.get(f"s-{number % 10}", f"{node.name}-{number}"),
        lambda: node.store.get("unknown", "k"),
    ):
        begun = time.monotonic()
        act()
        taken.append(time.monotonic() - begun)
    return taken


def test_a_stopped_peer_slows_nobody_down(cluster: Cluster) -> None:
    """While one of three is stopped, the others stay fast and give it up; after it goes on, all are equal."""
    nodes = cluster.start(3)
    first, second, third = nodes
    third.process.signal(signal.SIGSTOP)
    eventually(lambda: third.process.state() == "T", 2)
    begun = time.monotonic()
    given_up: dict[str, float] = {}
    taken: list[float] = []
    number = 0
    while time.monotonic() - begun < STOPPED:
        for node in (first, second):
            taken += timed_round(node, number)
            if node.name not in given_up and node.states()[third.address] == "down":
                given_up[node.name] = time.monotonic() - begun
        number += 1
        time.sleep(0.01)
    assert third.process.state() == "T"
    taken.sort()
    # One in a hundred may meet a busy machine; a call that waits for the peer would take a second.
    assert median(taken) < 0.01
    assert taken[int(len(taken) * 0.99)] < 0.05, taken[-20:]
    assert taken[-1] < 0.5, taken[-20:]
    assert set(given_up) == {"a", "b"}
    assert max(given_up.values()) < 3.5, given_up
    await_equal([first, second], 5)

    third.process.signal(signal.SIGCONT)
    await_equal(nodes, 10)
    eventually(lambda: all(node.states()[third.address] == "up" for node in (first, second)), 10)
    assert len(third.store.get_data("s-0", local=True)) == len(first.store.get_data("s-0", local=True)) > 2


def test_an_agent_that_is_stopped_is_not_believed(cluster: Cluster) -> None:
    """What is not here may be elsewhere, and nobody waits for it, while this node's agent hears nothing."""
    node, peer = cluster.start(2)
    unknown = encode_id("unknown")
    eventually(lambda: node.store.node.load(unknown).certain, 15, "they have been compared")
    node.process.signal(signal.SIGSTOP)
    eventually(lambda: node.process.state() == "T", 2)
    peer.store.put("unknown", "k", 1)
    eventually(lambda: not node.store.node.load(unknown).certain, STOPPED, "the worker notices")
    begun = time.monotonic()
    assert node.store.get("unknown", "k") is None
    assert time.monotonic() - begun < 0.5
    node.process.signal(signal.SIGCONT)
    eventually(lambda: node.store.get("unknown", "k") == 1, 10)
    eventually(lambda: node.store.node.load(encode_id("nowhere")).certain, 15, "it is heard of again")
