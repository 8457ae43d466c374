"""What a node's port takes, and what it refuses without harm to its other links."""

import contextlib
import socket
import struct
import threading
import time
from pathlib import Path

import pytest
from tests.integration.cluster import Cluster, Node, await_equal, await_linked, eventually, free_port, now

from canister import Canister, ConfigError, ListenError
from canister.record import NodeId, Version
from canister.replication.messages import (
    MAX_FRAME,
    Hello,
    MemberList,
    Refused,
    decode_message,
    encode_message,
)
from canister.store.base import Member

pytestmark = pytest.mark.integration

MAGIC = b"CNST"


def frame(payload: bytes) -> bytes:
    return struct.pack(">I", len(payload)) + payload


def stranger_hello(cluster: str = "canister", protocol: int = 1) -> Hello:
    """Return the hello of a node that does not exist."""
    version = Version(b"\x01" * 24)
    member = Member("127.0.0.1:9", version, False, version, NodeId(b"stranger........"))
    return Hello(protocol, protocol, cluster, member, b"12345678", now(), [])


def call(node: Node) -> socket.socket:
    """Connect to a node's port."""
    host, _, port = node.address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=10)


def read_to_end(connection: socket.socket) -> bytes:
    """Return all that comes until the other side closes, however it does, within ten seconds."""
    parts: list[bytes] = []
    end = time.monotonic() + 10
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(65536):
            parts.append(part)
            assert time.monotonic() < end, "the other side does not close"
    return b"".join(parts)


def is_greeted(connection: socket.socket) -> bool:
    """Tell whether a node begins to talk, rather than to close the connection."""
    with contextlib.suppress(ConnectionResetError):
        return bool(connection.recv(1))
    return False


def messages(data: bytes) -> list[object]:
    """Return the whole messages in what a node has sent."""
    assert data[:4] == MAGIC
    found: list[object] = []
    at = 4
    while at + 4 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        found.append(decode_message(data[at + 4 : at + 4 + length]))
        at += 4 + length
    return found


def still_replicates(nodes: list[Node]) -> None:
    """Check that the links between the nodes have never gone down and carry live commits."""
    for node in nodes:
        assert not node.logged("link 1 ", "closed"), node.log()
        node.store.put("after", node.name, "still here")
    for node in nodes:
        eventually(lambda node=node: len(node.store.get_data("after", local=True)) == len(nodes), 5)


def say_wrong_hello(node: Node, hello: Hello) -> str:
    """Say a hello and return the reason for which it is refused."""
    with call(node) as connection:
        connection.sendall(MAGIC + frame(encode_message(hello)))
        answers = messages(read_to_end(connection))
    assert isinstance(answers[0], Hello)
    assert isinstance(answers[-1], Refused)
    return answers[-1].reason


@pytest.mark.parametrize(
    ("hello", "reason"),
    [
        (stranger_hello(cluster="another"), "belongs to cluster 'another', this node to 'canister'"),
        (stranger_hello(protocol=99), "speaks protocol 99 to 99, this node 1 to 1"),
    ],
    ids=["cluster", "protocol"],
)
def test_a_node_that_does_not_belong_is_refused(cluster: Cluster, hello: Hello, reason: str) -> None:
    """A hello of another cluster or protocol is answered with the reason, which is logged once."""
    nodes = cluster.start(2)
    for _ in range(3):
        assert reason in say_wrong_hello(nodes[0], hello)
    assert len(nodes[0].logged("WARNING", reason)) == 1
    assert "127.0.0.1:9" not in nodes[0].states()
    still_replicates(nodes)


def test_a_node_of_another_cluster_keeps_apart(cluster: Cluster) -> None:
    """A real node with another cluster name tries for ever; both sides log why once, and nothing flows."""
    nodes = cluster.start(2)
    outsider = cluster.add(seeds=[nodes[0]], cluster="another")
    outsider.start()
    outsider.store.put("secret", "k", 1)
    eventually(lambda: outsider.logged("WARNING", nodes[0].address, "belongs to cluster"))
    time.sleep(3)  # some attempts more
    assert len(outsider.logged("WARNING")) == 1
    assert len(nodes[0].logged("WARNING", "'another'")) == 1
    assert nodes[0].store.get_data("secret") == {}
    assert set(outsider.states()) == {outsider.address}
    still_replicates(nodes)


def test_a_node_that_is_refused_after_its_hello_says_so_once(cluster: Cluster) -> None:
    """It tries for ever, counts how often it is refused, and its log does not grow with each attempt."""
    nodes = cluster.start(2)
    wrong = cluster.add(seeds=[nodes[0]], advertise=nodes[1].address)
    wrong.start()
    eventually(lambda: wrong.status().refused.get("by the peer", 0) >= 4)
    assert len(wrong.logged("WARNING")) == 1
    assert wrong.logged("it refuses this node", nodes[1].address, "another node, which is linked")
    assert not wrong.logged("is up") + wrong.logged("closed")
    assert len(nodes[0].logged("WARNING", "another node, which is linked")) == 1
    still_replicates(nodes)


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "not the Canister protocol"),
        (bytes(range(256)) * 64, "not the Canister protocol"),
        (MAGIC + struct.pack(">I", 2**31), "a frame claims 2147483648 bytes"),
        (MAGIC + frame(b"\xc1 no message"), "not a message"),
        (MAGIC + frame(encode_message(MemberList([]))), "its first message is no hello"),
    ],
    ids=["http", "garbage", "huge-hello", "no-message", "no-hello"],
)
def test_what_is_not_the_protocol_is_refused(cluster: Cluster, sent: bytes, reason: str) -> None:
    """Garbage on the port is refused at once, logged once, and harms no other link."""
    nodes = cluster.start(2)
    for _ in range(3):
        with call(nodes[0]) as connection:
            connection.sendall(sent)
            begun = time.monotonic()
            read_to_end(connection)
            assert time.monotonic() - begun < 1
    eventually(lambda: nodes[0].logged("WARNING", reason))
    assert len(nodes[0].logged("WARNING")) == len(nodes[0].logged("WARNING", reason)) == 1
    still_replicates(nodes)


def test_a_frame_that_lies_about_its_length_ends_its_link(cluster: Cluster) -> None:
    """After a good hello, a frame that claims too much ends that link alone, and the reason is logged."""
    nodes = cluster.start(2)
    with call(nodes[0]) as connection:
        connection.sendall(MAGIC + frame(encode_message(stranger_hello())))
        connection.sendall(struct.pack(">I", MAX_FRAME + 1))
        read_to_end(connection)
    reason = f"a frame claims {MAX_FRAME + 1} bytes"
    assert len(eventually(lambda: nodes[0].logged("WARNING", reason))) == 1
    still_replicates(nodes)


def test_a_peer_that_falls_silent_in_a_frame_is_given_up(cluster: Cluster) -> None:
    """A link on which a great frame never ends is dropped after the node interval; memory stays bounded."""
    nodes = cluster.start(2)
    with call(nodes[0]) as connection:
        connection.sendall(MAGIC + frame(encode_message(stranger_hello())))
        connection.sendall(struct.pack(">I", MAX_FRAME) + b"x" * 1000)
        begun = time.monotonic()
        read_to_end(connection)
        assert time.monotonic() - begun < 4
    assert nodes[0].logged("silent for")
    still_replicates(nodes)


def test_slow_and_half_open_connections_are_given_up(cluster: Cluster) -> None:
    """A hello byte by byte and 40 connections that say nothing end after two seconds; the rest goes on."""
    nodes = cluster.start(2)
    idle = [call(nodes[0]) for _ in range(40)]
    begun = time.monotonic()
    with call(nodes[0]) as slow:
        for byte in MAGIC + frame(encode_message(stranger_hello())):
            try:
                slow.sendall(bytes([byte]))
            except OSError:
                break
            nodes[0].store.put("meanwhile", byte, "x")
            time.sleep(0.1)
    assert 1.5 < time.monotonic() - begun < 5
    await_equal(nodes)
    for connection in idle:
        with connection:
            read_to_end(connection)
    assert time.monotonic() - begun < 5
    assert len(nodes[0].logged("WARNING", "did not finish its handshake in time")) == 1
    still_replicates(nodes)


def test_a_flood_of_connections_keeps_nobody_out_for_long(cluster: Cluster) -> None:
    """Of 100 connections that say nothing some are turned away at once, and a new node still joins."""
    nodes = cluster.start(2)
    with contextlib.ExitStack() as stack:
        flood = [stack.enter_context(call(nodes[0])) for _ in range(100)]
        taken = sum(is_greeted(connection) for connection in flood)
        assert 10 < taken < 90
        third = cluster.add(seeds=[nodes[0]])
        third.start()
        await_linked([*nodes, third])
    still_replicates(nodes)


def test_a_second_spelling_of_an_address_makes_no_second_link(cluster: Cluster) -> None:
    """A seed given as localhost is the member it turns out to be: one link, which stays."""
    first, second = cluster.add(), cluster.add()
    for node, other in ((first, second), (second, first)):
        node.settings["seeds"] = [other.address.replace("127.0.0.1", "localhost")]
    for node in (first, second):
        node.start()
    await_linked([first, second])
    time.sleep(2)
    for node in (first, second):
        assert len(node.logged("is up")) <= 4, node.log()
        assert set(node.states()) == {first.address, second.address}


def test_an_address_that_echoed_is_dialed_again(cluster: Cluster) -> None:
    """A program that sends a node's own hello back is not the node itself for ever: a member may follow."""
    late = cluster.add()
    host, _, port = late.address.rpartition(":")
    echoed = threading.Event()

    def echo() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(connection.recv(65536))
            echoed.set()
            read_to_end(connection)

    with socket.create_server((host, int(port))) as listener:
        thread = threading.Thread(target=echo)
        thread.start()
        early = cluster.add(seeds=[late])
        early.start()
        thread.join(10)
        assert echoed.is_set()
    late.start()
    await_linked([early, late], 10)


def test_a_taken_port_is_an_error_that_names_it(tmp_path: Path) -> None:
    """A port in use is told by the constructor; the data directory can be opened elsewhere after it."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(ListenError, match=address):
            Canister(tmp_path / "a", listen=address)
    with Canister(tmp_path / "a", listen=f"127.0.0.1:{free_port()}") as store:
        store.put("s", "k", 1)
        assert store.get("s", "k") == 1
        assert [member.state for member in store.members()] == ["self"], "nobody waits for the taken port"


@pytest.mark.parametrize("address", ["0.0.0.0:7400", "192.0.2.1:7400", "example.org:7400", "[::]:7400"])
def test_an_address_off_the_loopback_is_refused(tmp_path: Path, address: str) -> None:
    """Listening or having seeds off the loopback is a ConfigError that names the address."""
    with pytest.raises(ConfigError, match=r"is not on the loopback"):
        Canister(tmp_path / "a", listen=address)
    with pytest.raises(ConfigError, match=r"is not on the loopback"):
        Canister(tmp_path / "a", listen="127.0.0.1:7400", seeds=[address])
    assert not (tmp_path / "a").exists()


def test_plain_tcp_is_allowed_and_warned_of(cluster: Cluster) -> None:
    """With plain_tcp a node may listen everywhere; it is known by what it advertises."""
    first, second = cluster.add(plain_tcp=True), cluster.add(plain_tcp=True)
    for node, other in ((first, second), (second, first)):
        node.settings["advertise"] = node.address
        node.settings["listen"] = "0.0.0.0:" + node.address.rpartition(":")[2]
        node.settings["seeds"] = [other.address]
        node.start()
    await_linked([first, second])
    for node in (first, second):
        assert len(node.logged("WARNING", "plain_tcp is on")) == 1
    still_replicates([first, second])
