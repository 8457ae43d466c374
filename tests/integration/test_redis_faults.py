"""Servers that fail in the middle of a call, or change places, and what a call then does."""

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.integration.cluster import eventually
from tests.redis_servers import RedisServer, acknowledges, running_redis

from canister import Canister
from canister.store.redis import wire

pytestmark = pytest.mark.integration


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[RedisServer, RedisServer]]:
    """Return a master and its replica."""
    with running_redis(tmp_path / "a") as master:
        options = ("--replicaof", "127.0.0.1", str(master.port))
        with running_redis(tmp_path / "b", *options) as replica:
            eventually(lambda: acknowledges(master), 10, "the replica is linked")
            yield master, replica


def test_a_planned_fail_over_behind_one_name(
    pair: tuple[RedisServer, RedisServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server that has become a replica lives on; a process that was connected to it writes on."""
    first, second = pair
    leads_to = [first]

    def resolve(host: str, port: int, patience: float) -> list[Any]:
        return [(socket.AF_INET, ("127.0.0.1", leads_to[0].port))]

    monkeypatch.setattr(wire, "resolve", resolve)
    with Canister("redis://sessions.internal") as node:
        node.put("s", "k", 1)
        leads_to[0] = second
        with first.client() as old, second.client() as new:
            new.replicaof("NO", "ONE")
            old.replicaof("127.0.0.1", second.port)
        node.put("s", "k", 2)
        assert node.get("s", "k") == 2
        with second.client() as new:
            assert new.exists(*new.keys("*{*"))
