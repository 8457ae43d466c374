"""Links with mutual TLS: who is let in, who is not and how that is told, and certificates that change."""

import contextlib
import hashlib
import os
import socket
import ssl
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

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
from tests.integration.test_cluster_links import MAGIC, call, frame, messages, read_to_end, stranger_hello

from canister import certs
from canister.replication.messages import MemberList, Refused, encode_message

pytestmark = pytest.mark.integration


class Authority:
    """An authority and the certificates it makes."""

    def __init__(self, directory: Path, name: str, cluster: str = "canister") -> None:
        self.file = certs.make_authority(directory / name, cluster)
        self._directory = directory
        self._name = name
        self._count = 0

    def node(self, host: str = "127.0.0.1", days: int = 365) -> Path:
        """Return a directory with a new certificate."""
        self._count += 1
        out = self._directory / f"{self._name}-{self._count}"
        certs.issue(self.file.parent, [host], out, days)
        (out / "ca.crt").write_bytes(self.file.read_bytes())  # it may be a bundle by now
        return out


def settings(directory: Path) -> dict[str, Any]:
    files = {"tls_ca": "ca.crt", "tls_cert": "node.crt", "tls_key": "node.key"}
    return {name: str(directory / file) for name, file in files.items()}


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "ca")


@contextmanager
def running(
    cluster: Cluster, authority: Authority, seeds: list[str] | None = None, **more: Any
) -> Iterator[Node]:
    """Run one node with a certificate."""
    node = cluster.add(**settings(authority.node()), **more)
    node.settings["seeds"] = seeds or []
    node.start()
    yield node


def started(cluster: Cluster, authority: Authority, count: int = 2) -> list[Node]:
    """Return linked nodes, each with its own certificate."""
    nodes: list[Node] = []
    for _ in range(count):
        node = cluster.add(seeds=nodes[:1], **settings(authority.node()))
        node.start()
        nodes.append(node)
    await_linked(nodes)
    return nodes


def refused(node: Node) -> dict[str, int]:
    return node.status().refused


def context_of(files: Path | None, protocol: int = ssl.PROTOCOL_TLS_CLIENT) -> ssl.SSLContext:
    """Return a context that trusts everybody and shows a certificate."""
    context = ssl.SSLContext(protocol)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if files is not None:
        context.load_cert_chain(files / "node.crt", files / "node.key")
    return context


def presented(node: Node, files: Path) -> str:
    """Return the fingerprint of the certificate that a node shows."""
    with context_of(files).wrap_socket(call(node)) as connection:
        return hashlib.sha256(connection.getpeercert(binary_form=True) or b"").hexdigest()


def fingerprint(files: Path) -> str:
    return certs.show(files / "node.crt")[0].fingerprint


def made_with(wrong: str, authority: Authority, directory: Path, patch: pytest.MonkeyPatch) -> Path | None:
    """Return a certificate that a node must refuse."""
    if wrong == "no certificate":
        return None
    if wrong == "wrong CA":
        return Authority(directory, "strange").node()
    if wrong == "wrong cluster":  # of an authority that is trusted
        other = Authority(directory, "other", "another")
        with authority.file.open("ab") as bundle:
            bundle.write(other.file.read_bytes())
        return other.node()
    with patch.context() as changed:
        if wrong == "expired":
            changed.setattr(certs, "_BEFORE", timedelta(days=10))
            return authority.node(days=-1)
        if wrong == "not yet valid":
            changed.setattr(certs, "_BEFORE", timedelta(days=-1))
            return authority.node(days=10)
    return authority.node("192.0.2.9")


def say_hello(node: Node, context: ssl.SSLContext) -> bytes:
    """Call a node, say a hello and return all that it says."""
    answer = b""
    with contextlib.suppress(OSError), context.wrap_socket(call(node)) as connection:
        connection.sendall(MAGIC + frame(encode_message(stranger_hello())))
        while part := connection.recv(65536):
            answer += part
    return answer


def test_nodes_replicate_over_tls(cluster: Cluster, authority: Authority) -> None:
    """Three nodes, found from one seed, exchange live commits, old sessions and large ones."""
    nodes = started(cluster, authority, 2)
    nodes[0].store.put("early", "k", "x" * 200_000)
    late = cluster.add(seeds=nodes[:1], **settings(authority.node()))
    late.start()
    nodes.append(late)
    await_linked(nodes)
    for number in range(20):
        for node in nodes:
            node.store.put(f"s{number}", node.name, os.urandom(20_000))
    await_equal(nodes)
    assert late.store.get_data("early", local=True) == {"k": "x" * 200_000}
    for node in nodes:
        assert not refused(node)
        assert not node.logged("WARNING")


def test_tls_is_version_1_3(cluster: Cluster, authority: Authority) -> None:
    """TLS 1.2 is refused; and no session can be taken up again, which nobody would verify."""
    files = authority.node()
    with running(cluster, authority) as node:
        context = context_of(files)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        assert say_hello(node, context) == b""
        with context_of(files).wrap_socket(call(node)) as connection:
            assert connection.version() == "TLSv1.3"
            assert connection.recv(65536).startswith(MAGIC)
            assert connection.session is None or not connection.session.has_ticket
        assert refused(node) == {"no TLS": 1}
        assert len(node.logged("WARNING", "unsupported protocol")) == 1


KINDS = ["no certificate", "wrong CA", "expired", "not yet valid", "wrong cluster"]


@pytest.mark.parametrize("wrong", KINDS)
def test_a_caller_that_is_no_member_is_refused(
    cluster: Cluster, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    """It learns nothing, not even the members; the reason is logged once and counted each time."""
    context = context_of(made_with(wrong, authority, tmp_path, monkeypatch))
    with running(cluster, authority) as node:
        for _ in range(3):
            answer = say_hello(node, context)
            if wrong == "wrong cluster":
                assert [type(message) for message in messages(answer)] == [Refused]
            else:
                assert answer == b""
        assert eventually(lambda: refused(node)) == {wrong: 3}
        (line,) = node.logged("WARNING")
        assert "127.0.0.1: " in line
        assert (wrong if wrong != "wrong cluster" else "for canister:another") in line
        assert set(node.states()) == {node.address}


@pytest.mark.parametrize("wrong", KINDS[1:])
def test_a_seed_that_is_no_member_is_refused(
    cluster: Cluster, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    """Whoever listens at a member's address gets no hello before its certificate is believed."""
    files = made_with(wrong, authority, tmp_path, monkeypatch)
    context = context_of(files, ssl.PROTOCOL_TLS_SERVER)
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def listen() -> None:
            for _ in range(3):
                connection, _ = listener.accept()
                with contextlib.suppress(OSError), context.wrap_socket(connection, server_side=True) as tls:
                    heard.append(read_to_end(tls))

        thread = threading.Thread(target=listen)
        thread.start()
        seed = f"127.0.0.1:{listener.getsockname()[1]}"
        with running(cluster, authority, [seed]) as node:
            thread.join(20)
            assert eventually(lambda: refused(node).get(wrong, 0) >= 3)
            assert len(node.logged("WARNING", f"{seed}: ", "certificate")) == 1
    for data in filter(None, heard):
        assert [type(message) for message in messages(data)] == [Refused]


def test_a_stranger_with_a_members_authority_states_no_other_address(
    cluster: Cluster, authority: Authority
) -> None:
    """A hello whose address is not in the certificate is refused; one whose address is in it is not."""
    with running(cluster, authority) as node:
        answer = messages(say_hello(node, context_of(authority.node("192.0.2.9"))))
        assert isinstance(answer[-1], Refused)
        assert "the certificate is for 192.0.2.9, not for 127.0.0.1" in answer[-1].reason
        assert refused(node) == {"wrong address": 1}
        assert len(node.logged("WARNING", "the certificate is for 192.0.2.9")) == 1
        with context_of(authority.node()).wrap_socket(call(node)) as connection:
            connection.sendall(
                MAGIC + frame(encode_message(stranger_hello())) + frame(encode_message(MemberList([])))
            )
            eventually(lambda: node.logged("127.0.0.1:9", "is up"))


@pytest.mark.parametrize("caller", ["plain", "tls"])
def test_plain_tcp_and_tls_do_not_mix(cluster: Cluster, authority: Authority, caller: str) -> None:
    """A node with TLS and one without tell why there is no link, whoever calls; nothing flows."""
    tls, plain = cluster.add(**settings(authority.node())), cluster.add()
    calls, called = (plain, tls) if caller == "plain" else (tls, plain)
    calls.settings["seeds"] = [called.address]
    plain.start().do("put", id="secret", key="k", value="v")
    tls.start()
    eventually(lambda: refused(tls).get("plain TCP", 0) >= 2)
    assert set(refused(tls)) == {"plain TCP"}
    assert len(tls.logged("WARNING")) == len(tls.logged("WARNING", "it speaks plain TCP, this node TLS")) == 1
    said = "it takes links with TLS only" if caller == "plain" else "it speaks TLS, this node plain TCP"
    assert len(eventually(lambda: plain.logged("WARNING", said))) == 1
    assert set(refused(plain)) == {"by the peer" if caller == "plain" else "TLS"}
    assert not tls.store.get_data("secret", local=True)
    for node in (tls, plain):
        assert set(node.states()) == {node.address}


def test_two_real_nodes_with_different_authorities(
    cluster: Cluster, authority: Authority, tmp_path: Path
) -> None:
    """Both say once what is wrong, and one of them that it is its own certificate which is refused."""
    one = cluster.add(**settings(authority.node()))
    other = cluster.add(seeds=[one], **settings(Authority(tmp_path, "strange").node()))
    one.start()
    other.start()
    eventually(lambda: refused(other).get("wrong CA", 0) >= 2)
    eventually(lambda: refused(one).get("by the peer", 0) >= 2)
    assert len(other.logged("WARNING")) == len(other.logged("WARNING", f"{one.address}: ", "wrong CA")) == 1
    assert len(one.logged("WARNING")) == len(one.logged("WARNING", "127.0.0.1: it refuses this node")) == 1


def test_connections_that_say_nothing_are_given_up(cluster: Cluster, authority: Authority) -> None:
    """A caller that stops in the middle of TLS is given up after two seconds."""
    with running(cluster, authority) as node:
        with call(node) as silent, call(node) as slow:
            slow.sendall(b"\x16\x03\x01\x02\x00")
            assert read_to_end(silent) == read_to_end(slow) == b""
        assert len(node.logged("WARNING", "did not finish its handshake in time")) == 1


# Certificates that change.


def put_in_place(fresh: Path, node: Node) -> None:
    """Replace a node's key and then its certificate."""
    for name in ("tls_key", "tls_cert"):
        place = Path(node.settings[name])
        os.replace(fresh / place.name, place)


def replace_ca(content: bytes, nodes: list[Node]) -> None:
    """Replace the authorities that nodes know, and wait until they do."""
    for node in nodes:
        place = Path(node.settings["tls_ca"])
        count = len(node.logged("links use"))
        place.with_suffix(".new").write_bytes(content)
        os.replace(place.with_suffix(".new"), place)
        eventually(lambda node=node, count=count: len(node.logged("links use")) > count)


def relinked(nodes: list[Node]) -> None:
    """Cut every link, so that all are made anew."""
    for node in nodes:
        node.store.node.isolate(on=True)
    for node in nodes:
        node.store.node.isolate(on=False)
    await_linked(nodes)


def renewed(nodes: list[Node], authority: Authority) -> None:
    """Give each node a new certificate, one after the other, and see that it uses it."""
    for node in nodes:
        fresh = authority.node()
        wanted = fingerprint(fresh)
        put_in_place(fresh, node)
        asker = authority.node()
        eventually(lambda node=node, wanted=wanted, asker=asker: presented(node, asker) == wanted)


@contextmanager
def load(nodes: list[Node], directory: Path) -> Iterator[None]:
    """Put on all nodes without pause; afterwards check that every put is on every node."""
    notes = [directory / f"notes-{node.name}" for node in nodes]
    for node, file in zip(nodes, notes, strict=True):
        node.process.do("load", name=node.name, notes=str(file), sessions=10, pause=0.005)
    yield
    for node in nodes:
        assert node.process.do("stop_load") == []
    await_equal(nodes)
    assert count_notes(*notes) > 100
    for node in nodes:
        assert not missing(node, read_notes(*notes))


def test_certificates_are_renewed_while_puts_go_on(
    cluster: Cluster, authority: Authority, tmp_path: Path
) -> None:
    """Links stay when the files change, new links use the new files, and nothing is lost."""
    nodes = started(cluster, authority, 3)
    closed = [node.logged("link ", "closed") for node in nodes]  # crossing links, if any
    with load(nodes, tmp_path):
        renewed(nodes, authority)
        assert [node.logged("link ", "closed") for node in nodes] == closed
        relinked(nodes)
    assert not any(refused(node) for node in nodes)


def test_the_authority_is_replaced_while_puts_go_on(
    cluster: Cluster, authority: Authority, tmp_path: Path
) -> None:
    """Both authorities, new certificates, the new authority alone: then the old one's are refused."""
    nodes = started(cluster, authority, 3)
    new = Authority(tmp_path, "new")
    old_files = authority.node()
    with load(nodes, tmp_path):
        replace_ca(authority.file.read_bytes() + new.file.read_bytes(), nodes)
        relinked(nodes)
        renewed(nodes[:1], new)
        relinked(nodes)  # a node of the new authority with nodes of the old one
        renewed(nodes[1:], new)
        replace_ca(new.file.read_bytes(), nodes)
        relinked(nodes)
    assert not any(refused(node) for node in nodes)
    assert say_hello(nodes[0], context_of(old_files)) == b""
    assert eventually(lambda: refused(nodes[0])) == {"wrong CA": 1}


def test_new_files_that_do_not_fit_change_nothing(cluster: Cluster, authority: Authority) -> None:
    """A key without its certificate is told once; links go on to be made with the files read before."""
    nodes = started(cluster, authority)
    before = fingerprint(Path(nodes[0].settings["tls_cert"]).parent)
    os.replace(authority.node() / "node.key", nodes[0].settings["tls_key"])
    eventually(lambda: nodes[0].logged("ERROR", "stay in use"))
    relinked(nodes)
    assert presented(nodes[0], authority.node()) == before
    assert len(nodes[0].logged("ERROR")) == 1


# What others can read.


class Tap:
    """Carries connections to an address and keeps what it carries."""

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.carried = bytearray()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(self._target)
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=self._carry, args=(one, other), daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError), source:
            while data := source.recv(65536):
                self.carried += data
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize("secure", [True, False])
def test_the_wire_shows_nothing(cluster: Cluster, authority: Authority, secure: bool) -> None:
    """With TLS neither values nor ids nor members can be read; without, all of them."""
    given = (lambda: settings(authority.node())) if secure else dict
    one = cluster.add(**given())
    tap = Tap(one.address)
    with contextlib.closing(tap):
        other = cluster.add(**given())
        other.settings["seeds"] = [tap.address]
        one.start()
        other.start()
        await_linked([one, other])
        other.store.put("the session", "k", "the value")
        await_equal([one, other])
        for word in (b"the session", b"the value", one.address.encode()):
            assert (word in tap.carried) is not secure
        assert len(tap.carried) > 500


def test_the_control_socket_is_the_users_alone(cluster: Cluster, authority: Authority) -> None:
    """Whoever can talk to the agent can do anything: its sockets and directory are for one user."""
    with running(cluster, authority) as node:
        assert stat.S_IMODE(node.path.stat().st_mode) == 0o700
        for name in ("agent.sock", "wake.sock"):
            assert stat.S_IMODE((node.path / name).stat().st_mode) == 0o600
