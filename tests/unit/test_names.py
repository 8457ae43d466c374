"""How hosts' names are looked up."""

import asyncio
import logging
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.integration.cluster import free_port

from canister import Canister
from canister.agent.names import Names

GOOD, MUTE = "good.example", "mute.example"


class NameServer:
    """Knows one name, and does not answer for another until it is told to."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answers = threading.Event()

    def look_up(self, host: str, port: Any, *_: Any, **kinds: Any) -> Any:
        self.asked.append(host)
        if host == MUTE:
            self.answers.wait(60)
            raise socket.gaierror(socket.EAI_AGAIN, "no answer from the name server")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.7", 0))]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[NameServer]:
    """Return the name server of this process."""
    server = NameServer()
    monkeypatch.setattr(socket, "getaddrinfo", server.look_up)
    yield server
    server.answers.set()


async def _give_up(names: Names, host: str) -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(names.addresses(host), 0.05)


def test_an_address_is_not_looked_up(server: NameServer) -> None:
    """It is one already."""
    assert asyncio.run(Names().addresses("::1")) == ["::1"]
    assert server.asked == []


def test_a_name_is_asked_for_once_at_a_time(server: NameServer) -> None:
    """Who has given up and asks again waits for the same answer, which comes only once."""

    async def run() -> None:
        names = Names()
        for _ in range(3):
            await _give_up(names, MUTE)
        assert server.asked == [MUTE]
        server.answers.set()
        for _ in range(2):
            with pytest.raises(OSError, match="no answer"):
                await names.addresses(MUTE)

    asyncio.run(run())
    assert server.asked == [MUTE, MUTE]


def test_an_answer_that_comes_late_is_kept(server: NameServer, caplog: pytest.LogCaptureFixture) -> None:
    """A look-up that takes as long as an attempt to connect is of use; nor is its end an error."""

    async def run() -> None:
        names = Names()
        await _give_up(names, MUTE)
        server.answers.set()
        await asyncio.sleep(0.1)
        with pytest.raises(OSError, match="no answer"):
            await names.addresses(MUTE)
        assert server.asked == [MUTE]

    with caplog.at_level(logging.ERROR, "asyncio"):
        asyncio.run(run())
    assert not caplog.records


def test_one_name_holds_up_no_other_and_nobody_who_stops(server: NameServer) -> None:
    """However many look-ups are without an answer."""

    async def run() -> None:
        names = [Names() for _ in range(40)]
        for each in names:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(each.addresses(MUTE), 0.001)
        assert await names[0].addresses(GOOD) == ["192.0.2.7"]

    begun = time.monotonic()
    asyncio.run(run())
    assert time.monotonic() - begun < 5


def test_an_agent_stops_while_a_name_server_is_silent(server: NameServer, tmp_path: Path) -> None:
    """It has dialed a member several times, whose name is still being looked up."""
    with Canister(
        tmp_path / "node", listen=f"127.0.0.1:{free_port()}", seeds=[f"{MUTE}:7400"], plain_tcp=True
    ) as canister:
        deadline = time.monotonic() + 10
        while not server.asked and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(1)
        begun = time.monotonic()
        canister.close()
        assert time.monotonic() - begun < 2
    assert server.asked.count(MUTE) == 1
