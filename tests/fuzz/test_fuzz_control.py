"""Garbage on the agent's control socket: it ends that connection and nothing else."""

import logging
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from random import Random

import msgspec
import pytest
from tests.fuzz.hostile import nested

from canister import Canister
from canister.agent.control import request_decoder
from canister.agent.sockets import socket_path

encode = msgspec.msgpack.encode


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Canister]:
    with Canister(tmp_path / "node") as store:
        store.put("s", "k", 1)
        yield store


def say(store: Canister, data: bytes) -> bytes:
    """Say something on a connection of its own; return all that comes until the agent hangs up."""
    with socket_path(store.node.store.files.control_socket) as name, socket.socket(socket.AF_UNIX) as channel:
        channel.settimeout(5)
        channel.connect(name)
        channel.sendall(data)
        channel.shutdown(socket.SHUT_WR)
        parts: list[bytes] = []
        try:
            while part := channel.recv(65536):
                parts.append(part)
        except ConnectionResetError:
            pass  # it hung up with some of the garbage unread
        return b"".join(parts)


def frame(payload: bytes) -> bytes:
    return struct.pack(">I", len(payload)) + payload


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\xff\xff\xff\xff" + b"x" * 1000,
        struct.pack(">I", 33 * 1024 * 1024) + b"x" * 1000,
        frame(b""),
        frame(b"\xc1"),
        frame(nested(100_000)),
        frame(encode({"type": "AskStatus"})),
        frame(encode({"type": "AskStatus", "at": "now"})),
        frame(encode({"type": "AskStatus", "at": 2**64 - 1})),
        frame(encode({"type": "AskStatus", "at": -(2**63)}) + b"x"),
        frame(encode({"type": "Exec", "command": "rm"})),
        frame(b"\x82\xa4type\xa9AskStatus\xa1x" + nested(100_000)),
        frame(b"\x82\xa4type\xad\xffemoveMember\xa7address\xa1\xff"),
        frame(encode({"type": "Forget", "session": [1]})),
        frame(encode({"type": "FetchSession", "session": b"ss", "timeout": "long"})),
    ],
    ids=range(17),
)
def test_garbage_ends_its_own_connection(
    store: Canister, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """The agent hangs up without an answer; it goes on answering others and logs no traceback."""
    with caplog.at_level(logging.INFO):
        assert say(store, data) == b""
        assert store.members()[0].state == "self"
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING], caplog.text


def test_a_request_that_claims_too_much_is_not_waited_for(store: Canister) -> None:
    """The agent hangs up when it has read the length, though more could still come."""
    with socket_path(store.node.store.files.control_socket) as name, socket.socket(socket.AF_UNIX) as channel:
        channel.settimeout(5)
        channel.connect(name)
        channel.sendall(struct.pack(">I", 33 * 1024 * 1024))
        assert channel.recv(1) == b""


def test_bent_requests_do_no_harm(store: Canister, caplog: pytest.LogCaptureFixture) -> None:
    """Requests with changed bytes: an answer or none; the session that was put stays."""
    random = Random(7)
    good = [encode({"type": "AskStatus", "at": 1}), encode({"type": "Resync", "sessions": [b"ss"]})]
    taken = 0
    for _ in range(300):
        data = bytearray(random.choice(good))
        for _ in range(random.randint(1, 2)):
            data[-random.randint(1, random.choice((4, len(data))))] = random.randrange(256)
        try:
            request_decoder.decode(bytes(data))
            taken += 1
        except (ValueError, RecursionError):
            pass
        say(store, frame(bytes(data)))
    assert 5 < taken < 295
    assert store.get_data("s") == {"k": 1}
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING], caplog.text
