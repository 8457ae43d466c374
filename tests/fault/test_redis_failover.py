"""Fail-over of a Redis Cluster: what is lost, and what acks= saves."""

import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from redis.exceptions import RedisError
from tests.integration.cluster import eventually
from tests.redis_servers import RedisServer, kill, running_cluster

from canister import AcknowledgementError, Canister, Status, StoreError
from canister.codec import encode_id
from canister.sessions import SessionManager
from canister.store.redis import listening
from canister.store.redis.deadline import Deadline
from canister.store.redis.links import Pool
from canister.store.redis.url import show

pytestmark = pytest.mark.fault


@dataclass
class Load:
    """Threads that put and destroy, and what they were told.

    Attributes:
        puts: session, key and value of each put that returned.
        destroyed: each session whose destroy returned.
        refused: how many calls raised `StoreError` or `AcknowledgementError`.
        longest: the longest call in seconds.
    """

    node: Canister
    acks: Any
    puts: list[tuple[str, int]] = field(default_factory=list)
    destroyed: list[str] = field(default_factory=list)
    refused: int = 0
    longest: float = 0.0
    end: threading.Event = field(default_factory=threading.Event)
    threads: list[threading.Thread] = field(default_factory=list)

    def start(self, count: int = 4) -> None:
        self.threads = [threading.Thread(target=self._work, args=(n,)) for n in range(count)]
        for thread in self.threads:
            thread.start()

    def stop(self) -> None:
        self.end.set()
        for thread in self.threads:
            thread.join(30)
            assert not thread.is_alive()

    def await_more(self, count: int) -> None:
        wanted = len(self.puts) + count
        eventually(lambda: len(self.puts) >= wanted, 30, f"{count} more puts")

    def _work(self, number: int) -> None:
        turn = 0
        while not self.end.is_set():
            turn += 1
            self.call(lambda turn=turn: self.put(f"{number}-{turn % 50}", turn))
            if turn % 10 == 0:
                self.call(lambda turn=turn: self.destroy(f"ended-{number}-{turn}"))

    def put(self, session: str, key: int) -> None:
        self.node.put(session, key, "x", acks=self.acks)
        self.puts.append((session, key))

    def destroy(self, session: str) -> None:
        self.node.put(session, "k", 1, acks=self.acks)
        self.node.destroy(session, acks=self.acks)
        self.destroyed.append(session)

    def call(self, act: Any) -> None:
        begun = time.monotonic()
        try:
            act()
        except (StoreError, AcknowledgementError):
            self.refused += 1
        self.longest = max(self.longest, time.monotonic() - begun)

    def lost(self) -> int:
        """Return how many of the puts that returned are not there."""
        data = {session: self.node.get_data(session, local=True) for session, _ in self.puts}
        return sum(key not in data[session] for session, key in self.puts)

    def back(self) -> int:
        """Return how many of the destroyed sessions are not destroyed any more."""
        return sum(self.node.record_status(s).status is not Status.DESTROYED for s in self.destroyed)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[list[RedisServer]]:
    with running_cluster(tmp_path) as servers:
        yield servers


def open_cluster(servers: list[RedisServer], **settings: Any) -> Canister:
    return Canister("redis+cluster://" + ",".join(server.address for server in servers[1:3]), **settings)


def is_master(server: RedisServer) -> bool:
    with server.client() as client:
        try:
            return bool(client.execute_command("ROLE")[0] == b"master")
        except RedisError:
            return False


def hold_streams(node: Canister) -> dict[str, threading.Event]:
    """Hold some sessions, on all masters; return what is set when they end."""
    manager = SessionManager(node, secret_keys="key-0123456789-abcdefghijklmnopqrs")
    held: dict[str, threading.Event] = {}
    for number in range(12):
        session = manager.load([])
        session["k"] = number
        manager.commit(session)
        ended = threading.Event()
        manager.hold(session, ended.set)
        held[str(session.handle)] = ended
    eventually(lambda: node.engine.last_stamp() == 1, 10, "it listens")
    return held


@pytest.mark.parametrize("acks", [1, 2])
def test_a_master_killed_under_load(
    cluster: list[RedisServer], acks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The replica takes over and writers go on. With acks=2 nothing that was acknowledged is lost.

    It was the one that was listened to: streams still end with their sessions, those on its slots too.
    """
    with open_cluster(cluster) as node:
        monkeypatch.setattr(listening.random, "choice", _first_of(cluster[0].address))
        streams = hold_streams(node)
        load = Load(node, acks)
        load.start()
        load.await_more(500)
        kill(cluster[0])
        eventually(lambda: is_master(cluster[3]), 20, "the replica is promoted")
        load.await_more(50)  # with acks few: nobody acknowledges what the new master writes
        load.stop()
        lost, back = load.lost(), load.back()
        print(
            f"acks={acks}: {len(load.puts)} puts and {len(load.destroyed)} destroys returned, {lost} puts "
            f"lost, {back} destroyed sessions back; {load.refused} calls refused; the longest took "
            f"{load.longest:.2f} s"
        )
        assert load.refused > 0  # the fault happened
        assert load.longest < 3
        assert cluster[3].address in [m.address for m in node.members() if m.state == "master"]
        if acks > 1:
            assert (lost, back) == (0, 0)
        assert node.engine.last_stamp() > 1  # it has connected anew
        with open_cluster(cluster) as other:
            for handle in streams:
                other.destroy(handle)
        assert all(ended.wait(1) for ended in streams.values())


@pytest.mark.parametrize("acks", [1, 2])
def test_a_fail_over_to_a_replica_that_lagged(cluster: list[RedisServer], acks: int) -> None:
    """Writes that the replica had not got are lost; with acks=2 none of them had been acknowledged."""
    with open_cluster(cluster) as node:
        sessions = [name for name in map(str, range(300)) if _holder(name, node) == cluster[0].address]
        assert len(sessions) > 50
        for name in sessions[:20]:
            eventually(lambda name=name: _is_held_twice(node, name), 10, "the replica acknowledges")
        cluster[3].signal(signal.SIGSTOP)
        with cluster[0].client() as client:  # what is on its way waits in the replica's socket otherwise
            client.client_kill_filter(_type="replica")
        with open_cluster(cluster, remote_timeout="500ms") as hasty:
            load = Load(hasty, acks)
            for name in sessions[:10]:
                load.call(lambda name=name: load.destroy(name))
            for name in sessions[20:30]:
                load.call(lambda name=name: load.put(name, 1))
        load.node = node
        kill(cluster[0])
        cluster[3].signal(signal.SIGCONT)
        eventually(lambda: is_master(cluster[3]), 20, "the replica is promoted")
        eventually(lambda: node.get(sessions[0], "k", local=True) == 1, 10)
        if acks == 1:
            assert (len(load.puts), load.lost()) == (10, 10)
            assert (len(load.destroyed), load.back()) == (10, 10)
        else:
            assert (load.puts, load.destroyed, load.refused) == ([], [], 20)


def _first_of(address: str) -> Any:
    """Return a choice that takes a server as long as it is among those that there are."""

    def choice(pools: list[Pool]) -> Pool:
        return next((pool for pool in pools if show(pool.address) == address), pools[0])

    return choice


def _is_held_twice(node: Canister, session: str) -> bool:
    try:
        node.put(session, "k", 1, acks=2)
    except AcknowledgementError:
        return False
    return True


def _holder(session: str, node: Canister) -> str:
    """Return the address of the master that holds a session."""
    store: Any = node.engine.store
    key = store._layout.key(encode_id(session))
    return show(store._servers.pool_of(key, Deadline(2)).address)
