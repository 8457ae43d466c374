"""Redis servers on the loopback, each with a directory of its own; what a test starts ends with it."""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import AuthenticationError, RedisError
from tests.integration.cluster import eventually, free_port

from canister.record import Record, Version
from canister.store.base import Edit, Known, Needed, Stored
from canister.store.redis import RedisStore, beside


def need_redis() -> str:
    """Return the program; skip the test where it is not installed, fail in CI."""
    program = shutil.which("redis-server")
    if program is None:
        if os.environ.get("CI"):
            pytest.fail("redis-server is not installed, and CI needs it")
        pytest.skip("redis-server is not installed (Debian: redis-server)")
    return program


class RedisServer:
    """One server.

    Args:
        directory: where it keeps its files; made if it does not exist.
        options: more of its configuration.
    """

    def __init__(self, directory: Path, *options: str) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.port = free_port()
        self.options = options
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"redis://{self.address}"

    def command(self) -> list[str]:
        """Return the command line."""
        fixed = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.directory)]
        fixed += ["--save", "", "--appendonly", "no", "--repl-diskless-sync-delay", "0"]
        if "--sentinel" in self.options:
            # Sentinels write down what they learn.
            file = self.directory / "sentinel.conf"
            file.touch()
            return [need_redis(), str(file), "--port", str(self.port), "--bind", "127.0.0.1", *self.options]
        return [need_redis(), *fixed, *self.options]

    def start(self) -> "RedisServer":
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(self.command(), stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        eventually(self.answers, 10, f"a server answers at {self.address}")
        return self

    def answers(self) -> bool:
        with self.client() as client:
            try:
                return bool(client.ping())
            except RedisError as error:
                return isinstance(error, AuthenticationError)

    def client(self) -> "Redis":
        """Return a client of redis-py, for looking from outside."""
        return Redis(port=self.port, socket_timeout=5)

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def stop(self) -> None:
        """Kill it, as a crash does."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@contextlib.contextmanager
def running_redis(directory: Path, *options: str) -> Iterator[RedisServer]:
    """Run one server."""
    server = RedisServer(directory, *options)
    try:
        yield server.start()
    finally:
        server.stop()


@contextlib.contextmanager
def running_cluster(directory: Path, *, node_timeout: int = 1000) -> Iterator[list[RedisServer]]:
    """Run a cluster of three masters with one replica each; the masters come first."""
    servers: list[RedisServer] = []
    try:
        for number in range(6):
            bus = free_port()
            options = ["--cluster-enabled", "yes", "--cluster-node-timeout", str(node_timeout)]
            options += ["--cluster-port", str(bus), "--cluster-replica-validity-factor", "0"]
            servers.append(RedisServer(directory / str(number), *options).start())
        _join(servers)
        yield servers
    finally:
        for server in servers:
            server.stop()


def _join(servers: list[RedisServer]) -> None:
    """Make one cluster of the servers."""
    shares = [(0, 5460), (5461, 10922), (10923, 16383)]
    for server, (first, last) in zip(servers[:3], shares, strict=True):
        with server.client() as client:
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, last)
    for number, server in enumerate(servers):
        with server.client() as client:
            client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
    for server in servers:
        with server.client() as client:
            for other in servers:
                bus = other.options[other.options.index("--cluster-port") + 1]
                client.execute_command("CLUSTER", "MEET", "127.0.0.1", other.port, bus)
    eventually(
        lambda: all(_info(server)["cluster_known_nodes"] == "6" for server in servers),
        20,
        "the nodes know each other",
    )
    for master, replica in zip(servers[:3], servers[3:], strict=True):
        with master.client() as client, replica.client() as other:
            name = client.execute_command("CLUSTER", "MYID").decode()
            eventually(lambda other=other, name=name: _follow(other, name), 10, "a replica follows")
    eventually(lambda: all(_is_whole(server) for server in servers), 20, "the cluster is whole")
    for server in servers[:3]:
        eventually(lambda server=server: replicas_of(server) == 1, 20, "each master has its replica")


def _follow(client: "Redis", name: str) -> bool:
    try:
        return bool(client.execute_command("CLUSTER", "REPLICATE", name))
    except RedisError:
        return False


def _info(server: RedisServer) -> dict[str, str]:
    with server.client() as client:
        lines = bytes(client.execute_command("CLUSTER", "INFO")).decode().splitlines()
    return dict(line.split(":", 1) for line in lines)


def _is_whole(server: RedisServer) -> bool:
    with server.client() as client:
        slots = client.execute_command("CLUSTER", "SLOTS")
    return _info(server)["cluster_state"] == "ok" and len(slots) == 3


def replicas_of(server: RedisServer) -> int:
    """Return how many replicas are linked to a server."""
    with server.client() as client:
        return len(client.execute_command("ROLE")[2])


def acknowledges(server: RedisServer) -> bool:
    """Tell whether a replica confirms what a server is told."""
    with server.client() as client:
        client.set("probe", 1)
        confirmed = client.wait(1, 200) == 1
        client.delete("probe")
        return confirmed


def kill(server: RedisServer) -> None:
    """Kill a server with -9."""
    server.signal(signal.SIGKILL)
    server.stop()


class StoreBeside(RedisStore):
    """A store whose verbs an event loop runs, as the awaitable forms do."""

    def load(self, session: bytes) -> Stored:
        return asyncio.run(beside(super().load, session))

    def commit(
        self, edits: Sequence[tuple[bytes, Edit]], known: Known | None = None, acks: Needed = 1
    ) -> Version | None:
        return asyncio.run(beside(super().commit, edits, known, acks))

    def scan(self) -> Iterator[tuple[bytes, Record]]:
        return iter(asyncio.run(beside(list, super().scan())))

    def of_user(self, user: bytes) -> list[tuple[bytes, Record]]:
        return asyncio.run(beside(super().of_user, user))
