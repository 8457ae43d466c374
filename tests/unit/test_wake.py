"""Waking the agent never fails: what was committed stands."""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from canister.agent import wake
from canister.agent.wake import WakeFlag, Waker
from canister.clock import SystemClock
from canister.config import Config
from canister.node import Node
from canister.testing.contract import writing


@pytest.fixture
def waker(tmp_path: Path) -> Iterator[Waker]:
    """Return what wakes an agent that there is not."""
    with closing(Waker(tmp_path / "wake.sock", tmp_path / "wake.flag")) as waker:
        yield waker


def test_no_descriptor_is_left(waker: Waker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The way to a socket with a long path takes one; the agent looks at the log without being told."""

    @contextmanager
    def fail(_: Path) -> Iterator[str]:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        yield ""

    monkeypatch.setattr(wake, "socket_path", fail)
    waker.wake()
    assert not WakeFlag(tmp_path / "wake.flag").rouse(), "another one tries in vain as well"


def test_closed(waker: Waker, tmp_path: Path) -> None:
    """A thread whose commit ends while another one closes the node wakes nobody."""
    waker.close()
    waker.wake()
    assert WakeFlag(tmp_path / "wake.flag").rouse(), "the agent is still asleep"


def test_the_store_is_closed_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Closing waits for the last writer, who still wakes the agent."""
    node = Node(tmp_path, Config(), SystemClock(), may_run_agent=False)
    told: list[str] = []

    def note(name: str, act: Callable[[], None]) -> Callable[[], None]:
        return lambda: told.append(name) or act()

    assert node._waker is not None
    monkeypatch.setattr(node.store, "close", note("store", node.store.close))
    monkeypatch.setattr(node._waker, "close", note("waker", node._waker.close))
    node.commit([(b"s", writing({"k": b"1"}))])
    node.close()
    assert told == ["store", "waker"]
