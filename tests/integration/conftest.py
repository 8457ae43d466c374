import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.cluster import Cluster, free_port, running_cluster
from tests.integration.moves import Move
from tests.redis_servers import RedisServer, running_redis

from canister import Canister
from canister.migration import leases
from canister.testing.clock import ManualClock


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """Return a cluster without nodes; what it starts ends with the test."""
    yield from running_cluster(tmp_path)


@pytest.fixture
def cut_off(tmp_path: Path, clock: ManualClock) -> Iterator[Canister]:
    """A node of a cluster whose only other member cannot be reached."""
    settings = {"listen": f"127.0.0.1:{free_port()}", "seeds": ["127.0.0.1:1"], "remote_timeout": "100ms"}
    with Canister(tmp_path / "cut-off", clock=clock, **settings) as canister:
        assert canister.node.store.peers().doubts > 0
        yield canister


@pytest.fixture
def logging_put_back() -> Iterator[None]:
    """Undo what a framework does to the root logger."""
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    yield
    root.setLevel(level)
    root.handlers[:] = handlers


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """Return a server that no test of the module harms."""
    with running_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(params=["to servers", "to a directory"])
def move(
    request: pytest.FixtureRequest, redis_server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Move:
    """Return a move of sessions that has not begun, either way; leases in it are short."""
    monkeypatch.setenv("CANISTER_CLUSTER", "")
    monkeypatch.setattr(leases, "LEASE", 0.6)
    monkeypatch.setattr(leases, "_RENEWAL", 0.2)
    return Move(tmp_path / "data", redis_server.url, to_servers=request.param == "to servers")
