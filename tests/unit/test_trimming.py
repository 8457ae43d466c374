"""The log is dropped little by little, however fast it grows."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import pytest
from tests.integration.cluster import eventually

from canister.agent import agent
from canister.agent.thread import AgentThread
from canister.clock import SECOND, SystemClock
from canister.config import Config
from canister.replication import live
from canister.replication.live import LiveFlow
from canister.store import rows
from canister.store.sqlite import SqliteStore
from canister.testing.clock import ManualClock
from canister.testing.contract import put


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SqliteStore]:
    """Return a store that drops two entries of its log at once."""
    monkeypatch.setattr(rows, "_TRIMMED", 2)
    with closing(SqliteStore(tmp_path, Config())) as store:
        yield store


def logged(store: SqliteStore) -> int:
    """Return how many entries the log has."""
    with store.snapshot() as snapshot:
        return len(snapshot.log(0))


def test_a_log_that_grows_faster_than_it_is_trimmed(store: SqliteStore) -> None:
    """What is due is no list that grows too, and all of it goes as soon as there is time."""
    clock = ManualClock(SECOND)
    flow = LiveFlow(store, clock, cast("Any", None), {})
    flow.begin(clock.now())
    lengths: list[int] = []
    for _ in range(60):
        for number in range(3):
            put(store, b"s", k=b"%d" % number)
        with store.snapshot() as snapshot:
            flow.flow(snapshot)
        clock.advance(SECOND // 5)
        assert flow.trim(clock.now()) == (len(lengths) > 25)
        lengths.append(len(flow._trims))
    assert max(lengths) <= 27
    assert logged(store) > 80
    clock.advance(6 * SECOND)
    steps = 1
    while flow.trim(clock.now()):
        steps += 1
    assert steps > 40
    assert logged(store) == 1
    assert not flow._trims


def test_the_agent_drops_all_that_is_due(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Step by step, and waits only where there is nothing more."""
    monkeypatch.setattr(live, "_KEPT", 0)
    monkeypatch.setattr(agent, "_NEXT_TRIM", 0)
    for number in range(100):
        put(store, b"s", k=b"%d" % number)
    candidate = AgentThread(store, Config(), SystemClock())
    candidate.start()
    eventually(lambda: logged(store) == 1)
    candidate.stop()
