"""Three and four nodes in processes of their own: everything reaches everyone."""

import random
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.integration.cluster import (
    Cluster,
    Node,
    await_equal,
    await_linked,
    eventually,
    everything,
    free_port,
)

from canister import Canister

pytestmark = pytest.mark.integration

SESSIONS = 10_000


def any_value(chance: random.Random, depth: int = 0) -> Any:
    """Return a value like those of the seed's own tests."""
    kind = chance.randrange(7 if depth < 3 else 4)
    if kind == 0:
        return chance.randint(-(10**30), 10**30)
    if kind == 1:
        return chance.randbytes(chance.randrange(40))
    if kind == 2:
        return "".join(chr(chance.randint(32, 0x24F)) for _ in range(chance.randrange(20)))
    if kind == 3:
        return chance.choice([None, True, False, 0, 1.5, -0.0, "", b""])
    items = [any_value(chance, depth + 1) for _ in range(chance.randrange(4))]
    if kind == 4:
        return items
    if kind == 5:
        return tuple(items)
    return {f"k{i}": item for i, item in enumerate(items)}


def any_sessions(chance: random.Random, count: int) -> dict[str | bytes, dict[Any, Any]]:
    """Return sessions of one to four keys."""
    sessions: dict[str | bytes, dict[Any, Any]] = {}
    for number in range(count):
        id = f"session-{number}" if number % 2 else b"session-%d" % number
        keys = [chance.choice([f"key-{i}", b"key-%d" % i, i, ("key", i)]) for i in range(4)]
        sessions[id] = {key: any_value(chance) for key in keys[: chance.randint(1, 4)]}
    return sessions


def typed(value: Any) -> Any:
    """Return a value with the types that equality passes over: 1, 1.0 and True, 0.0 and -0.0."""
    if isinstance(value, dict):
        return {typed(key): typed(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return (type(value), *map(typed, value))
    return (type(value), repr(value))


def put_all(node: Node, sessions: dict[str | bytes, dict[Any, Any]]) -> None:
    """Write one session in ten key by key, the others at once."""
    for number, (id, data) in enumerate(sessions.items()):
        if number % 10:
            node.store.update(id, data)
            continue
        for key, value in data.items():
            assert node.store.put(id, key, value) is None


def show(sessions: dict[str | bytes, dict[Any, Any]]) -> dict[Any, Any]:
    """Return sessions in a form that compares exactly; a value of None is shown as what it is."""
    return {id: typed(data) for id, data in sessions.items()}


def test_ten_thousand_sessions_are_equal_on_every_node(cluster: Cluster) -> None:
    """10,000 sessions put through one node are on all three, with every value equal and of its type."""
    nodes = cluster.start(3)
    sessions = any_sessions(random.Random(1), SESSIONS)
    put_all(nodes[0], sessions)
    await_equal(nodes, 30)
    expected = show(sessions)
    for node in nodes:
        assert show(everything(node)) == expected
        assert node.store.num_local_sessions() == SESSIONS


def test_a_fourth_node_gets_everything(cluster: Cluster) -> None:
    """A node added later with one seed gets all data, and all four list all four."""
    nodes = cluster.start(3)
    sessions = any_sessions(random.Random(2), 1_000)
    put_all(nodes[1], sessions)
    nodes[1].store.destroy("session-1")
    del sessions["session-1"]
    await_equal(nodes)
    fourth = cluster.add(seeds=[nodes[2]])
    fourth.start()
    nodes.append(fourth)
    await_linked(nodes)
    await_equal(nodes)
    assert show(everything(fourth)) == show(sessions)
    assert fourth.store.record_status("session-1").status == "destroyed"
    addresses = {node.address for node in nodes}
    for node in nodes:
        assert {member.address for member in node.store.members()} == addresses
        assert node.store.members()[0].address == node.address


def stop_one_while_others_write(
    nodes: list[Node], chance: random.Random
) -> dict[str | bytes, dict[Any, Any]]:
    """Stop the last node with SIGTERM, and go on writing, overwriting and destroying on the others."""
    first, second, third = nodes
    sessions = any_sessions(chance, 300)
    put_all(first, sessions)
    await_equal(nodes)
    third.process.terminate()
    third.release()
    eventually(lambda: first.states()[third.address] == "down", message="the stopped node is missed")
    for number in range(0, 300, 3):
        id = list(sessions)[number]
        first.store.put(id, "while away", number)
        sessions[id]["while away"] = number
    for id in list(sessions)[1:300:10]:
        second.store.destroy(id)
        del sessions[id]
    fresh = {f"fresh-{id!r}": data for id, data in any_sessions(chance, 200).items()}
    put_all(second, fresh)
    return {**sessions, **fresh}


@pytest.mark.parametrize("empty", [False, True], ids=["same-data", "empty-directory"])
def test_a_stopped_node_catches_up(cluster: Cluster, empty: bool) -> None:
    """A node that was stopped while others wrote is equal again once it runs, also with its data gone."""
    nodes = cluster.start(3)
    expected = stop_one_while_others_write(nodes, random.Random(3))
    third = nodes[2]
    if empty:
        shutil.rmtree(third.path)
    third.start()
    await_linked(nodes)
    await_equal(nodes)
    for node in nodes:
        assert show(everything(node)) == show(expected)


def test_everyone_is_found_along_a_chain_of_seeds(cluster: Cluster) -> None:
    """B has A as its seed and C has B: all know all, and C's writes reach A without going through B."""
    first = cluster.add()
    second = cluster.add(seeds=[first])
    third = cluster.add(seeds=[second])
    nodes = [third, second, first]
    for node in nodes:  # the seeds come last
        node.start()
    await_linked(nodes)
    second.process.kill()
    third.store.put("s", "k", "from the far end")
    eventually(lambda: first.store.get_data("s", local=True) == {"k": "from the far end"})


def test_a_node_that_was_alone_is_one_member_of_its_cluster(cluster: Cluster) -> None:
    """Nobody waits for the one that had no address."""
    first = cluster.add()
    with Canister(first.path) as alone:
        alone.put("s", "k", "from the time alone")
        assert [member.state for member in alone.members()] == ["self"]
    nodes = [first, cluster.add(seeds=[first])]
    for node in nodes:
        node.start()
    await_linked(nodes)
    assert nodes[1].store.put("s", "k", "together", acks="all") == "from the time alone"
    assert first.store.get_data("s", local=True) == {"k": "together"}


def test_a_node_that_listens_elsewhere_leaves_its_former_address(cluster: Cluster) -> None:
    """It is one member at a time, on every node, also when it moves back; meanwhile it may have run alone."""
    nodes = cluster.start(3)
    moved, *others = nodes
    home, away = moved.address, f"127.0.0.1:{free_port()}"
    moved.settings["seeds"] = [other.address for other in others]
    for former, address in ((home, away), (away, home)):
        moved.process.terminate()
        moved.release()
        with Canister(moved.path) as alone:
            alone.put("alone", "k", 1)
        moved.address = moved.settings["listen"] = address
        moved.start()
        wanted = {node.address: "up" for node in nodes} | {former: "removed"}
        for node in nodes:
            eventually(lambda node=node, wanted=wanted: node.states() == {**wanted, node.address: "self"})
        for node in nodes:
            node.store.put("s", node.name, address, acks="all")
            eventually(lambda node=node: node.store.node.store.peers().doubts == 0)
    assert moved.logged("INFO", f"{away} was this node's address")


def test_the_member_list_survives_a_restart(cluster: Cluster) -> None:
    """Nodes that are all stopped and started without any seed find one another again."""
    nodes = cluster.start(3)
    nodes[0].store.put("s", "k", 1)
    await_equal(nodes)
    for node in nodes:
        node.process.terminate()
        node.release()
        node.settings["seeds"] = []
    for node in nodes:
        node.start()
    await_linked(nodes)
    nodes[2].store.put("s", "k", 2)
    for node in nodes:
        eventually(lambda node=node: node.store.get_data("s", local=True) == {"k": 2})


def test_a_machine_that_was_rolled_back(cluster: Cluster, tmp_path: Path) -> None:
    """R5: as by a snapshot of a virtual machine nothing in the directory tells; a peer does.

    Nothing that a peer had is lost, and the node goes on under another id once it is restarted.
    """
    node, peer = cluster.start(2)
    node.store.put("s", "k", "early")
    node.process.terminate()
    node.release()
    before = tmp_path / "snapshot"
    shutil.copytree(node.path, before)
    node.start()
    await_linked([node, peer])
    node.store.put("s", "k", "late")
    node.store.destroy("gone", acks="all")
    history = node.store.node.store.node
    node.process.terminate()
    node.release()
    for file in before.iterdir():
        if file.name != "use.lock":  # never written, so a roll-back leaves it as it was
            (node.path / file.name).write_bytes(file.read_bytes())
    node.start()
    assert node.store.node.store.node == history
    eventually(lambda: node.store.get_data("s", local=True) == {"k": "late"})
    await_linked([node, peer])
    await_equal([node, peer])
    (alarm,) = node.logged("was put back")
    assert peer.address in alarm
    assert not peer.logged("was put back")
    node.store.put("s", "k", "on", acks="all")
    node.process.terminate()
    node.release()
    node.start()
    assert node.store.node.store.node != history
    await_linked([node, peer])
    assert node.store.put("s", "k", "again", acks="all") == "on"
