"""Whether a node has an agent: noticed soon, asked for rarely, and without being in anybody's way."""

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.integration.cluster import eventually

from canister import Canister
from canister.agent import presence, thread
from canister.agent.agent import Agent
from canister.agent.presence import AgentPresence, announce, withdraw
from canister.errors import StoreError


def test_an_agent_that_comes_and_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is there from its word on, and is believed to be for a moment after it is gone."""
    now = 100.0
    monkeypatch.setattr(presence.time, "monotonic", lambda: now)
    lock = tmp_path / "agent.lock"
    found = AgentPresence(lock)
    assert not found.is_there()
    for ends in (withdraw, os.close):
        file = os.open(lock, os.O_RDWR | os.O_CREAT)
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert not found.is_there()  # it has still to tell whom it has not heard of
        announce(file)
        assert found.is_there()
        ends(file)
        assert found.is_there()
        now += 1
        assert not found.is_there()
        if ends is withdraw:
            os.close(file)


def test_a_look_takes_nothing(tmp_path: Path) -> None:
    """Whoever would be the agent finds the lock free, even if a child was forked amid a look."""
    lock = tmp_path / "agent.lock"
    kept = [os.open(lock, os.O_RDWR | os.O_CREAT)]
    close = os.close
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(presence.os, "close", kept.append)
        assert not AgentPresence(lock).is_there()
    fcntl.flock(kept[0], fcntl.LOCK_EX | fcntl.LOCK_NB)
    announce(kept[0])
    for file in kept:
        close(file)
    assert len(kept) == 2


def test_it_is_not_looked_for_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unknown id costs no system call while the agent is there."""
    file = os.open(tmp_path / "agent.lock", os.O_RDWR | os.O_CREAT)
    announce(file)
    looks: list[Path] = []
    is_open = os.open

    def counted(path: Path, flags: int) -> int:
        looks.append(path)
        return is_open(path, flags)

    monkeypatch.setattr(presence.os, "open", counted)
    found = AgentPresence(tmp_path / "agent.lock")
    assert all(found.is_there() for _ in range(100))
    assert len(looks) < 10
    os.close(file)


def test_an_agent_that_fails_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither before it has begun nor between two attempts."""
    with Canister(tmp_path) as canister:
        lock = canister.node.store.files.agent_lock
        assert AgentPresence(lock).is_there()
        with Canister(tmp_path, agent=False):
            assert AgentPresence(lock).is_there()
    assert not AgentPresence(lock).is_there()

    async def fail(agent: Agent, started: object) -> None:
        found.append(AgentPresence(lock).is_there())
        raise StoreError("the disk is full")

    found: list[bool] = []
    monkeypatch.setattr(Agent, "run", fail)
    with pytest.raises(StoreError, match="the disk is full"):
        Canister(tmp_path)
    assert found == [False]

    async def begin_and_fail(agent: Agent, started: Callable[[], None]) -> None:
        started()
        found.append(AgentPresence(lock).is_there())
        raise StoreError("the disk is full")

    monkeypatch.setattr(Agent, "run", begin_and_fail)
    monkeypatch.setattr(thread, "_RETRY", 10.0)
    with Canister(tmp_path):
        eventually(lambda: not AgentPresence(lock).is_there(), 5)
    assert found == [False, True]


def test_what_cannot_be_found_out_is_an_error(tmp_path: Path) -> None:
    """It is no answer that there is none."""
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"agent\.lock cannot be opened: Not a directory"):
        AgentPresence(tmp_path / "file" / "agent.lock").is_there()


def test_where_it_cannot_be_seen_it_is_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other systems than Linux have no such locks, and are as they would be without the look."""
    monkeypatch.setattr(presence, "_CAN_LOOK", False)
    file = os.open(tmp_path / "agent.lock", os.O_RDWR | os.O_CREAT)
    announce(file)
    assert AgentPresence(tmp_path / "agent.lock").is_there()
    os.close(file)
