"""kill -9 of any process: nothing acknowledged is missing, and somebody goes on."""

import signal
import time
from pathlib import Path

import pytest
from tests.integration.cluster import (
    Cluster,
    Node,
    await_equal,
    await_linked,
    count_notes,
    eventually,
    missing,
    read_notes,
)

from canister import Canister, CannotTellError
from canister.codec import encode_id

pytestmark = pytest.mark.fault


def await_more(count: int, *files: Path) -> None:
    """Wait until each file notes *count* more puts than now."""
    wanted = {file: count_notes(file) + count for file in files}
    eventually(lambda: all(count_notes(file) >= least for file, least in wanted.items()), 20, "load runs")


def assert_none_missing(nodes: list[Node], *files: Path) -> None:
    """Wait until the nodes are equal; check that each holds all that was acknowledged."""
    await_equal(nodes)
    noted = read_notes(*files)
    for node in nodes:
        assert missing(node, noted) == []


def test_another_process_takes_over_the_agent(cluster: Cluster, tmp_path: Path) -> None:
    """The agent's process is killed three times under load: each time another one soon replicates."""
    first, second = cluster.start(2)
    notes = tmp_path / "notes"
    for number in range(3):
        agent, writer = first.process, first.start()
        assert first.agent() == agent.pid
        writer.do("load", name=f"w{number}", notes=str(notes), threads=2, sessions=20, pause=0.002)
        await_more(30, notes)
        begun = time.monotonic()
        agent.kill()
        eventually(lambda writer=writer: first.agent() == writer.pid, 4, "another one takes over")
        eventually(lambda: second.states()[first.address] == "up", 5)
        first.store.put("marker", "at", begun)
        eventually(lambda begun=begun: second.store.get_data("marker", local=True) == {"at": begun}, 5)
        await_more(30, notes)
    assert writer.do("stop_load") == []
    assert_none_missing([first, second], notes)


def test_a_killed_worker_loses_nothing_acknowledged(cluster: Cluster, tmp_path: Path) -> None:
    """A process killed while its threads put: what was put is here, at the peer and after reopening."""
    nodes = cluster.start(2)
    notes = tmp_path / "notes"
    worker = nodes[0].start()
    worker.do("load", name="w", notes=str(notes), threads=3, sessions=20)
    await_more(150, notes)
    worker.kill()
    assert_none_missing(nodes, notes)
    for node in nodes:
        node.release()
        for process in node.processes:
            process.kill()
    for node in nodes:
        assert missing(node, read_notes(notes)) == []  # opened anew, no agent runs


def test_an_agent_killed_where_nobody_takes_over(cluster: Cluster) -> None:
    """What is not here may be elsewhere: workers do not believe what the agent has told last."""
    node, peer = cluster.start(2)
    await_linked([node, peer])
    eventually(lambda: node.store.node.store.peers().doubts == 0, 15, "they have been compared")
    unknown = encode_id("unknown")
    assert node.store.node.load(unknown).certain
    node.process.kill()
    peer.store.put("unknown", "k", 1)
    eventually(lambda: not node.store.node.load(unknown).certain, 5, "the worker notices")
    refusing = Canister(node.path, agent=False, when_behind="refuse", **node.settings)
    with refusing, pytest.raises(CannotTellError):
        refusing.get("unknown", "k")
    node.start()
    eventually(lambda: node.store.get("unknown", "k") == 1)
    eventually(
        lambda: node.store.node.load(encode_id("nowhere")).certain, 15, "they have been compared again"
    )


def test_the_agent_killed_while_it_writes_itself(cluster: Cluster, tmp_path: Path) -> None:
    """The only process of a node, writer and agent in one, is killed under load and started again."""
    nodes = cluster.start(2)
    for number in range(2):
        notes = tmp_path / f"notes-{number}"
        nodes[0].process.do("load", name=f"w{number}", notes=str(notes), threads=2, sessions=20)
        await_more(100, notes)
        nodes[0].process.kill()
        nodes[0].start()
        await_linked(nodes)
    assert_none_missing(nodes, tmp_path / "notes-0", tmp_path / "notes-1")


def test_every_node_killed_at_once(cluster: Cluster, tmp_path: Path) -> None:
    """All nodes are killed in the same moment under load and restarted: no acknowledged put is missing."""
    nodes = cluster.start(3)
    files = [tmp_path / f"notes-{node.name}" for node in nodes]
    for node, file in zip(nodes, files, strict=True):
        node.process.do("load", name=node.name, notes=str(file), threads=2, sessions=20)
    await_more(150, *files)
    for node in nodes:  # no handle may keep the write-ahead log's index alive
        node.release()
    for node in nodes:
        node.process.signal(signal.SIGKILL)
    for node in nodes:
        node.process.wait()
    noted = read_notes(*files)
    for node, file in zip(nodes, files, strict=True):
        assert missing(node, read_notes(file)) == []
    lacking = sum(len(missing(node, noted)) for node in nodes)
    for node in nodes:
        node.start()
    await_linked(nodes)
    assert_none_missing(nodes, *files)
    print(f"{lacking} acknowledged puts had not reached every node when all were killed")
