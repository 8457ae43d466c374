"""The same sessions on a Redis Cluster: three masters and three replicas on the loopback."""

import time
from bisect import bisect
from collections.abc import Sequence
from random import Random

from redis import Redis
from redis.crc import key_slot

from benchmarks.bench import Bench
from benchmarks.limits.mesh import Look
from benchmarks.limits.points import VALUE, Point
from benchmarks.redis_server import RedisCluster, RedisServer
from canister import Canister

_FIRST_SLOTS = (5_461, 10_923)
"""Of the second and of the third master, as redis-cli shares them out."""
_SESSIONS = 500
_AT_ONCE = 5_000
_NAME = "session-{:024d}"
_PATIENCE = 300.0


def by_clients(bench: Bench, servers: RedisCluster, count: int, writes: int) -> list[Point]:
    """Measure so many processes that write at full speed."""
    clients = [bench.canister(servers.url, sessions=_SESSIONS + number) for number in range(count)]
    for client in clients:
        client.do("put", count=_SESSIONS + count)
    look = Look([*clients, *servers.servers])
    each = writes // count
    for client in clients:
        client.begin("put", count=each)
    for client in clients:
        client.end()
    look.end()
    total, cluster = each * count, servers.servers
    points = [
        Point("Redis Cluster", "writes at full speed", "1/s", total / look.elapsed, count),
        Point("Redis Cluster", "a write, its process", "us", look.seconds(clients) / total * 1e6, count),
        Point("Redis Cluster", "a write, all servers", "us", look.seconds(cluster) / total * 1e6, count),
        Point("Redis Cluster", "a write, network of its process", "B", look.moved(clients) / total, count),
        Point("Redis Cluster", "a write, network of all servers", "B", look.moved(cluster) / total, count),
    ]
    for client in clients:
        client.close()
    return points


def idle(servers: RedisCluster, window: float) -> list[Point]:
    """Measure what a server uses when nobody does anything."""
    look = Look(servers.servers)
    time.sleep(window)
    look.end()
    count = len(servers.servers)
    network = look.moved(servers.servers) / look.elapsed / count
    processor = look.seconds(servers.servers) / look.elapsed / count * 1000
    return [
        Point("Redis Cluster", "idle, network of a server", "B/s", network, count),
        Point("Redis Cluster", "idle, processor of a server", "ms/s", processor, count),
        Point("Redis Cluster", "memory, empty server", "MB", _memory(servers.masters), count),
    ]


def by_sessions(bench: Bench, sessions: int, size: int = VALUE) -> list[Point]:
    """Measure a cluster that holds so many sessions: the mean of its masters."""
    servers = RedisCluster(bench.fresh("redis-cluster"))
    try:
        _fill(servers, sessions, size)
        memory = _memory(servers.masters)
        disk = sum(map(_disk, servers.masters)) / len(servers.masters) / 1e6
    finally:
        servers.close()
    return [
        Point("Redis Cluster", "memory of a master", "MB", memory, 3, sessions, size),
        Point("Redis Cluster", "disk of a master", "MB", disk, 3, sessions, size),
    ]


def _fill(servers: RedisCluster, sessions: int, size: int) -> None:
    """Store one session through Canister, and copies of it as fast as the servers take them."""
    name = _NAME.format(0)
    with Canister(servers.url) as canister:
        # Digits, as the servers' files compress what repeats itself.
        canister.put(name, "user", Random(1).randbytes(size // 2).hex())
    clients = [Redis(port=server.port) for server in servers.masters]
    key, owner = next((key, client) for client in clients for key in client.scan_iter())
    fields, end = owner.hgetall(key), owner.pexpiretime(key)
    pipes = [client.pipeline(transaction=False) for client in clients]
    for number in range(1, sessions):
        copy = key.replace(name.encode(), _NAME.format(number).encode())
        pipe = pipes[bisect(_FIRST_SLOTS, key_slot(copy))]
        pipe.hset(copy, mapping=fields)
        pipe.pexpireat(copy, end)
        if number % _AT_ONCE == 0:
            for pipe in pipes:
                pipe.execute()
    for pipe in pipes:
        pipe.execute()
    if sum(client.dbsize() for client in clients) != sessions:
        raise RuntimeError("not all sessions are there")
    for client in clients:
        client.wait(1, int(_PATIENCE * 1000))
        client.close()


def _memory(masters: Sequence[RedisServer]) -> float:
    total = 0
    for master in masters:
        with Redis(port=master.port) as client:
            total += client.info("memory")["used_memory_rss"]
    return total / len(masters) / 1e6


def _disk(master: RedisServer) -> int:
    """Return the bytes of a master's file, rewritten to what it needs."""
    with Redis(port=master.port) as client:
        client.bgrewriteaof()
        deadline = time.monotonic() + _PATIENCE
        while True:
            info = client.info("persistence")
            if not info["aof_rewrite_in_progress"] and not info["aof_rewrite_scheduled"]:
                return int(info["aof_current_size"])
            if time.monotonic() > deadline:
                raise TimeoutError(f"a file was not rewritten within {_PATIENCE} s")
            time.sleep(0.05)
