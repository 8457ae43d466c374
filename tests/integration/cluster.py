"""Clusters of real processes: nodes, the processes that share them, and waiting for what must come.

A `Node` is a data directory and an address. Its `Process`es run `worker.py`; besides these every handle
that the test opens with `Node.open` is a process of the node too, one that never becomes its agent.
"""

import contextlib
import itertools
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from canister import AgentError, Canister
from canister.agent.control import AgentStatus

T = TypeVar("T")

WORKER = Path(__file__).with_name("worker.py")
SETTINGS = {"node_interval": "2s", "digest_interval": "30s", "remote_timeout": "1s"}
"""Comparisons are seldom: what arrives soon came in the live flow, or with a link that came up."""
SPARES = 3
"""Forks that a process can be told to make."""
_TROUBLE = {
    "Traceback",
    "Exception ignored",
    "Exception in",
    "Unhandled exception",
    "never retrieved",
    "never awaited",
    "py.warnings",
}
_PORTS = itertools.cycle(random.sample(range(12_000, 30_000), 18_000))
"""Below the ports that systems give to outgoing connections: a stopped node's port stays free.

Each is handed out once: who asks for several has not begun to listen on the first one.
"""


class WorkerError(Exception):
    """The worker answered with an error of Canister; *kind* is its class."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(f"{kind}: {message}")
        self.kind = kind


def eventually(condition: Callable[[], T], deadline: float = 15.0, message: str = "") -> T:
    """Return the first true answer of *condition*; fail if there is none within *deadline* seconds.

    Args:
        condition: asked again and again; an `AssertionError` counts as no, so does `AgentError`.
        deadline: seconds.
        message: what is waited for.
    """
    end = time.monotonic() + deadline
    while True:
        last: object = None
        try:
            last = condition()
        except (AssertionError, AgentError) as error:
            last = error
        else:
            if last:
                return last
        if time.monotonic() > end:
            raise AssertionError(f"not within {deadline} s: {message or condition}; last answer: {last!r}")
        time.sleep(0.02)


def free_port() -> int:
    """Return a port of the loopback that nobody uses and the system gives to nobody."""
    while True:
        port = next(_PORTS)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


class Process:
    """A running `worker.py`, or a child that it forked."""

    def __init__(self, pid: int, channel: socket.socket, popen: subprocess.Popen[bytes] | None) -> None:
        self.pid = pid
        self._channel = channel
        self._popen = popen
        self._lines = channel.makefile("rb")
        self.spares: list[socket.socket] = []

    def wait_ready(self) -> None:
        """Wait until it serves, and take its process id from it."""
        self.pid = self._answer()["ready"]

    def do(self, command: str, **arguments: Any) -> Any:
        """Have a command done and return its value."""
        self._channel.sendall(json.dumps({"do": command, "arguments": arguments}).encode() + b"\n")
        answer = self._answer()
        if "error" in answer:
            raise WorkerError(answer["error"], answer["message"])
        return answer["value"]

    def fork(self) -> "Process":
        """Have it fork; return the child."""
        channel = self.spares.pop(0)
        child = Process(self.do("fork"), channel, None)
        child.wait_ready()
        return child

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it (-9) and wait until it is gone."""
        if self._popen is None or self._popen.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                self.signal(signal.SIGKILL)
        self.wait()

    def terminate(self) -> None:
        """End it with SIGTERM and wait until it is gone."""
        self.signal(signal.SIGTERM)
        self.wait()

    def wait(self) -> None:
        """Wait until it is gone."""
        if self._popen is not None:
            self._popen.wait(timeout=20)
        else:
            eventually(lambda: self.state() in ("", "Z"), message=f"process {self.pid} ends")

    def state(self) -> str:
        """Return its state as the kernel tells it, such as R, S, T or Z; empty if it is gone."""
        try:
            return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return ""

    def close(self) -> None:
        """Kill it if it runs, and let go of its channels."""
        self.kill()
        self._lines.close()
        self._channel.close()
        for spare in self.spares:
            spare.close()

    def _answer(self) -> dict[str, Any]:
        line = self._lines.readline()
        if not line:
            raise AssertionError(f"process {self.pid} ended")
        answer: dict[str, Any] = json.loads(line)
        return answer


class Node:
    """A data directory and an address, with whatever processes run on it."""

    def __init__(self, name: str, path: Path, settings: dict[str, Any]) -> None:
        self.name = name
        self.path = path
        self.settings = settings
        self.address: str = settings["listen"]
        self.log_file = path.with_suffix(".log")
        self.stderr_file = path.with_suffix(".stderr")
        self.processes: list[Process] = []
        self._handles: list[Canister] = []

    def start(self, **changes: Any) -> Process:
        """Start one more process and wait until it serves; *changes* are settings of it alone."""
        pairs = [socket.socketpair() for _ in range(1 + SPARES)]
        theirs = [pair[1].fileno() for pair in pairs]
        settings = {k: v for k, v in {**self.settings, **changes}.items() if v is not None}
        job = {"path": str(self.path), "log": str(self.log_file), "settings": settings, "channels": theirs}
        with self.stderr_file.open("ab") as stderr:
            popen = subprocess.Popen(
                [sys.executable, "-W", "error", str(WORKER), json.dumps(job)],
                pass_fds=theirs,
                stderr=stderr,
                stdin=subprocess.DEVNULL,
                cwd=self.path.parent,
            )
        for _, theirs_end in pairs:
            theirs_end.close()
        process = Process(popen.pid, pairs[0][0], popen)
        process.spares = [pair[0] for pair in pairs[1:]]
        self.processes.append(process)
        try:
            process.wait_ready()
        except AssertionError as error:
            raise AssertionError(f"{self.name} did not start: {self.stderr_file.read_text()}") from error
        return process

    @property
    def process(self) -> Process:
        """The process started last."""
        return self.processes[-1]

    def adopt(self, child: Process) -> Process:
        """See to it that a forked child ends with the test."""
        self.processes.append(child)
        return child

    @property
    def store(self) -> Canister:
        """A handle of this test process on the node, the same one each time."""
        if not self._handles:
            self.open()
        return self._handles[0]

    def open(self) -> Canister:
        """Open one more handle on the node."""
        handle = Canister(self.path, agent=False, **self.settings)
        self._handles.append(handle)
        return handle

    def status(self, at: int | None = None) -> AgentStatus:
        """Return what the node's agent knows."""
        return self.store.node.status(now() if at is None else at)

    def agent(self) -> int:
        """Return the id of the process that runs the agent."""
        return self.status().pid

    def states(self) -> dict[str, str]:
        """Return the state of every member by its address."""
        return {member.address: member.state for member in self.status().members}

    def log(self) -> str:
        """Return what the node's processes have logged."""
        return self.log_file.read_text() if self.log_file.exists() else ""

    def logged(self, *words: str) -> list[str]:
        """Return the lines of the log that hold all *words*."""
        return [line for line in self.log().splitlines() if all(word in line for word in words)]

    def trouble(self, tolerated: set[str]) -> list[str]:
        """Return the lines of log and standard error that no node in order writes."""
        words = _TROUBLE - tolerated
        stderr = self.stderr_file.read_text() if self.stderr_file.exists() else ""
        lines = [*self.log().splitlines(), *stderr.splitlines()]
        return [line for line in lines if any(word in line for word in words)]

    def release(self) -> None:
        """Close this test's handles on the node."""
        for handle in self._handles:
            handle.close()
        self._handles.clear()

    def close(self) -> None:
        """Close the handles and kill every process that still runs."""
        self.release()
        for process in self.processes:
            process.close()


class Cluster:
    """The nodes of one test.

    Args:
        directory: where the data directories go.
    """

    def __init__(self, directory: Path) -> None:
        self.nodes: list[Node] = []
        self.tolerated: set[str] = set()
        """Signs of trouble that the test's own fault explains."""
        self._directory = directory

    def add(self, *, seeds: Iterable[Node] = (), path: Path | None = None, **settings: Any) -> Node:
        """Make a node; nothing runs on it yet."""
        name = "abcdefgh"[len(self.nodes)]
        listen = f"127.0.0.1:{free_port()}"
        given = {**SETTINGS, "listen": listen, "seeds": [seed.address for seed in seeds], **settings}
        node = Node(name, path or self._directory / name, given)
        self.nodes.append(node)
        return node

    def start(self, count: int, **settings: Any) -> list[Node]:
        """Make nodes that have the first as their seed, start them, and wait until all are linked."""
        nodes: list[Node] = []
        for _ in range(count):
            node = self.add(seeds=nodes[:1], **settings)
            node.start()
            nodes.append(node)
        await_linked(nodes)
        return nodes

    def close(self) -> None:
        """End everything."""
        for node in self.nodes:
            node.close()

    def trouble(self) -> list[str]:
        """Return what no node in order logs."""
        return [f"{node.name}: {line}" for node in self.nodes for line in node.trouble(self.tolerated)]


def now() -> int:
    """Return the time as the nodes count it."""
    return time.time_ns() // 1000


def await_linked(nodes: Iterable[Node], deadline: float = 15.0) -> None:
    """Wait until every node has compared itself with every other one."""
    nodes = list(nodes)
    for node in nodes:
        wanted = {other.address: "up" for other in nodes} | {node.address: "self"}

        def met(node: Node = node, wanted: dict[str, str] = wanted) -> bool:
            states = node.states()
            assert states == wanted, states
            return True

        eventually(met, deadline, f"{node.name} linked with all")


def digests(nodes: Iterable[Node]) -> list[str]:
    """Return every node's digest as of the same instant."""
    at = now()
    return [node.status(at).digest for node in nodes]


def await_equal(nodes: Iterable[Node], deadline: float = 15.0) -> None:
    """Wait until all nodes print the same digest as of the same instant."""
    nodes = list(nodes)
    eventually(lambda: len(set(digests(nodes))) == 1, deadline, "digests are equal")


def everything(node: Node) -> dict[str | bytes, dict[Any, Any]]:
    """Return all live sessions of a node as it holds them itself."""
    return {id: node.store.get_data(id, local=True) for id in node.store.all_sessions()}


def read_notes(*files: Path) -> dict[str, dict[str, int]]:
    """Return what loads have noted as acknowledged, by session."""
    noted: dict[str, dict[str, int]] = defaultdict(dict)
    for line in (line for file in files for line in file.read_bytes().splitlines()):
        session, key, value = line.decode().split()
        noted[session][key] = int(value)
    return dict(noted)


def count_notes(*files: Path) -> int:
    """Return how many puts loads have noted."""
    return sum(file.read_bytes().count(b"\n") for file in files if file.exists())


def missing(node: Node, noted: dict[str, dict[str, int]]) -> list[tuple[str, str]]:
    """Return what was acknowledged and is not here as it was put."""
    lost: list[tuple[str, str]] = []
    for session, keys in noted.items():
        held = node.store.get_data(session, local=True)
        lost += [(session, key) for key, value in keys.items() if held.get(key) != value]
    return lost


def running_cluster(directory: Path) -> Iterator[Cluster]:
    """Yield a cluster for one test, end its processes, and look for trouble in what they logged."""
    cluster = Cluster(directory)
    try:
        yield cluster
        trouble = cluster.trouble()
    finally:
        cluster.close()
    assert not trouble, "\n".join(trouble)
