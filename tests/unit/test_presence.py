"""Whether a node has an agent: noticed soon, asked for rarely, and without being in anybody's way."""

import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.integration.cluster import eventually

from canister import Canister
from canister.agent import presence, thread
from canister.agent.agent import Agent
from canister.agent.presence import AgentPresence, announce, stay, withdraw
from canister.errors import StoreError

PATIENCE = 8.0


def looking(lock: Path) -> AgentPresence:
    """Return what looks for the agent of a lock."""
    return AgentPresence(lock, PATIENCE)


def test_an_agent_that_comes_and_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is there from its word on, and is believed to be for a moment after it is gone."""
    now = 100.0
    monkeypatch.setattr(presence.time, "monotonic", lambda: now)
    lock = tmp_path / "agent.lock"
    found = looking(lock)
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


def test_an_agent_that_hangs(tmp_path: Path) -> None:
    """Its lock is held, but it shows no life: it is not there until it does again."""
    lock = tmp_path / "agent.lock"
    file = os.open(lock, os.O_RDWR | os.O_CREAT)
    os.utime(lock, (0, 0))
    announce(file)
    assert looking(lock).is_there(), "it has just begun"
    for quiet, is_there in ((PATIENCE - 1, True), (PATIENCE + 1, False)):
        then = time.time() - quiet
        os.utime(lock, (then, then))
        assert looking(lock).is_there() is is_there
    stay(lock)
    assert looking(lock).is_there()
    then = time.time() - 1
    os.utime(lock, (then, then))
    assert AgentPresence(lock, 0.1).is_there(), "on a busy machine a second is nothing"
    os.close(file)
    lock.unlink()
    with pytest.raises(StoreError, match=r"agent\.lock cannot be touched: No such file"):
        stay(lock)


def test_a_look_takes_nothing(tmp_path: Path) -> None:
    """Whoever would be the agent finds the lock free, even if a child was forked amid a look."""
    lock = tmp_path / "agent.lock"
    kept = [os.open(lock, os.O_RDWR | os.O_CREAT)]
    close = os.close
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(presence.os, "close", kept.append)
        assert not looking(lock).is_there()
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
    found = looking(tmp_path / "agent.lock")
    assert all(found.is_there() for _ in range(100))
    assert len(looks) < 10
    os.close(file)


def test_an_agent_that_fails_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither before it has begun nor between two attempts."""
    with Canister(tmp_path) as canister:
        lock = canister.node.store.files.agent_lock
        assert looking(lock).is_there()
        with Canister(tmp_path, agent=False):
            assert looking(lock).is_there()
    assert not looking(lock).is_there()

    async def fail(agent: Agent, started: object) -> None:
        found.append(looking(lock).is_there())
        raise StoreError("the disk is full")

    found: list[bool] = []
    monkeypatch.setattr(Agent, "run", fail)
    with pytest.raises(StoreError, match="the disk is full"):
        Canister(tmp_path)
    assert found == [False]

    async def begin_and_fail(agent: Agent, started: Callable[[], None]) -> None:
        started()
        found.append(looking(lock).is_there())
        raise StoreError("the disk is full")

    monkeypatch.setattr(Agent, "run", begin_and_fail)
    monkeypatch.setattr(thread, "_RETRY", 10.0)
    with Canister(tmp_path):
        eventually(lambda: not looking(lock).is_there(), 5)
    assert found == [False, True]


def test_what_cannot_be_found_out_is_an_error(tmp_path: Path) -> None:
    """It is no answer that there is none."""
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"agent\.lock cannot be opened: Not a directory"):
        looking(tmp_path / "file" / "agent.lock").is_there()


def test_where_it_cannot_be_seen_it_is_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other systems than Linux have no such locks, and are as they would be without the look."""
    monkeypatch.setattr(presence, "_CAN_LOOK", False)
    file = os.open(tmp_path / "agent.lock", os.O_RDWR | os.O_CREAT)
    announce(file)
    assert looking(tmp_path / "agent.lock").is_there()
    os.close(file)
