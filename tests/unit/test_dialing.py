"""How a member that does not answer is dialed."""

import asyncio
from typing import Any
from unittest.mock import Mock

import pytest

from canister.agent import mesh


class Network:
    """Attempts to connect, each of which is answered when the test says so."""

    def __init__(self) -> None:
        self.attempts: list[asyncio.Future[Any]] = []
        self.begun = asyncio.Event()
        self.given_up: list[bool] = []

    async def open(self, host: str, port: int, *, limit: int) -> Any:
        self.attempts.append(asyncio.get_running_loop().create_future())
        self.begun.set()
        return await self.attempts[-1]

    async def until(self, count: int) -> None:
        while len(self.attempts) < count:
            self.begun.clear()
            await self.begun.wait()


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Network:
    """Return a network on which one attempt follows the other soon."""
    network = Network()
    monkeypatch.setattr(mesh, "_AGAIN", 0.001)
    monkeypatch.setattr(mesh.asyncio, "open_connection", network.open)
    return network


def dial(network: Network, act: Any) -> Any:
    """Connect while *act* answers the attempts; return what came of it."""

    async def run() -> Any:
        dialing = asyncio.create_task(mesh._connect(["192.0.2.1"], 7400))
        await network.until(3)
        act(network.attempts)
        try:
            return await asyncio.wait_for(dialing, 5)
        finally:
            await asyncio.sleep(0)  # what was given up ends
            await asyncio.sleep(0)
            network.given_up = [attempt.cancelled() for attempt in network.attempts]

    return asyncio.run(run())


def test_whichever_attempt_is_answered_first_is_taken(network: Network) -> None:
    """One whose packet was lost is not waited for, and ends."""
    streams = (Mock(), Mock())
    assert dial(network, lambda attempts: attempts[1].set_result(streams)) == streams
    assert network.given_up == [True, False, True]
    streams[1].transport.abort.assert_not_called()


def test_a_second_answer_is_closed(network: Network) -> None:
    """Two that are answered at once leave no connection behind that nobody reads from."""
    answers = [(Mock(), Mock()), (Mock(), Mock())]

    def act(attempts: list[asyncio.Future[Any]]) -> None:
        attempts[0].set_result(answers[0])
        attempts[1].set_result(answers[1])

    taken = dial(network, act)
    (other,) = [streams for streams in answers if streams is not taken]
    other[1].transport.abort.assert_called_once()
    taken[1].transport.abort.assert_not_called()


def test_who_refuses_is_believed(network: Network) -> None:
    """And not asked again at once: the dialer pauses."""
    with pytest.raises(ConnectionRefusedError):
        dial(network, lambda attempts: attempts[2].set_exception(ConnectionRefusedError()))
    assert network.given_up == [True, True, False]
