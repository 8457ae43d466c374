from pathlib import Path

from canister.clock import Clock
from canister.config import Config
from canister.store.base import ReplicatedStore
from canister.store.memory import MemoryStore
from canister.store.sqlite import SqliteStore
from canister.testing.replicated import ReplicatedStoreContract


class TestMemoryStore(ReplicatedStoreContract):
    """The reference store keeps the contract."""

    def open_store(self, directory: Path, config: Config, clock: Clock) -> ReplicatedStore:
        return MemoryStore(config, clock)


class TestSqliteStore(ReplicatedStoreContract):
    """The default store keeps the contract."""

    def open_store(self, directory: Path, config: Config, clock: Clock) -> ReplicatedStore:
        return SqliteStore(directory, config, clock)
