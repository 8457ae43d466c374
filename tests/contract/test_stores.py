from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
from tests.redis_servers import RedisServer, StoreBeside

from canister.clock import Clock
from canister.config import Config
from canister.store.base import ReplicatedStore
from canister.store.memory import MemoryStore
from canister.store.redis import RedisStore
from canister.store.sqlite import SqliteStore
from canister.testing.contract import StoreContract
from canister.testing.replicated import ReplicatedStoreContract


class TestMemoryStore(ReplicatedStoreContract):
    """The reference store keeps the contract."""

    def open_store(self, directory: Path, config: Config, clock: Clock) -> ReplicatedStore:
        return MemoryStore(config, clock)


class TestSqliteStore(ReplicatedStoreContract):
    """The default store keeps the contract."""

    def open_store(self, directory: Path, config: Config, clock: Clock) -> ReplicatedStore:
        return SqliteStore(directory, config, clock)


def apart(config: Config, directory: Path) -> Config:
    """Return the settings under which a directory's name stands for sessions of its own."""
    return replace(config, cluster=sha256(str(directory).encode()).hexdigest()[:16])


@pytest.mark.integration
class TestRedisStore(StoreContract):
    """A Redis server keeps the contract."""

    @pytest.fixture(autouse=True)
    def use_server(self, redis_server: RedisServer) -> None:
        self.url = redis_server.url

    def open_store(self, directory: Path, config: Config, clock: Clock) -> RedisStore:
        return RedisStore(self.url, apart(config, directory), clock)


@pytest.mark.integration
class TestRedisStoreBeside(TestRedisStore):
    """It does in the awaitable forms."""

    test_scan = None  # of a thousand commits, each with a loop of its own; the machine of all verbs scans

    def open_store(self, directory: Path, config: Config, clock: Clock) -> RedisStore:
        return StoreBeside(self.url, apart(config, directory), clock)


@pytest.mark.integration
class TestRedisClusterStore(StoreContract):
    """A Redis Cluster keeps the contract."""

    @pytest.fixture(autouse=True)
    def use_cluster(self, redis_cluster: list[RedisServer]) -> None:
        self.url = f"redis+cluster://{redis_cluster[0].address},{redis_cluster[1].address}"

    def open_store(self, directory: Path, config: Config, clock: Clock) -> RedisStore:
        return RedisStore(self.url, apart(config, directory), clock)
