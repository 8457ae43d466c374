"""Redis Cluster and sentinels: several masters, slots that move, and a log-in over two of them."""

import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis.crc import key_slot
from tests.integration.cluster import eventually
from tests.redis_servers import RedisServer, replicas_of, running_cluster, running_redis

from canister import AcknowledgementError, Canister, ConfigError, SessionDestroyedError, StoreUnavailableError
from canister.sessions import Session, SessionManager
from canister.store.redis.wire import Link

pytestmark = pytest.mark.integration

KEY = "key-0123456789-abcdefghijklmnopqrs"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[RedisServer]]:
    with running_cluster(tmp_path_factory.mktemp("cluster")) as servers:
        yield servers


@pytest.fixture
def node(cluster: list[RedisServer]) -> Iterator[Canister]:
    with Canister(f"redis+cluster://{cluster[0].address}", cluster="shop") as node:
        yield node
    for server in cluster[:3]:
        with server.client() as client:
            client.flushall()


def test_sessions_are_on_all_masters(node: Canister, cluster: list[RedisServer]) -> None:
    """Each session is on one master, the list is over all of them, and the members are the servers."""
    names = {f"s{number}" for number in range(300)}
    for name in names:
        node.put(name, "k", 1)
    for server in cluster[:3]:
        with server.client() as client:
            assert 50 < client.dbsize() < 150
    assert sorted(node.all_sessions()) == sorted(names)
    assert node.num_local_sessions() == 300

    def six() -> dict[str, str]:
        states = {member.address: member.state for member in node.members()}
        return states if len(states) == 6 else {}

    states = eventually(six, 10, "the nodes know all replicas")
    assert [states[server.address] for server in cluster] == ["master"] * 3 + ["replica"] * 3


def test_a_node_of_a_cluster_is_not_taken_for_a_single_server(cluster: list[RedisServer]) -> None:
    """The URL must say that it is a cluster."""
    with pytest.raises(ConfigError, match=r"is a node of a cluster; the URL is then redis\+cluster://"):
        Canister(cluster[0].url)


def test_log_in_over_two_masters(node: Canister, monkeypatch: pytest.MonkeyPatch) -> None:
    """The new session is written before the old one is destroyed; what comes between loses no data."""
    manager = SessionManager(node, secret_keys=KEY)
    for turn in range(20):  # in some of them both are on one master
        session = manager.load([])
        session["k"] = turn
        old = _cookie(manager.commit(session).set_cookie)
        session = manager.load([old])
        node.put(session.handle or "", "meanwhile", turn)  # the first attempt finds the old one changed
        session.regenerate()
        new = _cookie(manager.commit(session).set_cookie)
        assert manager.load([new]) == {"k": turn, "meanwhile": turn}
        assert manager.load([old]) == {}


def test_a_crash_in_the_middle_of_a_log_in(node: Canister, monkeypatch: pytest.MonkeyPatch) -> None:
    """The old session is still there, the new one nobody can name; nobody is logged in unawares."""
    manager = SessionManager(node, secret_keys=KEY)
    session = manager.load([])
    session["k"] = 1
    old = _cookie(manager.commit(session).set_cookie)
    session = manager.load([old])
    session["user"] = "ann"
    session.regenerate()
    exchange, scripts = Link.exchange, list[int]()

    def failing(self: Link, commands: object, deadline: object) -> object:
        if commands[0][0] == b"EVALSHA":  # type: ignore[index]
            scripts.append(commands[0][2])  # type: ignore[index]
            if len(scripts) > 1:
                raise StoreUnavailableError("the process ends here")
        return exchange(self, commands, deadline)  # type: ignore[arg-type]

    monkeypatch.setattr(Link, "exchange", failing)
    try:
        manager.commit(session)
    except StoreUnavailableError:
        monkeypatch.undo()
        assert scripts == [1, 1, 1]  # the last one would have ended the new session
        assert manager.load([old]) == {"k": 1}
    else:
        assert scripts == [2]  # by chance both are in one slot


def test_a_new_id_that_a_log_out_has_overtaken_leaves_no_session(node: Canister) -> None:
    """The session with the new id is written before it turns out that the old one is over."""
    manager = SessionManager(node, secret_keys=KEY)
    for _ in range(10):  # in some of them both are on one master
        session = manager.load([])
        session.login("ann")
        cookie = _cookie(manager.commit(session).set_cookie)
        overtaken, session = manager.load([cookie]), manager.load([cookie])
        overtaken.regenerate()
        session.logout()
        manager.commit(session)
        with pytest.raises(SessionDestroyedError):
            manager.commit(overtaken)
        assert manager.users.sessions("ann") == []


def test_streams_end_whatever_master_their_session_is_on(node: Canister, cluster: list[RedisServer]) -> None:
    """What is said on one master is heard on all; nobody asks for the sessions meanwhile."""
    manager = SessionManager(node, secret_keys=KEY)
    held: list[tuple[Session, threading.Event]] = []
    for _ in range(12):
        session = manager.load([])
        session["k"] = 1
        manager.commit(session)
        held.append((session, threading.Event()))
        assert manager.hold(session, held[-1][1].set) is not None
    eventually(lambda: node.engine.last_stamp() > 0, 10, "it listens")
    with Canister(f"redis+cluster://{cluster[1].address}", cluster="shop") as other:
        for session, _ in held:
            other.destroy(str(session.handle))
    assert all(ended.wait(1) for _, ended in held)


def test_slots_that_move(node: Canister, cluster: list[RedisServer]) -> None:
    """Requests are redirected while a slot moves and after it, and nothing is lost."""
    node.put("s", "k", 1)
    slot = key_slot(b"shop:{ss}")
    owner = next(n for n, last in enumerate((5460, 10922, 16383)) if slot <= last)
    source, target = cluster[owner], cluster[(owner + 1) % 3]
    with source.client() as a, target.client() as b:
        ids = [bytes(client.execute_command("CLUSTER", "MYID")).decode() for client in (a, b)]
        b.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[0])
        a.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[1])
        assert node.get("s", "k") == 1  # still there
        a.execute_command("MIGRATE", "127.0.0.1", target.port, "shop:{ss}", 0, 5000)
        assert node.get("s", "k") == 1  # by ASK
        node.put("s", "k", 2)
        assert sorted(node.all_sessions()) == ["s"]
        b.execute_command("CLUSTER", "SETSLOT", slot, "NODE", ids[1])
        a.execute_command("CLUSTER", "SETSLOT", slot, "NODE", ids[1])
        assert node.get("s", "k") == 2  # by MOVED
        node.destroy("s")
        with pytest.raises(SessionDestroyedError):
            node.put("s", "k", 3)


def test_a_listing_while_slots_move(node: Canister, cluster: list[RedisServer]) -> None:
    """To a master that was gone through from one that was not: both are gone through anew."""
    names = {f"s{number}" for number in range(300)}
    for name in names:
        node.put(name, "k", 1)
    target, *_, source = sorted(cluster[:3], key=lambda server: server.address)
    sessions = node.all_sessions()
    seen = {next(sessions) for _ in range(150)}
    with source.client() as a, target.client() as b:
        ids = [bytes(client.execute_command("CLUSTER", "MYID")).decode() for client in (a, b)]
        moved = {key_slot(key): key for key in a.keys("shop:*")[:20]}
        for slot in moved:
            b.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[0])
            a.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[1])
            keys = a.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 10)
            a.execute_command("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)
            for client in (b, a):
                client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", ids[1])
    assert seen | set(sessions) == names


def take_over(replica: RedisServer, master: RedisServer) -> None:
    """Have a replica and its master change places."""
    with replica.client() as client, master.client() as other:
        other.wait(1, 5000)
        client.execute_command("CLUSTER", "FAILOVER", "TAKEOVER")
        eventually(lambda: client.execute_command("ROLE")[0] == b"master", 10, "it is promoted")
        eventually(lambda: other.execute_command("ROLE")[0] == b"slave", 10, "the other one is demoted")
        eventually(lambda: replicas_of(replica) == 1, 10, "it has its replica")


def test_a_listing_leaves_a_master_that_was_demoted(node: Canister, cluster: list[RedisServer]) -> None:
    """It lives on and would answer, with what it has got by then."""
    names = {f"s{number}" for number in range(100)}
    for name in names:
        node.put(name, "k", 1)
    take_over(cluster[3], cluster[0])
    try:
        assert set(node.all_sessions()) == names
    finally:
        take_over(cluster[0], cluster[3])


def test_replicas_are_counted_on_the_master_that_there_is(node: Canister, cluster: list[RedisServer]) -> None:
    """The one that was demoted answers, too, but has none."""
    manager = SessionManager(node, secret_keys=KEY, acks="majority")
    session = manager.load([])
    session["k"] = 1
    cookie = _cookie(manager.commit(session).set_cookie)
    slot = key_slot(f"shop:{{s{session.handle}}}".encode())
    session = manager.load([cookie])
    session["k"] = 2
    owner = next(n for n, last in enumerate((5460, 10922, 16383)) if slot <= last)
    take_over(cluster[owner + 3], cluster[owner])
    try:
        manager.commit(session)
        assert manager.load([cookie])["k"] == 2
    finally:
        take_over(cluster[owner], cluster[owner + 3])


def test_a_log_in_waits_for_the_list_of_the_user(node: Canister, cluster: list[RedisServer]) -> None:
    """It may be on another master; without it nobody could end the session with the user's others."""
    manager = SessionManager(node, secret_keys=KEY, acks=2)

    def logs_in() -> bool:
        session = manager.load([])
        session.login("ann")
        try:
            manager.commit(session)
        except AcknowledgementError:
            return False
        return True

    def has_the_list(server: RedisServer) -> bool:
        with server.client() as client:
            return bool(client.keys("shop:user:*"))

    assert logs_in()
    (owner,) = (number for number, server in enumerate(cluster[:3]) if has_the_list(server))
    cluster[owner + 3].signal(signal.SIGSTOP)
    try:
        assert not any(logs_in() for _ in range(3))  # whichever master the session is on
    finally:
        cluster[owner + 3].signal(signal.SIGCONT)
    eventually(logs_in, 20, "the replica confirms again")


def test_sentinels(tmp_path: Path) -> None:
    """The master is the one that the sentinels name; after a fail-over it is another."""
    with (
        running_redis(tmp_path / "a") as master,
        running_redis(tmp_path / "b", "--replicaof", f"127.0.0.1 {master.port}") as replica,
        running_redis(tmp_path / "s", "--sentinel") as sentinel,
    ):
        with sentinel.client() as client:
            client.execute_command("SENTINEL", "MONITOR", "shop", "127.0.0.1", master.port, 1)
            client.execute_command("SENTINEL", "SET", "shop", "down-after-milliseconds", 500)
        url = f"redis+sentinel://127.0.0.1:1,{sentinel.address}/shop/2"
        with Canister(url) as node, Canister(url) as lists, Canister(url) as shows:
            node.put("s", "k", 1, acks=2)
            assert list(lists.all_sessions()) == ["s"]
            assert [m.address for m in node.members()] == [master.address, replica.address]

            def knows_the_replica() -> bool:
                with sentinel.client() as client:
                    return len(client.execute_command("SENTINEL", "REPLICAS", "shop")) == 1

            eventually(knows_the_replica, 20, "the sentinel knows the replica")
            master.stop()

            def goes_on() -> bool:
                try:
                    node.put("s", "k", 2)
                except StoreUnavailableError:
                    return False
                return True

            eventually(goes_on, 30, "the replica is promoted")
            # Who did nothing meanwhile learns of it, too.
            assert list(lists.all_sessions()) == ["s"]
            assert [m.address for m in shows.members()] == [replica.address]
            assert node.get("s", "k") == 2
        with pytest.raises(StoreUnavailableError, match="no sentinel of"):
            Canister(f"redis+sentinel://{sentinel.address}/unknown")


def _cookie(set_cookie: str | None) -> str:
    assert set_cookie is not None
    return set_cookie.partition("=")[2].partition(";")[0]
