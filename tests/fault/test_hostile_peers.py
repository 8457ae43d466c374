"""Hostile programs on a node's port: memory stays bounded and the other links notice nothing."""

import contextlib
import os
import resource
import socket
import struct
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
from tests.integration.cluster import Cluster, Node, eventually, now
from tests.integration.test_cluster_links import MAGIC, call, frame, read_to_end

from canister.record import NodeId, Version
from canister.replication import messages as m
from canister.replication.messages import MAX_FRAME, Hello, Message, encode_message
from canister.store.base import Member

pytestmark = pytest.mark.fault

MB = 1024 * 1024
long = pytest.mark.skipif(not os.environ.get("CANISTER_LONG_FAULTS"), reason="long: set CANISTER_LONG_FAULTS")


def rss(node: Node) -> int:
    """Return the resident memory of a node's process in bytes."""
    for line in Path(f"/proc/{node.process.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmRSS")


@contextmanager
def bounded_memory(node: Node, most: int) -> Generator[None, None, None]:
    """Watch a node's memory all the while: it must not grow by more than *most* bytes."""
    before, peak, stop = rss(node), [0], threading.Event()

    def watch() -> None:
        while not stop.wait(0.01):
            peak[0] = max(peak[0], rss(node))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    assert peak[0] - before < most, f"grew by {(peak[0] - before) / MB:.0f} MB"


def takes_part(nodes: list[Node], turn: str) -> None:
    """Check that a put on each node is on the other within a second."""
    for source, target in (nodes, nodes[::-1]):
        begun = time.monotonic()
        source.store.put(f"{turn}-{source.name}", "k", turn)
        eventually(lambda t=target, s=source: t.store.get_data(f"{turn}-{s.name}", local=True), 5)
        assert time.monotonic() - begun < 1


def linked_all_the_time(nodes: list[Node]) -> None:
    """Check that the honest link is the one that came up first."""
    for node, other in (nodes, nodes[::-1]):
        assert node.states()[other.address] == "up"
        assert len(node.logged("is up", other.address)) <= 2, node.log()
        assert not node.logged("link 1 ", "closed"), node.log()


def hello(number: int) -> Hello:
    """Return the hello of a node that does not exist."""
    version = Version(number.to_bytes(16, "big"))
    member = Member(f"127.0.0.1:{number + 1}", version, False, version, NodeId(number.to_bytes(8, "big")))
    return Hello(1, 1, "canister", member, b"12345678", now(), [])


class Peer:
    """A link to a node: the hello is said, what follows is the test's."""

    def __init__(self, node: Node, number: int = 1) -> None:
        self.connection = call(node)
        self.connection.sendall(MAGIC + frame(encode_message(hello(number))))
        self.say(m.MemberList([]))
        eventually(lambda: node.logged(f"to 127.0.0.1:{number + 1} ", "is up"), 5)
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def say(self, *messages: Message) -> None:
        """Send messages."""
        self.connection.sendall(b"".join(frame(encode_message(message)) for message in messages))

    def live(self) -> None:
        """Send heartbeats from now on."""
        self._run(lambda: (self.say(m.Heartbeat(0, 0, now())), time.sleep(0.2)))

    def read_all(self) -> None:
        """Read from now on, and throw it away."""
        self._run(lambda: self.connection.recv(MB))

    def _run(self, act: "object") -> None:
        def loop() -> None:
            with contextlib.suppress(OSError):
                while not self._stop.is_set():
                    act()  # type: ignore[operator]

        thread = threading.Thread(target=loop, daemon=True)
        self._threads.append(thread)
        thread.start()

    def close(self) -> None:
        """Hang up."""
        self._stop.set()
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)
        self.connection.close()


@pytest.fixture
def peers() -> Iterator[list[Peer]]:
    """Return a list; the peers put into it hang up after the test."""
    peers: list[Peer] = []
    yield peers
    for peer in peers:
        peer.close()


@pytest.mark.parametrize("wanted", [2_500, pytest.param(10_000, marks=long)])
def test_thousands_of_half_open_connections(cluster: Cluster, wanted: int) -> None:
    """Most are turned away at once, the rest after two seconds; the log says so once, memory stays."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = hard if hard != resource.RLIM_INFINITY else 65_536
    count = min(wanted, most - 500)
    assert count >= 1000, "the limit on open files is too low for this test"
    nodes = cluster.start(2)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(most, count + 400)), hard))
    with contextlib.ExitStack() as stack, bounded_memory(nodes[0], 60 * MB):
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        for number in range(count):
            connection = stack.enter_context(call(nodes[0]))
            if number % 7 == 0:
                with contextlib.suppress(OSError):
                    connection.sendall(MAGIC[: number % 5])  # a hello that does not go on
            if number % 500 == 499:
                takes_part(nodes, f"at {number}")
    time.sleep(2.5)
    takes_part(nodes, "after")
    linked_all_the_time(nodes)
    assert len(nodes[0].logged("WARNING", "127.0.0.1: too many connections")) == 1
    assert len(nodes[0].logged("WARNING", "did not finish its handshake in time")) <= 1
    assert len(nodes[0].logged("WARNING")) <= 3, nodes[0].log()
    open_files = len(list(Path(f"/proc/{nodes[0].process.pid}/fd").iterdir()))
    assert open_files < 80


def test_a_peer_that_stops_reading(cluster: Cluster, peers: list[Peer]) -> None:
    """What waits for it is bounded, then it is dropped with the reason; meanwhile the other gets all."""
    nodes = cluster.start(2)
    peers.append(Peer(nodes[0]))
    peers[0].live()
    with bounded_memory(nodes[0], 90 * MB):
        for number in range(160):
            nodes[0].store.put("big", number, b"x" * 250_000)
            if number % 4 == 3:
                nodes[0].store.clear("big")
            if number % 40 == 39:
                takes_part(nodes, f"at {number}")
        eventually(lambda: nodes[0].logged("127.0.0.1:", "bytes are waiting for it"), 5)
    assert len(nodes[0].logged("bytes are waiting for it")) == 1
    linked_all_the_time(nodes)


def test_frames_that_lie_about_their_length(cluster: Cluster, peers: list[Peer]) -> None:
    """Thirty peers that announce the largest frame and send a little of it: nothing is set aside for it."""
    nodes = cluster.start(2)
    with bounded_memory(nodes[0], 40 * MB):
        for number in range(30):
            peers.append(Peer(nodes[0], number + 1))
            peers[-1].connection.sendall(struct.pack(">I", MAX_FRAME) + b"\x93\x03" + b"x" * 10_000)
        takes_part(nodes, "meanwhile")
        eventually(lambda: len(nodes[0].logged("silent for")) == 30, 6)
    linked_all_the_time(nodes)


def test_frames_that_drip(cluster: Cluster, peers: list[Peer]) -> None:
    """A byte now and then is no sign of life: who sends them is given up as if there were none."""
    nodes = cluster.start(2)
    for number in range(10):
        peers.append(Peer(nodes[0], number + 1))
        peers[-1].connection.sendall(struct.pack(">I", MAX_FRAME) + b"\x93\x03" + b"x" * 10_000)
        peers[-1]._run(lambda peer=peers[-1]: (peer.connection.sendall(b"x"), time.sleep(0.05)))
    eventually(lambda: len(nodes[0].logged("silent for")) == 10, 6)
    takes_part(nodes, "after")
    linked_all_the_time(nodes)


FRAMES = {
    "not a message": [frame(b"\xc1"), frame(b"\x92\x02\xa2\x00\x80"), frame(b"\x91" * 100_000)],
    "is out of place": [frame(encode_message(hello(1)))],
    "a frame claims 0 bytes": [frame(b"")],
    "not a record": [frame(encode_message(m.Live([[(b"ss", b"no record")]], 0)))],
    "a session id of 600 bytes": [frame(encode_message(m.Live([[(b"s" * 600, b"no record")]], 0)))],
    "has no form that a node gives it": [
        frame(msgspec.msgpack.encode([4, [["a\nERROR forged", b"", False, b"", b""]]]))
    ],
    "is not in the digest tree": [frame(encode_message(m.AskDigests(1, now(), 0, [1, 2])))],
    "names a branch that is not": [frame(encode_message(m.AskListing(1, now(), 3, [-1])))],
    "length <=": [
        frame(b"\x93\x03\xdd" + struct.pack(">I", 31 * MB) + b"\x90" * (31 * MB) + b"\x00"),
        frame(encode_message(m.AskDigests(1, now(), 0, [0] * 500_000))),
    ],
}


def test_garbage_after_a_good_hello(cluster: Cluster, peers: list[Peer]) -> None:
    """Each kind ends its link at once and is named in the log once; memory stays."""
    nodes = cluster.start(2)
    number = 0
    with bounded_memory(nodes[0], 130 * MB):
        for reason, frames in FRAMES.items():
            for data in frames:
                number += 1
                peers.append(Peer(nodes[0], number))
                with contextlib.suppress(OSError):
                    peers[-1].connection.sendall(data)
                read_to_end(peers[-1].connection)
                told = eventually(lambda n=number: nodes[0].logged("WARNING", f"127.0.0.1:{n + 1}: "), 5)
                assert len(told) == 1
                assert reason in told[0], told
            takes_part(nodes, reason)
    assert not nodes[0].logged("ERROR")
    linked_all_the_time(nodes)


def test_a_peer_that_asks_without_end(cluster: Cluster, peers: list[Peer]) -> None:
    """A flood of small questions, all in order: the others get their turn between them."""
    nodes = cluster.start(2)
    for number in range(2000):
        nodes[0].store.put(f"s{number}", "k", number)
    peers.append(Peer(nodes[0]))
    peers[0].read_all()
    flood = b"".join(
        frame(encode_message(question))
        for at in (now(), 2**56)
        for question in (m.AskRoot(1, at), m.AskListing(1, at, 3, list(range(64))), m.Fetch(1, b"ss1"))
        for _ in range(10)
    )
    sent = threading.Event()

    def ask() -> None:
        peers[0].connection.sendall(flood)
        sent.set()

    with bounded_memory(nodes[0], 90 * MB):
        peers[0]._run(ask)
        for turn in range(8):
            takes_part(nodes, f"turn {turn}")
            time.sleep(0.1)
    assert sent.wait(5)
    linked_all_the_time(nodes)


def test_what_a_stranger_says_is_not_the_logs_to_write(cluster: Cluster) -> None:
    """Reasons with line breaks, of any length, other ones each time: few lines, short ones, none forged."""
    nodes = cluster.start(2)
    before = len(nodes[0].log())
    for number in range(60):
        reason = f"{number}\n2026-01-01 00:00:00,000 1 ERROR canister.mesh forged\x1b[2J" + "x" * 60_000
        with call(nodes[0]) as connection:
            connection.sendall(MAGIC + frame(encode_message(m.Refused(reason))))
            read_to_end(connection)
    eventually(lambda: nodes[0].logged("WARNING", "refuses this node"), 5)
    assert not [
        line for line in nodes[0].log().splitlines() if line.startswith("2026-01-01 00:00:00,000 1 ERROR")
    ]
    assert "\x1b" not in nodes[0].log()
    assert len(nodes[0].log()) - before < 20_000
    takes_part(nodes, "after")
    linked_all_the_time(nodes)
