"""What was committed gets to the disk bit by bit, and into the database once it is worth it."""

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from tests.integration.cluster import eventually

from canister.agent import log_upkeep
from canister.agent.thread import AgentThread
from canister.clock import SystemClock
from canister.config import Config
from canister.store.sqlite import SqliteStore
from canister.testing.contract import put


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    """Return the store of a node."""
    with closing(SqliteStore(tmp_path, Config())) as store:
        yield store


@pytest.fixture
def candidate(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[AgentThread]:
    """Return the agent of the node, not started yet; it looks at the log without pauses."""
    monkeypatch.setattr(log_upkeep, "_LOOK_IDLE", 0.001)
    candidate = AgentThread(store, Config(), SystemClock())
    yield candidate
    candidate.stop()


def calls(monkeypatch: pytest.MonkeyPatch, name: str, then: Callable[[SqliteStore], object]) -> list[int]:
    """Return a list of the pages in the log at each call of a method of the store."""
    pages: list[int] = []

    def called(store: SqliteStore) -> object:
        pages.append(store.pending_pages())
        return then(store)

    monkeypatch.setattr(SqliteStore, name, called)
    return pages


def test_a_database_that_stays_locked_is_warned_of(
    candidate: AgentThread, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Once, and nothing else of the agent's work stands still for it."""
    monkeypatch.setattr(log_upkeep, "_CHECKPOINT_AT", 0)
    monkeypatch.setattr(log_upkeep, "_CHECKPOINT_EVERY", 0)
    tries = calls(monkeypatch, "checkpoint", lambda store: False)
    candidate.start()
    eventually(lambda: len(tries) > 2 * log_upkeep._MOST_IN_VAIN)
    candidate.stop()
    warnings = [record.message for record in caplog.records if record.levelname != "INFO"]
    assert len(warnings) == 1
    assert "kept locked by another program" in warnings[0]


def test_a_long_log_is_moved(
    store: SqliteStore, candidate: AgentThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not before it is long, and all that is in it then."""
    monkeypatch.setattr(log_upkeep, "_CHECKPOINT_AT", 100)
    moves = calls(monkeypatch, "checkpoint", SqliteStore.checkpoint)
    candidate.start()
    for number in range(100):
        put(store, b"%d" % number, k=b"1")
    eventually(lambda: bool(moves) and store.pending_pages() < 100)
    assert min(moves) >= 100


def test_a_log_that_grows_is_synced_little_by_little(
    store: SqliteStore, candidate: AgentThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before a checkpoint has to do it all at once."""
    monkeypatch.setattr(log_upkeep, "_SYNC_AT", 10)
    monkeypatch.setattr(log_upkeep, "_SYNC_EVERY", 3600)
    monkeypatch.setattr(log_upkeep, "_LOOK", 0.001)
    syncs = calls(monkeypatch, "sync", SqliteStore.sync)
    candidate.start()
    for round_ in range(1, 4):
        begun = store.pending_pages()
        while store.pending_pages() < begun + 10:
            put(store, b"s", k=b"%d" % round_)
        eventually(lambda round_=round_: len(syncs) >= round_)
    assert len(syncs) <= store.pending_pages() / 10


def test_the_last_commits_are_on_the_disk_after_a_moment(
    store: SqliteStore, candidate: AgentThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut takes what was written in the last second, not since the last checkpoint."""
    monkeypatch.setattr(log_upkeep, "_SYNC_EVERY", 0.01)
    syncs = calls(monkeypatch, "sync", SqliteStore.sync)
    candidate.start()
    for number in range(3):
        put(store, b"s", k=b"%d" % number)
        pages = store.pending_pages()
        eventually(lambda pages=pages: max(syncs, default=0) >= pages)
