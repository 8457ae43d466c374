"""Several processes on one node: forked, started side by side, coming and going."""

import signal
import socket
from pathlib import Path

import pytest
from tests.integration.cluster import (
    Cluster,
    Node,
    Process,
    await_equal,
    count_notes,
    eventually,
    missing,
    read_notes,
)

from canister import Canister

pytestmark = pytest.mark.integration


def start_pair(cluster: Cluster) -> tuple[Node, Node]:
    first, second = cluster.start(2)
    return first, second


def stop_load(processes: list[Process]) -> None:
    for process in processes:
        assert process.do("stop_load") == []


def await_notes(files: list[Path], count: int) -> None:
    """Wait until each file notes *count* more puts than now."""
    wanted = {file: count_notes(file) + count for file in files}
    eventually(lambda: all(count_notes(file) >= least for file, least in wanted.items()), 20)


def test_two_processes_with_threads_lose_nothing(cluster: Cluster, tmp_path: Path) -> None:
    """Two processes with three threads each put into the same five sessions: every key survives."""
    first, second = start_pair(cluster)
    processes = [first.process, first.start()]
    notes = [tmp_path / "one", tmp_path / "two"]
    for process, file in zip(processes, notes, strict=True):
        process.do("load", name=file.name, notes=str(file), threads=3, sessions=5)
    await_notes(notes, 300)
    stop_load(processes)
    noted = read_notes(*notes)
    assert {key.rpartition("-")[0] for keys in noted.values() for key in keys} == {
        f"{name}-{thread}" for name in ("one", "two") for thread in range(3)
    }
    assert missing(first, noted) == []
    assert {id: len(first.store.get_data(id)) for id in noted} == {id: len(k) for id, k in noted.items()}
    await_equal([first, second])
    assert missing(second, noted) == []


def test_processes_that_come_and_go_harm_nobody(cluster: Cluster, tmp_path: Path) -> None:
    """A process that writes goes on, and loses nothing, while another opens and closes the node 60 times."""
    node = cluster.add()
    process, notes = node.start(), tmp_path / "notes"
    process.do("load", name="w", notes=str(notes), threads=2, sessions=5)
    await_notes([notes], 10)
    for _ in range(60):
        with Canister(node.path, agent=False, **node.settings) as visitor:
            assert visitor.get("load-0", "w-0-0") == 0
    await_notes([notes], 10)
    stop_load([process])
    assert missing(node, read_notes(notes)) == []


def test_another_process_takes_over_from_one_that_ends(cluster: Cluster) -> None:
    """When the process that runs the agent ends in order, another one of the node goes on."""
    first, second = start_pair(cluster)
    leaving, staying = first.process, first.start()
    assert first.agent() == leaving.pid
    leaving.terminate()
    eventually(lambda: first.agent() == staying.pid, 5)
    staying.do("put", id="s", key="k", value=1)
    eventually(lambda: second.store.get_data("s", local=True) == {"k": 1}, 5)


def test_a_process_that_may_not_be_agent_works_without_one(cluster: Cluster) -> None:
    """With no agent at all reads and writes go on, and the next agent sends what was written."""
    first, second = start_pair(cluster)
    first.process.kill()
    first.store.put("s", "k", "nobody sends this yet")
    assert first.store.get("s", "k") == "nobody sends this yet"
    first.start()
    eventually(lambda: second.store.get_data("s", local=True) == {"k": "nobody sends this yet"}, 10)


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_a_forked_child_takes_over(cluster: Cluster, end: signal.Signals) -> None:
    """A child holds none of its parent's sockets, works beside it, and is the agent after its end."""
    first, second = start_pair(cluster)
    parent = first.process
    parent.do("put", id="s", key="before", value=1)
    child = first.adopt(parent.fork())
    assert first.agent() == parent.pid
    assert len(parent.do("sockets")) >= 2  # listens, and has a link
    assert child.do("sockets") == []
    child.do("put", id="s", key="child", value=2)
    parent.do("put", id="s", key="parent", value=3)
    expected = {"before": 1, "child": 2, "parent": 3}
    assert parent.do("get_data", id="s") == child.do("get_data", id="s") == expected
    eventually(lambda: second.store.get_data("s", local=True) == expected, 5)

    parent.signal(end)
    eventually(lambda: second.logged("closed: it closed the connection"), 5, "the end is seen at once")
    parent.wait()
    eventually(lambda: first.agent() == child.pid, 5)
    eventually(lambda: second.states()[first.address] == "up", 5)
    assert second.logged("silent for") == []
    assert any(first.address.rpartition(":")[2] in end for end in child.do("sockets"))
    child.do("put", id="s", key="later", value=4)
    eventually(lambda: second.store.get_data("s", local=True) == {**expected, "later": 4}, 5)


def test_a_child_keeps_no_connection_open_that_its_parent_closes(cluster: Cluster) -> None:
    """A connection still in its handshake, and a process's question, end with the parent's side of them."""
    first, _ = start_pair(cluster)
    host, _, port = first.address.rpartition(":")
    with (
        socket.create_connection((host, int(port)), timeout=5) as half_open,
        socket.socket(socket.AF_UNIX) as question,
    ):
        question.settimeout(5)
        question.connect(str(first.path / "agent.sock"))
        assert half_open.recv(1)  # both are accepted now
        first.status()
        first.adopt(first.process.fork())
        first.processes[0].kill()
        while half_open.recv(65536):
            pass
        assert question.recv(1) == b""


def test_a_child_of_a_child_works(cluster: Cluster) -> None:
    """A fork of a fork reads, writes and becomes the agent when both its forebears are killed."""
    first, second = start_pair(cluster)
    parent = first.process
    child = first.adopt(parent.fork())
    child.spares, parent.spares = parent.spares, []  # the fork took them along
    grandchild = first.adopt(child.fork())
    child.kill()
    parent.kill()
    grandchild.do("put", id="s", key="k", value=1)
    eventually(lambda: first.agent() == grandchild.pid, 5)
    eventually(lambda: second.store.get_data("s", local=True) == {"k": 1}, 5)


def test_forked_workers_write_side_by_side(cluster: Cluster, tmp_path: Path) -> None:
    """As under a preloading server: three children forked while the parent writes lose nothing."""
    first, second = start_pair(cluster)
    parent = first.process
    notes = [tmp_path / name for name in ("parent", "one", "two", "three")]
    parent.do("load", name="parent", notes=str(notes[0]), threads=2, sessions=5, pause=0.001)
    processes = [parent]
    for file in notes[1:]:
        child = first.adopt(parent.fork())
        child.do("load", name=file.name, notes=str(file), threads=2, sessions=5)
        processes.append(child)
    await_notes(notes, 100)
    parent.kill()  # some child goes on as the agent
    await_notes(notes[1:], 100)
    stop_load(processes[1:])
    eventually(lambda: first.agent() in [process.pid for process in processes[1:]], 5)
    noted = read_notes(*notes)
    assert missing(first, noted) == []
    await_equal([first, second])
    assert missing(second, noted) == []
