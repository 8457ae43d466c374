from collections.abc import Iterator

import pytest
from tests.redis_servers import RedisServer, running_cluster, running_redis

pytest.register_assert_rewrite(
    "canister.testing.contract", "canister.testing.merging", "canister.testing.replicated"
)


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """Return a Redis server."""
    with running_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="session")
def redis_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[RedisServer]]:
    """Return a Redis Cluster of three masters with a replica each."""
    with running_cluster(tmp_path_factory.mktemp("cluster")) as servers:
        yield servers
