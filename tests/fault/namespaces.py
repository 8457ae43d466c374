"""Hosts of their own on one machine: network namespaces, joined by a router that can fail in every way.

Each host has one address and one cable, to the router. What the router is told to drop, it drops
silently: nobody is told, as when a cable is pulled further off. Needs root, Linux and `ip` alone.
"""

import ctypes
import json
import os
import secrets
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from tests.integration.cluster import Cluster, Node, Process

PORT = 7400
PREFIX = "canister-test"
_CLONE_NEWNET = 0x4000_0000
_SLOW_ROUTER = Path(__file__).with_name("namespaces_slow.py")


class NetworkError(Exception):
    """This system cannot be split into hosts; says why."""


@dataclass(frozen=True)
class Host:
    """A network namespace with one address."""

    namespace: str
    address: str

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Let what this thread starts meanwhile run on the host."""
        own = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        theirs = os.open(f"/run/netns/{self.namespace}", os.O_RDONLY)
        try:
            _set_namespace(theirs)
            yield
        finally:
            _set_namespace(own)
            os.close(theirs)
            os.close(own)


class Network:
    """Hosts, and the router between them."""

    def __init__(self, count: int) -> None:
        token = f"{PREFIX}-{os.getpid()}-{secrets.token_hex(3)}"
        self._router = f"{token}-router"
        self._hosts = [Host(f"{token}-{n}", f"10.74.{n}.2") for n in range(1, count + 1)]
        self._rules: list[str] = []
        self._slow: subprocess.Popen[bytes] | None = None

    def open(self) -> list[Host]:
        """Set everything up.

        Raises:
            NetworkError: it is not possible here.
        """
        if sys.platform != "linux" or os.geteuid() != 0 or shutil.which("ip") is None:
            raise NetworkError("network namespaces need Linux, root and the command `ip`")
        for name in (self._router, *(host.namespace for host in self._hosts)):
            _ip(f"netns add {name}")
            _ip(f"-n {name} link set lo up")
        for setting, value in (("ip_forward", 1), ("conf/all/rp_filter", 0), ("conf/default/rp_filter", 0)):
            write = f"echo {value} > /proc/sys/net/ipv4/{setting}"
            _run(["ip", "netns", "exec", self._router, "sh", "-c", write])
        for number, host in enumerate(self._hosts, 1):
            gateway, port = f"10.74.{number}.1", f"port{number}"
            _ip(f"-n {self._router} link add {port} type veth peer name eth0 netns {host.namespace}")
            _ip(f"-n {self._router} address add {gateway}/24 dev {port}")
            _ip(f"-n {self._router} link set {port} up")
            _ip(f"-n {host.namespace} address add {host.address}/24 dev eth0")
            _ip(f"-n {host.namespace} link set eth0 up")
            _ip(f"-n {host.namespace} route add default via {gateway}")
        return self._hosts

    def cut(self, some: Iterable[Host], others: Iterable[Host]) -> None:
        """Drop what *some* and *others* send each other, silently."""
        some, others = list(some), list(others)
        self._drop([pair for a in some for b in others for pair in permutations((a, b))])

    def cut_one_way(self, senders: Iterable[Host], receivers: Iterable[Host]) -> None:
        """Drop what *senders* send to *receivers*, silently; what these send arrives."""
        receivers = list(receivers)
        self._drop([(a, b) for a in senders for b in receivers])

    def heal(self) -> None:
        """Drop nothing any more."""
        rules, self._rules = self._rules, []
        self._change("del", rules)

    def slow_down(self, delay: float, loss: float) -> None:
        """Delay all packets, each way, by *delay* seconds and lose a share of *loss* of them.

        Raises:
            NetworkError: it is not possible here.
        """
        if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
            raise NetworkError("delay needs /dev/net/tun")
        table, ports = 74, [f"port{n}" for n in range(1, len(self._hosts) + 1)]
        command = [sys.executable, str(_SLOW_ROUTER), "slow", str(delay), str(loss)]
        with Host(self._router, "").entered():
            self._slow = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        assert self._slow.stdout is not None
        if not self._slow.stdout.readline():
            raise NetworkError("delay needs a working /dev/net/tun")
        _ip(f"-n {self._router} link set slow up")
        _ip(f"-n {self._router} route add default dev slow table {table}")
        for port in ports:  # a rule that drops comes first
            _ip(f"-n {self._router} rule add priority 20000 iif {port} lookup {table}")

    def relayed(self) -> tuple[int, int]:
        """End the delay; return how many packets were relayed, and how many lost."""
        assert self._slow is not None
        slow, self._slow = self._slow, None
        slow.terminate()
        answer, _ = slow.communicate(timeout=10)
        relayed, lost = json.loads(answer)
        return relayed, lost

    def close(self) -> None:
        """Remove everything that was set up."""
        if self._slow is not None:
            self._slow.kill()
            self._slow.communicate()
        for name in (self._router, *(host.namespace for host in self._hosts)):
            with suppress(NetworkError):
                _ip(f"netns del {name}")

    def _drop(self, pairs: list[tuple[Host, Host]]) -> None:
        rules = [f"from {a.address} to {b.address}" for a, b in pairs]
        self._rules += rules
        self._change("add", rules)

    def _change(self, verb: str, rules: list[str]) -> None:
        batch = "".join(f"rule {verb} priority 10000 {rule} blackhole\n" for rule in rules)
        _run(["ip", "-n", self._router, "-batch", "-"], batch)


class HostNode(Node):
    """A node whose processes run on a host of their own."""

    def __init__(self, name: str, path: Path, settings: dict[str, Any], host: Host) -> None:
        super().__init__(name, path, settings)
        self.host = host

    def start(self, **changes: Any) -> Process:
        """Start one more process on the host."""
        with self.host.entered():
            return super().start(**changes)

    def resident(self) -> int:
        """Return how many bytes of memory its last process has."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) * 1024


class HostCluster(Cluster):
    """A cluster with one node on each host."""

    def __init__(self, directory: Path, network: Network, hosts: list[Host]) -> None:
        super().__init__(directory)
        self.network = network
        self._places = {f"{host.address}:{PORT}": host for host in hosts}
        self._free = list(self._places)

    def add(self, *, seeds: Iterable[Node] = (), path: Path | None = None, **settings: Any) -> Node:
        """Make a node on the next host; nothing runs on it yet."""
        listen = self._free.pop(0)
        made = super().add(seeds=seeds, path=path, listen=listen, plain_tcp=True, **settings)
        node = HostNode(made.name, made.path, made.settings, self._places[listen])
        self.nodes[-1] = node
        return node

    def cut(self, some: Iterable[Node], others: Iterable[Node], *, one_way: bool = False) -> None:
        """Cut *some* nodes off from *others*; if *one_way*, what the others send still arrives."""
        act = self.network.cut_one_way if one_way else self.network.cut
        act(map(_host, some), map(_host, others))


def open_network(count: int) -> tuple[Network, list[Host]]:
    """Return a network of *count* hosts; skip the test where that is not possible, but fail in CI."""
    network = Network(count)
    try:
        return network, network.open()
    except NetworkError as error:
        network.close()
        decline(error)


def decline(error: NetworkError) -> Any:
    """Skip the test, but fail in CI."""
    if os.environ.get("CI") == "true":
        pytest.fail(str(error))
    pytest.skip(str(error))


class Task:
    """A thread that does something until it is stopped."""

    def __init__(self) -> None:
        self._stopping = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._guarded, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop soon."""
        self._stopping.set()
        self.finish()

    def finish(self) -> None:
        """Wait for its end; raise what went wrong in it."""
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    def run(self) -> None:
        """Do it."""
        raise NotImplementedError

    def pause(self, seconds: float) -> bool:
        """Wait; return False once it is to stop."""
        return not self._stopping.wait(seconds)

    def _guarded(self) -> None:
        try:
            self.run()
        except Exception as error:  # noqa: BLE001 - raised again by finish()
            self._failure = error


class Load(Task):
    """Puts through a handle of this process, at a steady pace, and times each put.

    Args:
        node: where it puts.
        name: goes into the session ids.
        pace: puts a second.
        sessions: how many different sessions it puts into, one after the other, over and over.
        value: what it puts, after its number.
        limit: how many puts it makes.
    """

    def __init__(
        self, node: Node, name: str, pace: float, *, limit: int, sessions: int = 1_000_000, value: str = ""
    ) -> None:
        self.value = value
        self.taken: list[float] = []
        self._node = node
        self._name = name
        self._pace = pace
        self._sessions = sessions
        self._limit = limit
        node.store.num_local_sessions()  # opened, in this thread
        super().__init__()

    def session(self, number: int) -> str:
        """Return the session that a put goes to."""
        return f"{self._name}-{self._node.name}-{number % self._sessions}"

    def run(self) -> None:
        """Put."""
        begun, own, agent = time.monotonic(), os.getpid(), self._node.process.pid
        for number in range(self._limit):
            if not self.pause(begun + number / self._pace - time.monotonic()):
                return
            waiting = Waiting(own, agent)  # any of their threads may hold a lock
            before = time.monotonic()
            self._node.store.put(self.session(number), "k", f"{number} {self.value}")
            taken = time.monotonic() - before
            self.taken.append(max(0.0, taken - waiting.seconds()))


class Growth(Task):
    """Watches the memory of a node's process."""

    def __init__(self, node: HostNode) -> None:
        self.most = 0
        """Bytes by which it has grown at the most."""
        self._node = node
        super().__init__()

    def run(self) -> None:
        """Watch."""
        begun = self._node.resident()
        while self.pause(0.05):
            self.most = max(self.most, self._node.resident() - begun)


class Waiting:
    """For how long processes wait for a processor, from now on."""

    def __init__(self, *processes: int) -> None:
        self._begun = {process: _waits(process) for process in processes}

    def seconds(self) -> float:
        """Return the sum over the processes, of each the thread that waited longest."""
        waited = 0
        for process, begun in self._begun.items():
            waited += max(
                (wait - begun.get(thread, 0) for thread, wait in _waits(process).items()), default=0
            )
        return waited / 1e9


def _waits(process: int) -> dict[str, int]:
    """Return the nanoseconds for which each thread of a process has waited for a processor so far."""
    waits: dict[str, int] = {}
    for file in Path(f"/proc/{process}/task").glob("*/schedstat"):
        with suppress(FileNotFoundError, ProcessLookupError):  # the thread has ended
            waits[file.parent.name] = int(file.read_bytes().split()[1])
    return waits


def wait_until(condition: Callable[[], bool], since: float, deadline: float, what: str) -> float:
    """Wait for a condition; return how many seconds after *since* it held; fail after *deadline* of them."""
    while not condition():
        taken = time.monotonic() - since
        assert taken < deadline, f"not within {deadline} s: {what}"
        time.sleep(0.03)
    return time.monotonic() - since


def _host(node: Node) -> Host:
    assert isinstance(node, HostNode)
    return node.host


def _set_namespace(descriptor: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns failed")


def _ip(words: str) -> None:
    _run(["ip", *words.split()])


def _run(command: list[str], given: str | None = None) -> None:
    ran = subprocess.run(command, input=given, capture_output=True, text=True)
    if ran.returncode:
        raise NetworkError(f"{' '.join(command)}: {ran.stderr.strip()}")
