"""Who stands as a candidate for the agent goes on standing, whatever keeps it from the lock for a moment."""

import _thread
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
from tests.integration.cluster import eventually

from canister.agent import control, thread
from canister.agent.agent import Agent
from canister.agent.thread import AgentThread
from canister.clock import SystemClock
from canister.config import Config
from canister.errors import ConfigError, StoreError
from canister.store.sqlite import SqliteStore


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    """Return the store of a node."""
    with closing(SqliteStore(tmp_path, Config())) as store:
        yield store


def test_a_moment_without_descriptors(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The candidate tries again, and is the agent once the one that was is gone."""
    monkeypatch.setattr(thread, "_RETRY", 0.001)
    lock = thread._try_lock
    other = lock(store.files.agent_lock)
    assert other is not None
    failed, leads = threading.Event(), threading.Event()

    def try_lock(path: Path) -> int | None:
        if not candidate._settled.is_set() or failed.is_set():
            return lock(path)
        failed.set()
        os.close(other)
        raise StoreError("too many open files")

    monkeypatch.setattr(thread, "_try_lock", try_lock)
    monkeypatch.setattr(AgentThread, "_be_agent", lambda self: leads.set() or self._stopping.wait())
    candidate = AgentThread(store, Config(), SystemClock())
    candidate.start()
    assert leads.wait(10)
    assert failed.is_set()
    candidate.stop()


def test_what_lasts_is_told_once(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As that the directory has been moved away: the candidate tries on, and the log does not grow."""
    monkeypatch.setattr(thread, "_RETRY", 0.001)
    monkeypatch.setattr(AgentThread, "_be_agent", lambda self: self._started())
    candidate = AgentThread(store, Config(), SystemClock())
    candidate.start()
    tries: list[Path] = []

    def try_lock(path: Path) -> int | None:
        tries.append(path)
        raise StoreError("there is no such directory")

    monkeypatch.setattr(thread, "_try_lock", try_lock)
    eventually(lambda: len(tries) > 5)
    candidate.stop()
    assert caplog.text.count("there is no such directory; trying again") == 1


def test_a_lock_that_cannot_be_opened(store: SqliteStore) -> None:
    """To start fails, and says why."""
    store.files.agent_lock.mkdir()
    candidate = AgentThread(store, Config(), SystemClock())
    with pytest.raises(StoreError, match=r"agent\.lock cannot be locked: Is a directory"):
        candidate.start()


def test_the_master_of_uwsgi_is_no_candidate(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """It only forks the workers, in C: no thread of its own may use the store meanwhile. They are."""
    started: list[str] = []
    monkeypatch.setattr(AgentThread, "_run", lambda self: started.append(threading.current_thread().name))
    monkeypatch.setitem(sys.modules, "uwsgi", SimpleNamespace(masterpid=os.getpid))
    candidate = AgentThread(store, Config(), SystemClock())
    candidate.start()
    assert started == []
    candidate.after_fork(child=True)
    candidate.stop()
    assert started == ["canister-agent"]


@pytest.mark.integration
def test_the_main_thread_may_end(tmp_path: Path) -> None:
    """While another thread goes on, so does the agent: it sweeps, moves the log, and does not fail."""
    program = """
import logging, sys, threading, time
from canister import Canister
from canister.agent import log_upkeep
logging.basicConfig(format="%(message)s")
log_upkeep._CHECKPOINT_AT = 50
log_upkeep._LOOK_IDLE = 0.01
canister = Canister(sys.argv[1], clear_interval="1s", interval_jitter="0s")

def work():
    threading.main_thread().join()
    store = canister.engine.store
    for turn in range(60):
        canister.put("s", "k", turn)
    until = time.monotonic() + 20
    while store.pending_pages() >= 50 and time.monotonic() < until:
        time.sleep(0.01)
    print(store.pending_pages() < 50, canister.members()[0].state, canister.engine.sweep(destroyed=False))

threading.Thread(target=work).start()
"""
    command = [sys.executable, "-c", program, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert (done.stdout, done.stderr) == ("True self 0\n", "")


def test_threads_that_are_greenlets(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As gevent and eventlet make them, no agent can run in one: the error says where else."""

    def start_new_thread(*_: object) -> None:
        raise AssertionError("a greenlet would stand still, and all others with it")

    start_new_thread.__module__ = "gevent.thread"
    opened_before = AgentThread(store, Config(), SystemClock())
    monkeypatch.setattr(_thread, "start_new_thread", start_new_thread)
    with pytest.raises(ConfigError, match="`canister node` beside it"):
        AgentThread(store, Config(), SystemClock()).start()
    opened_before.after_fork(child=True)
    assert "`canister node` beside it" in caplog.text
    opened_before.stop()


@pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="only Linux has this policy")
def test_what_waits_for_the_disk_lets_others_run(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads of the agent that move and sync pages put no writer aside; the loop, which sends, may."""
    policies: list[int] = []
    asked = threading.Event()

    async def run(self: Agent, started: Callable[[], None]) -> None:
        started()
        policies.extend([os.sched_getscheduler(0), await self._helpers.run(os.sched_getscheduler, 0)])
        asked.set()

    monkeypatch.setattr(Agent, "run", run)
    candidate = AgentThread(store, Config(), SystemClock())
    candidate.start()
    assert asked.wait(10)
    candidate.stop()
    assert policies[:2] == [os.SCHED_OTHER, os.SCHED_BATCH]


def test_a_question_that_is_open_while_the_agent_stops(
    store: SqliteStore, caplog: pytest.LogCaptureFixture
) -> None:
    """Who waits for an answer is hung up on, and nothing is told as an error."""
    candidate = AgentThread(store, Config(), SystemClock())
    candidate.start()
    with socket.socket(socket.AF_UNIX) as asker:
        asker.settimeout(10)
        asker.connect(str(store.files.control_socket))
        asker.sendall(control.frame(msgspec.msgpack.encode(control.AskHeals())))
        assert asker.recv(4)
        asker.sendall(control.frame(msgspec.msgpack.encode(control.AwaitAcks(1, 2, 60.0))))
        candidate.stop()
        while asker.recv(65536):
            pass
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []
