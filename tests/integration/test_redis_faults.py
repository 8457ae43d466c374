"""Servers that fail in the middle of a call, or change places, and what a call then does."""

import asyncio
import socket
import time
from collections.abc import Callable, Iterator
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

from canister import AcknowledgementError, Canister, StoreBusyError, StoreError, StoreUnavailableError
from canister.integrations.asgi import SessionMiddleware
from canister.sessions import SessionManager
from canister.store.redis import RedisStore, deadline, links, wire

pytestmark = pytest.mark.integration

KEY = "key-0123456789-abcdefghijklmnopqrs"
DURABLE = ("--appendonly", "yes", "--appendfsync", "always")
"""Options of a server that has everything again after a restart."""


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[RedisServer, RedisServer]]:
    """Return a master and its replica."""
    with running_redis(tmp_path / "a") as master:
        of = ("--replicaof", "127.0.0.1", str(master.port))
        with running_redis(tmp_path / "b", *of) as replica:
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
        assert set(node.all_sessions()) == {"s"}  # of the one that is master now
        node.put("s", "k", 2)
        assert node.get("s", "k") == 2
        with second.client() as new:
            assert new.exists(*new.keys("*{*"))


def test_who_only_reads_leaves_a_server_that_was_demoted(
    pair: tuple[RedisServer, RedisServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It lives on and would answer for ever, with what it had got by then."""
    first, second = pair
    leads_to = [first]
    monkeypatch.setattr(wire, "resolve", lambda *_: [(socket.AF_INET, ("127.0.0.1", leads_to[0].port))])
    monkeypatch.setattr(links, "_ROLE_FRESH", 0.1)
    with Canister("redis://sessions.internal") as reader:
        reader.put("s", "k", 1)
        eventually(lambda: acknowledges(first), 10, "the replica is linked")
        leads_to[0] = second
        with first.client() as old, second.client() as new:
            new.replicaof("NO", "ONE")
            old.replicaof("127.0.0.1", 1)  # it gets nothing any more
        with Canister("redis://sessions.internal") as writer:
            writer.destroy("s")
        time.sleep(0.1)
        assert reader.get("s", "k") is None
    leads_to[0] = first
    with pytest.raises(StoreUnavailableError, match="is a replica now"):
        Canister(first.url)


def test_a_connection_that_a_firewall_may_have_forgotten_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody would answer on it until the time is over."""
    made = list[wire.Link]()

    def counting(*arguments: Any) -> wire.Link:
        made.append(wire.open_link(*arguments))
        return made[-1]

    monkeypatch.setattr(links, "open_link", counting)
    with running_redis(tmp_path) as server, Canister(server.url) as node:
        node.put("s", "k", 1)
        assert len(made) == 1
        made[0].used -= 31
        assert node.get("s", "k") == 1
        assert len(made) == 2


def restart(server: RedisServer) -> None:
    server.stop()
    server.start()


def test_a_listing_outlasts_a_restart(tmp_path: Path) -> None:
    """Another process makes nothing of the cursor of the one before: everything is listed anew."""
    with running_redis(tmp_path, *DURABLE) as server, Canister(server.url) as node:
        for number in range(1000):
            node.put(f"s{number}", "k", 1)
        sessions = node.all_sessions()
        seen = {next(sessions) for _ in range(300)}
        restart(server)
        seen.update(sessions)
        assert len(seen) == 1000


@pytest.mark.parametrize("demoted", [False, True])
def test_no_position_is_gone_on_from_on_another_server(
    pair: tuple[RedisServer, RedisServer], demoted: bool
) -> None:
    """Neither on one that was started since, nor on one whose data were another one's meanwhile."""
    first, second = pair
    with Canister(first.url) as node:
        for number in range(500):
            node.put(f"s{number}", "k", 1)
        store: Any = node.engine.store
        pages = store.pages()
        position = [next(pages) for _ in range(3)][-1].position
        assert sum(len(page.sessions) for page in store.pages(position)) < 300
        if demoted:
            eventually(lambda: acknowledges(first), 10, "the replica is linked")
            with first.client() as old, second.client() as new:
                new.replicaof("NO", "ONE")
                old.replicaof("127.0.0.1", second.port)
                with pytest.raises(StoreUnavailableError, match="is a replica now"):
                    list(store.pages(position))
                eventually(lambda: acknowledges(second), 10, "the replica is linked")
                old.replicaof("NO", "ONE")
        else:
            restart(first)
            for number in range(500):
                node.put(f"s{number}", "k", 1)
        rest = list(store.pages(position))
        assert rest[0].anew
        assert len({session for page in rest for session, _ in page.sessions}) == 500


@pytest.fixture
def lose_reply(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Return what has the reply to the next write lost, and something done before it is sent again."""
    exchange = wire.Link.exchange
    pending = list[Callable[[], object]]()

    def losing(self: wire.Link, commands: Any, deadline: Any) -> Any:
        if not pending or commands[0][0] not in (b"EVAL", b"EVALSHA"):
            return exchange(self, commands, deadline)
        exchange(self, commands[:1], deadline)
        pending.pop()()
        raise redis.exceptions.ConnectionError("lost")

    monkeypatch.setattr(wire.Link, "exchange", losing)
    return pending.append


def test_a_write_whose_reply_was_lost_is_not_done_again_over_others(
    tmp_path: Path, lose_reply: Callable[[Callable[[], object]], None]
) -> None:
    """It was seen and built upon; what is told of it is what it did."""
    with running_redis(tmp_path) as server, Canister(server.url) as here, Canister(server.url) as there:
        here.put("s", "k", 1)
        there.put("s", "x", 1)  # the server knows the script
        lose_reply(lambda: there.put("s", "other", 1))
        assert here.remove("s", "k")
        assert here.get_data("s") == {"x": 1, "other": 1}
        one, other = (SessionManager(node, secret_keys=KEY) for node in (here, there))
        session = one.open([])
        session["k"] = 1
        cookies = [(one.commit(session).set_cookie or "").partition(";")[0]]
        session, rival = one.open(cookies), other.open(cookies)
        session.increment("n")
        rival["other"] = 1
        lose_reply(lambda: other.commit(rival))
        one.commit(session)
        assert one.open(cookies).count("n") == 1
        assert one.open(cookies)["other"] == 1


def test_a_write_whose_reply_was_lost_is_waited_for(
    pair: tuple[RedisServer, RedisServer], lose_reply: Callable[[Callable[[], object]], None]
) -> None:
    """Though others have written since: what a server waits for is what this connection has written."""
    first, _ = pair

    def written_by_another() -> None:
        there.put("s", "other", 1)
        client.pexpire(key, 1000)

    with Canister(first.url) as here, Canister(first.url) as there, first.client() as client:
        here.put("s", "k", 1)
        (key,) = client.keys()
        lose_reply(written_by_another)
        here.put("s", "k", 2, acks=2)
        assert client.pttl(key) > 1000  # its life was renewed, and so something was written
        assert here.get_data("s") == {"k": 2, "other": 1}


def test_a_write_that_others_get_ahead_of_reads_anew_after_a_pause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it found before the pause is old by then, if they write all the time."""
    with running_redis(tmp_path) as server, Canister(server.url) as here, Canister(server.url) as there:
        pauses = list[float]()

        def others_write(seconds: float) -> None:
            pauses.append(seconds)
            there.put(handle, "n", len(pauses))

        one, other = (SessionManager(node, secret_keys=KEY) for node in (here, there))
        session = one.open([])
        session["k"] = 1
        cookies = [(one.commit(session).set_cookie or "").partition(";")[0]]
        session, rival = one.open(cookies), other.open(cookies)
        handle, rival["rival"] = str(session.handle), 1
        other.commit(rival)
        monkeypatch.setattr(deadline, "pause", others_write)
        session["k"] = 2
        one.commit(session)
        assert len(pauses) == 2
        assert here.get(handle, "k") == 2


def test_who_cannot_get_ahead_of_others_is_answered_503(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(*_: object) -> None:
        raise StoreBusyError("others kept writing")

    async def change(request: Request) -> Response:
        request.session["k"] = 1
        return PlainTextResponse("ok")

    async def request() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="https://test") as client:
            return await client.get("/")

    with running_redis(tmp_path) as server, Canister(server.url) as node:
        middleware = Middleware(SessionMiddleware, canister=node, secret_keys=KEY)
        app = Starlette(routes=[Route("/", change)], middleware=[middleware])
        monkeypatch.setattr(RedisStore, "commit", busy)
        answer = asyncio.run(request())
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")


def test_the_clock_is_not_set_back_by_waiting_for_replicas(tmp_path: Path) -> None:
    with running_redis(tmp_path) as server, Canister(server.url, remote_timeout="1s") as node:
        node.put("s", "k", 1)
        before = node.engine.clock.now() - time.monotonic_ns() // 1000
        with pytest.raises(AcknowledgementError):
            node.put("s", "k", 2, acks=2)
        assert abs(node.engine.clock.now() - time.monotonic_ns() // 1000 - before) < 300_000


def test_nothing_is_written_once_the_store_is_closed(tmp_path: Path) -> None:
    """Not even what was loaded before."""
    with running_redis(tmp_path) as server, server.client() as client:
        node = Canister(server.url)
        manager = SessionManager(node, secret_keys=KEY)
        session = manager.open([])
        session["k"] = 1
        node.close()
        with pytest.raises(StoreError, match="is closed"):
            manager.commit(session)
        assert client.dbsize() == 0
