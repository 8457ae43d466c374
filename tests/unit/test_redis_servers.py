"""Which server of a cluster has what, as its nodes tell it."""

from typing import Any, cast

import pytest
from redis.exceptions import AskError, ConnectionError, MovedError

from canister.store.redis.deadline import Deadline
from canister.store.redis.links import Pool
from canister.store.redis.servers import ClusterServers
from canister.store.redis.url import Address

A, B = ("a", 1), ("b", 2)
ALL = 16383


class Nodes:
    """Two nodes of a cluster, and what each replies to CLUSTER SLOTS, the same unless it is said."""

    def __init__(self, a: Any, b: Any = None) -> None:
        self.replies = {A: a, B: a if b is None else b}

    def pool(self, address: Address) -> Pool:
        nodes = self

        class Node:
            def __init__(self) -> None:
                self.address = address

            def exchange(self, commands: object, deadline: Deadline) -> list[Any]:
                return [nodes.replies[address]]

        return cast("Pool", Node())

    def servers(self) -> ClusterServers:
        return ClusterServers([A, B], self.pool)


def node(address: Address | tuple[str | None, int]) -> list[Any]:
    host, port = address
    return [None if host is None else host.encode(), port, b"id"]


def masters(servers: ClusterServers) -> list[Address]:
    return [pool.address for pool in servers.spread(Deadline(5)).masters]


def test_the_masters_are_those_of_now() -> None:
    """No key that is asked for tells of a master that was added."""
    nodes = Nodes([[0, ALL, node(A)]])
    servers = nodes.servers()
    assert masters(servers) == [A]
    nodes.replies = {A: [[0, 99, node(B)], [100, ALL, node(A)]]}
    nodes.replies[B] = nodes.replies[A]
    assert masters(servers) == [B, A]


def test_a_node_that_knows_none_or_few_is_not_believed() -> None:
    """It was reset, or has not met the others yet."""
    for reply in ([], [[0, 99, node(B)]]):
        for _ in range(20):  # the order is by chance
            assert masters(Nodes(reply, [[0, ALL, node(A)]]).servers()) == [A]
    assert masters(Nodes([], [[0, 99, node(B)]]).servers()) == [B]
    with pytest.raises(ConnectionError, match="no node knows the cluster"):
        Nodes([]).servers().spread(Deadline(5))


@pytest.mark.parametrize("host", ["", "?"])
def test_a_host_that_is_not_named_is_the_one_that_was_asked(host: str) -> None:
    nodes = Nodes([[0, ALL, node((host or None, 7))]])
    servers = nodes.servers()
    (place,) = masters(servers)
    assert place in (("a", 7), ("b", 7))
    ask = servers.look_again(AskError(f"5 {host}:8"), nodes.pool(A))
    assert ask is not None
    assert ask.address == ("a", 8)
    servers.look_again(MovedError(f"12182 {host}:9"), nodes.pool(B))
    assert servers.pool_of(b"foo", Deadline(5)).address == ("b", 9)
