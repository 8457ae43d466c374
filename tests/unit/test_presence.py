"""Whether a node has an agent: noticed soon, and asked for rarely."""

import fcntl
import os
from pathlib import Path

import pytest

from canister.agent import presence
from canister.agent.presence import AgentPresence
from canister.errors import StoreError


def test_an_agent_that_comes_and_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is there as long as its lock is held, and is believed to be for a moment longer."""
    now = 100.0
    monkeypatch.setattr(presence.time, "monotonic", lambda: now)
    lock = tmp_path / "agent.lock"
    found = AgentPresence(lock)
    assert not found.is_there()
    with lock.open("w") as file:
        assert not found.is_there()
        fcntl.flock(file, fcntl.LOCK_EX)
        assert found.is_there()
    assert found.is_there()
    now += 1
    assert not found.is_there()
    with lock.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the look has left nothing locked


def test_it_is_not_looked_for_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unknown id costs no system call while the agent is there."""
    looks: list[Path] = []
    is_open = os.open

    def counted(path: Path, flags: int) -> int:
        looks.append(path)
        return is_open(path, flags)

    monkeypatch.setattr(presence.os, "open", counted)
    with (tmp_path / "agent.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        found = AgentPresence(tmp_path / "agent.lock")
        assert all(found.is_there() for _ in range(100))
    assert len(looks) < 10


def test_what_cannot_be_found_out_is_an_error(tmp_path: Path) -> None:
    """It is no answer that there is none."""
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"agent\.lock cannot be opened: Not a directory"):
        AgentPresence(tmp_path / "file" / "agent.lock").is_there()
