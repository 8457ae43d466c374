"""A connection to a server, over a pair of sockets: what is sent and received, and when it waits."""

import asyncio
import socket
import time
from collections.abc import Iterator

import pytest
from redis.exceptions import ConnectionError, MovedError, NoScriptError, ReadOnlyError, TimeoutError

from canister.store.redis import wire
from canister.store.redis.deadline import Deadline
from canister.store.redis.waiting import beside
from canister.store.redis.wire import Link


@pytest.fixture
def pair() -> Iterator[tuple[Link, socket.socket]]:
    one, other = socket.socketpair()
    one.setblocking(False)
    with one, other:
        yield Link(one), other


def test_commands_and_replies(pair: tuple[Link, socket.socket]) -> None:
    """Commands go out together, replies are bytes, and errors are replies of their kind."""
    link, server = pair
    server.send(b"$2\r\n\xff\x00\r\n*2\r\n:1\r\n$-1\r\n-MOVED 5 h:1\r\n-NOSCRIPT x\r\n-READONLY y\r\n")
    sent = [(b"GET", "k", 1)] + [(b"PING",)] * 4
    first, second, *errors = link.exchange(sent, Deadline(30))
    assert (first, second) == (b"\xff\x00", [1, None])
    assert [type(error) for error in errors] == [MovedError, NoScriptError, ReadOnlyError]
    assert server.recv(1000) == b"*3\r\n$3\r\nGET\r\n$1\r\nk\r\n$1\r\n1\r\n" + b"*1\r\n$4\r\nPING\r\n" * 4


def test_what_is_no_answer(pair: tuple[Link, socket.socket]) -> None:
    """Silence, a server that is loading or does not know us, and the end of the connection raise."""
    link, server = pair
    with pytest.raises(TimeoutError, match="no answer in time"):
        link.exchange([(b"PING",)], Deadline(0))
    for text in (b"-LOADING x\r\n", b"-NOAUTH x\r\n"):
        server.send(text)
        with pytest.raises(ConnectionError, match="x"):
            link.exchange([(b"PING",)], Deadline(30))
    server.shutdown(socket.SHUT_WR)
    with pytest.raises(ConnectionError, match="closed the connection"):
        link.exchange([(b"PING",)], Deadline(30))


def test_bytes_that_keep_coming_do_not_prolong_the_time(
    pair: tuple[Link, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is always something to read, and never a whole answer."""
    link, server = pair
    server.send(b"$1000000\r\n")
    end = time.monotonic() + 10

    def is_ready(file: int, **_: object) -> bool:
        assert time.monotonic() < end
        server.send(b"x")
        return True

    monkeypatch.setattr(wire, "is_ready", is_ready)
    with pytest.raises(TimeoutError, match="no answer in time"):
        link.exchange([(b"PING",)], Deadline(0.05))


def test_a_loop_gets_its_turn_even_if_the_answer_is_there(pair: tuple[Link, socket.socket]) -> None:
    """Calls that are always answered at once do not keep the event loop to themselves."""
    link, server = pair

    async def main() -> None:
        turns: list[int] = []
        asyncio.get_running_loop().call_soon(turns.append, 1)
        server.send(b"+PONG\r\n")
        assert await beside(lambda: link.exchange([(b"PING",)], Deadline(30))) == [b"PONG"]
        assert turns

    asyncio.run(main())


def test_more_than_a_socket_takes_at_once(pair: tuple[Link, socket.socket]) -> None:
    """A large command goes out as the server reads it."""
    link, server = pair
    server.setblocking(False)
    text = b"x" * 3_000_000

    async def read() -> None:
        loop, left = asyncio.get_running_loop(), len(text)
        while left > 0:
            left -= len(await loop.sock_recv(server, 65_536))
        await loop.sock_sendall(server, b"+OK\r\n")

    async def main() -> None:
        replies, _ = await asyncio.gather(beside(lambda: link.exchange([(text,)], Deadline(30))), read())
        assert replies == [b"OK"]

    asyncio.run(main())
