"""A node cut off while both sides write, and healed: nothing is lost but what the rules hide."""

import re

import pytest
from tests.integration.cluster import Cluster, Node, await_equal, await_linked, eventually, everything

from canister import CannotTellError, SessionDestroyedError

pytestmark = pytest.mark.fault


def cut_off(node: Node, others: list[Node]) -> None:
    """Use the fault switch, and see that both sides have noticed."""
    node.store.node.isolate(on=True)
    assert node.status().isolated
    for other in others:
        eventually(lambda other=other: other.states()[node.address] == "down", 5)
        eventually(lambda other=other: node.states()[other.address] == "down", 5)


def heal(node: Node, nodes: list[Node]) -> None:
    node.store.node.isolate(on=False)
    await_linked(nodes)
    await_equal(nodes)


def test_both_sides_of_a_split_merge(cluster: Cluster) -> None:
    """Keys merge one by one, the later write of a key wins, destroy wins always, clear hides the earlier."""
    nodes = cluster.start(3)
    a, b, c = (node.store for node in nodes)
    for name in ("keys", "same", "destroyed", "destroyed2", "cleared", "cleared2", "removed"):
        a.update(name, {"old": name, "other": 0})
    await_equal(nodes)
    cut_off(nodes[2], nodes[:2])

    a.put("keys", "a", 1)
    b.put("keys", "b", 2)
    c.put("keys", "c", 3)
    c.put("same", "old", "earlier")
    a.put("same", "old", "later")
    a.put("same", "other", "earlier")
    c.put("same", "other", "later")
    a.destroy("destroyed")
    c.put("destroyed", "k", "after the destroy")
    c.destroy("destroyed2")
    b.put("destroyed2", "k", "after the destroy")
    c.put("cleared", "c", "before the clear")
    b.clear("cleared")
    a.put("cleared", "a", "after the clear")
    c.clear("cleared2")
    a.put("cleared2", "a", "after the clear")
    c.put("cleared2", "c", "after the clear")
    a.remove("removed", "old")
    c.put("removed", "new", 1)
    a.put("only a", "k", 1)
    c.put("only c", "k", 1)

    # The fault was real: neither side has what the other wrote.
    assert c.get_data("keys", local=True) == {"old": "keys", "other": 0, "c": 3}
    both = {"old": "keys", "other": 0, "a": 1, "b": 2}
    eventually(lambda: a.get_data("keys", local=True) == both, 5, "a and b are still linked")
    assert c.get_data("only a", local=True) == a.get_data("only c", local=True) == {}

    heal(nodes[2], nodes)
    expected = {
        "keys": {"old": "keys", "other": 0, "a": 1, "b": 2, "c": 3},
        "same": {"old": "later", "other": "later"},
        "cleared": {"a": "after the clear"},
        "cleared2": {"a": "after the clear", "c": "after the clear"},
        "removed": {"other": 0, "new": 1},
        "only a": {"k": 1},
        "only c": {"k": 1},
    }
    for node in nodes:
        assert everything(node) == expected
        for name in ("destroyed", "destroyed2"):
            assert node.store.record_status(name).status == "destroyed"
            with pytest.raises(SessionDestroyedError):
                node.store.put(name, "k", "again")


def test_each_node_logs_what_the_heal_did(cluster: Cluster) -> None:
    """In one line: with whom, how long they were apart, and how many sessions came to what."""
    nodes = cluster.start(2)
    a, b = nodes
    a.store.put("both", "k", 1)
    await_equal(nodes)
    cut_off(b, [a])
    a.store.put("both", "a", 1)
    a.store.put("of a", "k", 1)
    b.store.put("both", "b", 2)
    b.store.put("of b", "k", 1)
    b.store.put("also of b", "k", 1)
    heal(b, nodes)
    for node, peer, found in ((a, b, "2 arrived, 1 merged"), (b, a, "1 arrived, 1 merged")):
        found += r"(; the peer lacked some)?"  # until the peer's own comparison has brought it to it
        line = rf"healed with {re.escape(peer.address)} after \d+\.\d s apart, in \d+\.\d\d s: {found}$"
        eventually(lambda node=node, line=line: re.search(line, node.log(), re.MULTILINE), 5, line)
        assert len(node.logged("healed with")) == 1


def test_what_comes_late_stays_hidden(cluster: Cluster) -> None:
    """A clear and a destroy that reach a node before what they cover, still cover it."""
    nodes = cluster.start(3)
    a, _, c = (node.store for node in nodes)
    cut_off(nodes[2], nodes[:2])
    c.put("cleared", "secret", 1)  # unknown to the others
    c.put("destroyed", "secret", 1)
    a.clear("cleared")
    a.destroy("destroyed")
    a.put("cleared", "fresh", 2)
    heal(nodes[2], nodes)
    for node in nodes:
        assert everything(node) == {"cleared": {"fresh": 2}}
        assert node.store.record_status("destroyed").status == "destroyed"


def test_changes_cross_a_partial_partition(cluster: Cluster) -> None:
    """A node that reaches only one other still gets, through it, what the third has written."""
    nodes = cluster.start(2, digest_interval="500ms")
    first, second = nodes
    third = cluster.add(seeds=[second], digest_interval="500ms", cluster="canister")
    third.start()
    await_linked([*nodes, third])
    first.process.kill()  # the third loses its link to the first; the second keeps its data
    first.store.put("s", "k", "written while alone")
    third.store.node.isolate(on=True)
    first.start()
    eventually(lambda: second.store.get_data("s", local=True) == {"k": "written while alone"}, 10)
    first.process.kill()
    third.store.node.isolate(on=False)
    eventually(lambda: third.store.get_data("s", local=True) == {"k": "written while alone"}, 10)


def test_a_reader_with_a_version_is_never_served_older_state(cluster: Cluster) -> None:
    """A node that was cut off and asked for a version it has not heard, fetches or says it cannot tell."""
    nodes = cluster.start(2)
    first, second = (node.store for node in nodes)
    first.put("s", "k", "old")
    await_equal(nodes)
    cut_off(nodes[1], nodes[:1])
    first.put("s", "k", "new")
    version = first.version("s")
    assert second.get("s", "k") == "old"
    with pytest.raises(CannotTellError):
        second.get("s", "k", after=version)
    nodes[1].store.node.isolate(on=False)
    eventually(lambda: nodes[1].states()[nodes[0].address] == "up", 5)
    assert second.get("s", "k", after=version) == "new"
