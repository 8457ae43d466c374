"""What is particular to Redis: round trips, times to live, servers that go and come, acknowledgements."""

import asyncio
import ctypes
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from hashlib import sha1
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from tests.integration.cluster import eventually
from tests.redis_servers import RedisServer, acknowledges, running_redis

from canister import (
    AcknowledgementError,
    Canister,
    ConfigError,
    CorruptDatabaseError,
    ForeignDatabaseError,
    NewerFormatError,
    StoreError,
    StoreUnavailableError,
)
from canister.integrations.asgi import SessionMiddleware
from canister.sessions import CookieSettings, SessionManager
from canister.store.redis import layout
from canister.store.redis.wire import Link

pytestmark = pytest.mark.integration

KEY = "key-0123456789-abcdefghijklmnopqrs"
TIMEOUT = 1.0
"""``remote_timeout`` of the sessions under test, in seconds."""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """Return a server that no test harms."""
    with running_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    """Return a server of the test's own."""
    with running_redis(tmp_path / "redis") as server:
        yield server


@pytest.fixture
def node(shared: RedisServer) -> Iterator[Canister]:
    with Canister(shared.url, cluster=secrets.token_hex(8)) as node:
        yield node


def open_at(server: RedisServer, query: str = "", **settings: Any) -> Canister:
    return Canister(server.url + query, remote_timeout=f"{TIMEOUT}s", **settings)


@pytest.fixture
def trips(monkeypatch: pytest.MonkeyPatch) -> list[list[bytes]]:
    """Return the names of the commands of each round trip, as they are made."""
    made: list[list[bytes]] = []
    exchange = Link.exchange

    def counting(self: Link, commands: Any, deadline: Any) -> Any:
        made.append([command[0] for command in commands])
        return exchange(self, commands, deadline)

    monkeypatch.setattr(Link, "exchange", counting)
    return made


def took(act: Callable[[], object]) -> float:
    begun = time.monotonic()
    act()
    return time.monotonic() - begun


def field_names(server: RedisServer, canister: Canister, session: str) -> dict[bytes, bytes]:
    with server.client() as client:
        (key,) = client.keys(f"{canister.config.cluster}:*s{session}*")
        return client.hgetall(key)


# Round trips.


def cookie_of(set_cookie: str | None) -> str:
    assert set_cookie is not None
    return set_cookie.partition("=")[2].partition(";")[0]


def test_one_round_trip_for_a_load_and_for_a_commit(node: Canister, trips: list[list[bytes]]) -> None:
    """A request costs a load and a commit; one that only reads costs the load; log-in is one commit."""
    manager = SessionManager(node, secret_keys=KEY, cookie=CookieSettings())
    session = manager.load([])
    session["k"] = 1
    cookie = cookie_of(manager.commit(session).set_cookie)
    manager.commit(manager.load([cookie]))  # the script is known by now
    trips.clear()
    session = manager.load([cookie])
    assert session["k"] == 1
    manager.commit(session)
    assert trips == [[b"HGETALL"]]
    session = manager.load([cookie])
    session["k"] = 2
    manager.commit(session)
    assert trips[1:] == [[b"HGETALL"], [b"EVALSHA"]]
    session = manager.load([cookie])
    session.regenerate()
    manager.commit(session)
    assert trips[3:] == [[b"HGETALL"], [b"EVALSHA"]]
    assert manager.load([cookie]) == {}
    trips.clear()
    session = manager.load([])
    session["k"] = 1
    manager.commit(session)
    assert trips == [[b"EVALSHA"]]


def test_round_trips_of_the_librarys_verbs(node: Canister, trips: list[list[bytes]]) -> None:
    """A read is one round trip, a write two."""
    node.put("s", "k", 1)
    trips.clear()
    assert node.get("s", "k") == 1
    assert trips == [[b"HGETALL"]]
    node.put("s", "k", 2)
    assert trips[1:] == [[b"HGETALL"], [b"EVALSHA"]]


def test_lists_cost_a_round_trip_a_page(node: Canister, trips: list[list[bytes]]) -> None:
    """Not one for each session: those of a user, and all of them."""
    manager = SessionManager(node, secret_keys=KEY)
    for _ in range(30):
        session = manager.load([])
        session.login("ann")
        manager.commit(session)
    trips.clear()
    assert len(manager.users.sessions("ann")) == 30
    assert trips == [
        [b"HGETALL"],
        [b"ZRANGEBYSCORE"],
        [b"HGETALL"] * 30,
    ]  # the user's record, the list, the sessions
    trips.clear()
    assert node.num_local_sessions() == 30
    assert len(trips) < 10
    scan = [b"INFO", b"INFO", b"SCAN"]
    assert all(trip in ([b"DBSIZE"], scan, [b"HGETALL"] * len(trip)) for trip in trips)


def test_lists_need_no_connection_that_lasted(server: RedisServer) -> None:
    """A server that has closed idle connections is asked anew."""
    with open_at(server) as node, server.client() as client:
        manager = SessionManager(node, secret_keys=KEY)
        session = manager.load([])
        session.login("ann")
        manager.commit(session)
        client.client_kill_filter(_type="normal", skipme=True)
        assert node.num_local_sessions() == 1
        client.client_kill_filter(_type="normal", skipme=True)
        assert len(manager.users.sessions("ann")) == 1
        store: Any = node.engine.store
        client.client_kill_filter(_type="normal", skipme=True)
        assert len(list(store._fetch_all([b"sx", b"sy"], store._deadline()))) == 2


def test_waiting_for_replicas_goes_with_the_write(node: Canister, trips: list[list[bytes]]) -> None:
    """WAIT is sent down the write's own connection, in the same trip."""
    node.put("s", "k", 1)
    trips.clear()
    with pytest.raises(AcknowledgementError):
        node.put("s", "k", 2, acks=2)
    assert trips == [[b"HGETALL"], [b"EVAL", b"WAIT"]]


def test_a_server_that_has_forgotten_the_script_is_not_waited_for_twice(
    node: Canister, shared: RedisServer
) -> None:
    """The script goes with the write, so all the time is for its replicas, and the error tells of them."""
    node.put("s", "k", 1)
    with shared.client() as client:
        client.script_flush()
    with pytest.raises(AcknowledgementError) as failure:
        node.destroy("s", acks=2)
    assert (failure.value.held, failure.value.needed) == (1, 2)
    assert node.get("s", "k") is None


@pytest.mark.parametrize("lacking", ["hset", "hdel", "pexpire"])
def test_a_user_who_lacks_a_right_writes_nothing(server: RedisServer, lacking: str) -> None:
    """Not the half of a session, which would never end."""
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "ann", "on", ">pw", "~*", "&*", "+@all", f"-{lacking}")
        said = rf"refuses this user .*{lacking}.*docs/howto/redis\.md"
        with Canister(f"redis://ann:pw@{server.address}") as node, pytest.raises(StoreError, match=said):
            node.put("s", "k", 1)
        assert client.dbsize() == 0


def test_a_right_that_a_server_does_not_name(server: RedisServer) -> None:
    """So do those that cannot say beforehand what a user may."""
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "ann", "on", ">pw", "~*", "&*", "+@all", "-hget")
        said = r"refuses this user .*docs/howto/redis\.md"
        with Canister(f"redis://ann:pw@{server.address}") as node, pytest.raises(StoreError, match=said):
            node.put("s", "k", 1)
        assert client.dbsize() == 0


def test_a_script_that_was_flushed_is_sent_again(node: Canister, shared: RedisServer) -> None:
    """A server that does not know the script, after a flush or a fail-over, is told it."""
    node.put("s", "k", 1)
    with shared.client() as client:
        client.script_flush()
    node.put("s", "k", 2)
    assert node.get("s", "k") == 2


def test_two_releases_side_by_side(node: Canister, shared: RedisServer) -> None:
    """Each has a script of its own, which the other one's leaves alone."""
    other = layout.SCRIPT + b"-- of the next release"
    scripts = [(layout.SCRIPT, layout.SHA), (other, sha1(other, usedforsecurity=False).hexdigest().encode())]
    with shared.client() as client:
        client.script_flush()
        for turn in range(6):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(layout, "SCRIPT", scripts[turn % 2][0])
                patch.setattr(layout, "SHA", scripts[turn % 2][1])
                assert node.put("s", "k", turn) == (turn - 1 if turn else None)
        assert client.script_exists(*(sha for _, sha in scripts)) == [True, True]


# What is stored.


def test_only_what_changed_is_written(node: Canister, trips: list[list[bytes]], shared: RedisServer) -> None:
    """A commit of one key leaves the fields of the others as they are."""
    node.update("s", {"a": 1, "b": 2})
    before = field_names(shared, node, "s")
    node.put("s", "a", 3)
    after = field_names(shared, node, "s")
    assert before.keys() == after.keys()
    assert {name for name in after if after[name] != before[name]} == {
        b"r",
        next(n for n in after if b"a" in n),
    }


def test_the_server_drops_what_is_past_its_time(node: Canister, shared: RedisServer) -> None:
    """A key lives as long as the session could: idle timeout, touch interval, grace period."""
    node.put("s", "k", 1)
    with shared.client() as client:
        (key,) = client.keys(f"{node.config.cluster}:*")
        assert client.pttl(key) == pytest.approx((20 + 1 + 60) * 60_000, abs=5_000)
        node.destroy("s")
        assert client.hlen(key) == 2
        assert client.pttl(key) > 30 * 86_400_000


def test_times_are_the_servers(node: Canister, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wall clock here that is wrong changes nothing (I11)."""
    monkeypatch.setattr(time, "time_ns", lambda: 10**9)
    node.put("s", "k", 1)
    info = node.session_info("s")
    assert info is not None
    monkeypatch.undo()
    assert info.created.timestamp() == pytest.approx(time.time(), abs=5)


def test_what_is_no_session_is_left_untouched(node: Canister, shared: RedisServer) -> None:
    """Foreign, damaged and newer content raises; it is never taken for an absence."""
    with shared.client() as client:
        for name, error in (("foreign", ForeignDatabaseError), ("bad", CorruptDatabaseError)):
            key = f"{node.config.cluster}:{{s{name}}}"
            if name == "foreign":
                client.set(key, "x")
            else:
                client.hset(key, mapping={"r": b"0" * 16, "f": b"\x01\xc1"})
            with pytest.raises(error):
                node.get(name, "k")
            with pytest.raises(error):
                node.put(name, "k", 1)
        client.hset(f"{node.config.cluster}:{{snew}}", mapping={"r": b"0" * 16, "f": b"\x02"})
        with pytest.raises(NewerFormatError):
            node.get("new", "k")
        assert client.get(f"{node.config.cluster}:{{sforeign}}") == b"x"


# Settings and servers that are refused.


def test_a_server_that_evicts_is_refused(tmp_path: Path) -> None:
    """A server that may drop sessions is refused, unless that is wanted."""
    with running_redis(tmp_path, "--maxmemory-policy", "allkeys-lru") as server:
        with pytest.raises(ConfigError, match="allkeys-lru: it may drop sessions"):
            open_at(server)
        with open_at(server, "?allow_eviction=yes") as node:
            node.put("s", "k", 1)


def test_settings_of_the_mesh_are_refused(shared: RedisServer) -> None:
    """What only data directories can do is not silently left out."""
    with pytest.raises(ConfigError, match="listen cannot be used with a URL of Redis"):
        open_at(shared, listen="127.0.0.1:7400")
    with pytest.raises(ConfigError, match="durability cannot be used"):
        open_at(shared, durability="full")


def test_without_the_package() -> None:
    """Canister needs redis-py for a URL of Redis only, and says how to get it."""
    program = (
        "import sys; sys.modules['redis'] = None\n"
        "import canister\n"
        "try:\n    canister.Canister('redis://127.0.0.1:1')\n"
        "except canister.ConfigError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert "pip install 'canister-sessions[redis]'" in done.stdout, done.stderr


def test_a_secret_key_must_be_configured(node: Canister, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file is made that another process could not read."""
    monkeypatch.delenv("CANISTER_SECRET_KEYS", raising=False)
    with pytest.raises(ConfigError, match="no secret key is configured"):
        SessionManager(node)


def test_a_wrong_password_is_said_at_once_and_not_shown(tmp_path: Path) -> None:
    """The error names the server, never the password."""
    with running_redis(tmp_path, "--requirepass", "right") as server:
        for user in ("", ":wrong@", "ann:wrong@"):
            with pytest.raises(StoreError, match="check user and password") as failure:
                Canister(f"redis://{user}{server.address}")
            assert not isinstance(failure.value, StoreUnavailableError)
            assert "wrong@" not in str(failure.value)
        with Canister(f"redis://:right@{server.address}/3") as node:
            node.put("s", "k", 1)
            assert "right" not in f"{node.engine.store} {node.engine.store!r}"


def test_verbs_of_the_mesh_answer_the_truth(node: Canister, shared: RedisServer) -> None:
    """There is one copy: nothing to forget, to compare or to queue; the members are the servers."""
    node.put("s", "k", 1)
    for act in (lambda: node.forget("s"), node.resync, lambda: node.node):
        with pytest.raises(ConfigError):
            act()
    assert not node.is_resyncing()
    assert node.clear_untouched_sessions() == node.delete_deleted_sessions() == 0
    assert [(member.address, member.state) for member in node.members()] == [(shared.address, "master")]


def test_a_full_server(server: RedisServer) -> None:
    """A server at its maxmemory refuses the write, and what was there stays."""
    with open_at(server) as node, server.client() as client:
        node.put("s", "k", 1)
        client.config_set("maxmemory", 1)
        with pytest.raises(StoreError, match="has reached its maxmemory; nothing was written"):
            node.put("s", "k", 2)
        client.config_set("maxmemory", 0)
        assert node.get("s", "k") == 1


# Servers that go and come.


def test_a_server_that_is_away_is_no_absence(server: RedisServer) -> None:
    """Whether it refuses or hangs, a call raises within remote_timeout, and works when it is back."""
    with open_at(server) as node:
        node.put("s", "k", 1)
        for harm, mend in ((signal.SIGSTOP, signal.SIGCONT), (signal.SIGKILL, None)):
            server.signal(harm)
            for act in (
                lambda: node.get("s", "k"),
                lambda: node.put("s", "k", 2),
                lambda: node.get_data("s"),
            ):

                def refused(act: Callable[[], object] = act) -> None:
                    with pytest.raises(StoreUnavailableError, match="did not serve the session in time"):
                        act()

                assert took(refused) == pytest.approx(TIMEOUT, abs=0.3)
            if mend is not None:
                server.signal(mend)
                assert node.get("s", "k") in (1, 2)
        server.stop()
        with pytest.raises(StoreError):
            open_at(server)
        server.start()
        assert node.get("s", "k") is None  # it keeps nothing on disk
        node.put("s", "k", 3)


def test_a_connection_that_was_cut_is_made_anew(server: RedisServer, trips: list[list[bytes]]) -> None:
    """Nobody notices that the server has closed idle connections."""
    with open_at(server) as node, server.client() as client:
        node.put("s", "k", 1)
        client.client_kill_filter(_type="normal", skipme=True)
        assert node.get("s", "k") == 1


def test_a_write_whose_reply_was_lost_is_written_once(
    node: Canister, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sent again after a lost reply, the script finds its own revision and the version stays."""
    node.put("s", "k", 1)
    exchange, lost = Link.exchange, list[Any]()

    def losing(self: Link, commands: Any, deadline: Any) -> Any:
        replies = exchange(self, commands, deadline)
        if commands[0][0] == b"EVALSHA" and not lost:
            lost.append(commands)
            raise redis.exceptions.ConnectionError("lost")
        if commands[0][0] == b"EVALSHA":
            lost.append(replies)
        return replies

    monkeypatch.setattr(Link, "exchange", losing)
    node.put("s", "k", 2)
    assert len(lost) == 2
    assert len(lost[1][0]) == 1  # the script found it done
    assert node.get("s", "k") == 2


def test_an_event_loop_goes_on_while_the_server_hangs(server: RedisServer) -> None:
    """The awaitable forms wait in a thread."""
    with open_at(server) as node:
        manager = SessionManager(node, secret_keys=KEY)

        async def ticks() -> tuple[str, int]:
            session = await manager.aload([])
            session["k"] = 1
            cookie = cookie_of((await manager.acommit(session)).set_cookie)
            server.signal(signal.SIGSTOP)
            load = asyncio.create_task(manager.aload([cookie]))
            count = 0
            while not load.done():
                await asyncio.sleep(0.01)
                count += 1
            server.signal(signal.SIGCONT)
            with pytest.raises(StoreUnavailableError):
                await load
            return cookie, count

        _, count = asyncio.run(ticks())
        assert count > 40


def test_a_server_that_is_away_is_503(server: RedisServer) -> None:
    """Whether it goes before the request or during it; who has no session needs no server."""

    async def change(request: Request) -> Response:
        request.session["k"] = request.session.get("k", 0) + 1
        if "stop" in request.query_params:
            server.stop()
        return PlainTextResponse("ok")

    async def nothing(request: Request) -> Response:
        return PlainTextResponse("ok")

    with open_at(server) as node:
        middleware = Middleware(SessionMiddleware, canister=node, secret_keys=KEY)
        app = Starlette(routes=[Route("/", change), Route("/nothing", nothing)], middleware=[middleware])

        async def requests() -> None:
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="https://test") as client:
                assert (await client.get("/")).status_code == 200
                for path in ("/?stop=1", "/"):
                    answer = await client.get(path)
                    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
                    assert "set-cookie" not in answer.headers
                client.cookies.clear()
                assert (await client.get("/nothing")).text == "ok"

        asyncio.run(requests())


@pytest.mark.parametrize("fork", [os.fork, ctypes.PyDLL(None).fork], ids=["python", "c"])
def test_fork(node: Canister, fork: Callable[[], int]) -> None:
    """Opened before a fork, it works after it on both sides, and the child is a node of its own.

    So it is where C code forks, which tells Python nothing.
    """
    node.put("s", "parent", 1)
    before = node.engine.store.node
    reader, writer = os.pipe()
    child = fork()
    if child == 0:
        try:
            node.put("s", "child", 2)
            os.write(writer, node.engine.store.node + b"%d" % node.get("s", "parent"))
        finally:
            os._exit(0)
    node.put("s", "parent", 3)
    os.waitpid(child, 0)
    said = os.read(reader, 100)
    assert said[:8] != before == node.engine.store.node
    assert said[8:] in (b"1", b"3")
    assert node.get_data("s") == {"parent": 3, "child": 2}


# Acknowledgements.


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[RedisServer, RedisServer]]:
    """Return a master and its replica."""
    with running_redis(tmp_path / "master") as master:
        of = ("--replicaof", f"127.0.0.1 {master.port}")
        with running_redis(tmp_path / "replica", *of) as replica:
            eventually(lambda: acknowledges(master), 15, "the replica acknowledges")
            yield master, replica


def test_acknowledgements(pair: tuple[RedisServer, RedisServer]) -> None:
    """acks= waits for replicas; where one hangs, it says within remote_timeout how many hold the write."""
    master, replica = pair
    with open_at(master) as node:
        node.put("s", "k", 1, acks=2)
        node.put("s", "k", 2, acks="all")
        with replica.client() as client:
            assert client.dbsize() == 1
        assert [member.state for member in node.members()] == ["master", "replica"]
        replica.signal(signal.SIGSTOP)
        for acks in (2, "all", "majority"):

            def short(acks: Any = acks) -> None:
                with pytest.raises(AcknowledgementError, match="1 of the 2 members") as failure:
                    node.put("s", "k", 3, acks=acks)
                assert (failure.value.held, failure.value.needed) == (1, 2)

            assert took(short) < TIMEOUT + 0.3
        assert node.get("s", "k") == 3
        replica.signal(signal.SIGCONT)

        def acknowledged() -> bool:
            try:
                node.put("s", "k", 4, acks=2)
            except AcknowledgementError:
                return False
            return True

        eventually(acknowledged, 10, "the replica goes on")


def test_a_session_manager_waits_for_acknowledgements(pair: tuple[RedisServer, RedisServer]) -> None:
    """What is not acknowledged stands, and the client's cookies are known."""
    master, replica = pair
    with open_at(master) as node:
        manager = SessionManager(node, secret_keys=KEY, acks=2)
        session = manager.load([])
        session["k"] = 1
        cookie = cookie_of(manager.commit(session).set_cookie)
        replica.signal(signal.SIGSTOP)
        session = manager.load([cookie])
        session.regenerate()
        with pytest.raises(AcknowledgementError):
            manager.commit(session)
        assert session.state.outcome is not None
        assert manager.load([cookie_of(session.state.outcome.set_cookie)]) == {"k": 1}
        replica.signal(signal.SIGCONT)
