"""A move while servers are away, members are down, or peers are to hear of it."""

import asyncio
import copy
import secrets
import signal
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.integration.cluster import eventually, free_port
from tests.integration.moves import KEY, Move
from tests.integration.test_cli_kit import pair, refused, run
from tests.redis_servers import RedisServer, running_cluster, running_redis

from canister import Canister, StoreUnavailableError
from canister.cli import migrate
from canister.codec import encode_id
from canister.freshness import missing, seen_in
from canister.migration import leases
from canister.record import SERVERS, Record
from canister.sessions import SessionManager
from canister.store.base import Page
from canister.store.redis import RedisStore

pytestmark = pytest.mark.integration


def test_a_server_that_is_away_fails_clearly_and_loses_nothing(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("CANISTER_CLUSTER", "")
    with running_redis(tmp_path / "redis") as server:
        move = Move(tmp_path / "data", server.url, to_servers=True)
        move.take("begin")
        with move.both(remote_timeout="300ms") as canister:
            canister.put("s", "k", 1)
            server.signal(signal.SIGSTOP)
            calls: list[Callable[[], object]] = [
                lambda: canister.put("s", "k", 2),
                lambda: canister.get("s", "k"),
                lambda: canister.destroy("s"),
            ]
            for call in calls:
                with pytest.raises(StoreUnavailableError):
                    call()
            server.signal(signal.SIGCONT)
            eventually(lambda: reads(canister), message="the server is back")
            assert canister.get("s", "k") in (1, 2)
            canister.destroy("s")
            assert canister.get_data("s") == {}


def reads(canister: Canister) -> bool:
    try:
        return bool(canister.get("s", "k"))
    except StoreUnavailableError:
        return False


def test_a_member_without_the_setting_is_found(
    tmp_path: Path, redis_server: RedisServer, monkeypatch: Any
) -> None:
    monkeypatch.setenv("CANISTER_CLUSTER", secrets.token_hex(8))
    with pair(tmp_path) as (_, b):
        run("migrate", tmp_path / "a", redis_server.url, "begin")
        said = refused("migrate", tmp_path / "a", redis_server.url, "switch")
        assert "no process with migrate_to has been seen on" in said
        assert str(b.config.listen) in said
        with Canister(tmp_path / "b", agent=False, migrate_to=redis_server.url):
            said = refused("migrate", tmp_path / "a", redis_server.url, "switch")
            assert str(b.config.listen) not in said
            with Canister(tmp_path / "a", agent=False, migrate_to=redis_server.url) as canister:
                b.put("of the other member", "k", 1)
                for step in ("switch", "copy", "finish"):
                    run("migrate", tmp_path / "a", redis_server.url, step)
                assert canister.get("of the other member", "k") == 1
    with Canister(redis_server.url) as new:
        assert new.get("of the other member", "k") == 1


def test_what_comes_from_the_servers_is_known_to_all_members(
    tmp_path: Path, redis_server: RedisServer, monkeypatch: Any
) -> None:
    """A browser that was served by Redis is served by any member, which then asks no other."""
    monkeypatch.setenv("CANISTER_CLUSTER", secrets.token_hex(8))
    with Canister(redis_server.url) as old:
        old.put("s", "k", 1)
        seen = seen_in(old.engine.store.load(encode_id("s")).record or Record())
    with pair(tmp_path, digest_interval="1s") as (a, b):
        run("migrate", redis_server.url, tmp_path / "a", "begin")
        both = [
            Canister(redis_server.url, agent=False, migrate_to=path, listen=node.config.listen)
            for path, node in ((tmp_path / "a", a), (tmp_path / "b", b))
        ]
        assert missing(seen, both[1].engine.store.heard_of) == []
        assert missing(seen, b.engine.store.heard_of) != []
        for step in ("switch", "copy", "finish"):
            run("migrate", redis_server.url, tmp_path / "a", step)
        assert b.get("s", "k", local=True) == 1
        eventually(lambda: not missing(seen, b.engine.store.heard_of), message="b has heard that it has all")
        assert b.engine.store.heard_of(SERVERS) > 0
        for canister in both:
            canister.close()


def test_what_is_taken_in_reaches_the_peers_at_once(tmp_path: Path, redis_server: RedisServer) -> None:
    """It goes like a commit, not with the next comparison."""
    with Canister(redis_server.url, cluster=secrets.token_hex(8)) as old:
        old.put("s", "k", 1)
        record = old.engine.store.load(encode_id("s")).record
        assert record is not None
    with pair(tmp_path, digest_interval="10m") as (a, b):
        a.node.take([(encode_id("s"), record)])
        eventually(lambda: b.get("s", "k", local=True) == 1, 5)


def test_a_cluster_is_moved_to_and_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its masters are read one after the other; a session is written to its own."""
    monkeypatch.setenv("CANISTER_CLUSTER", "")
    monkeypatch.setattr(leases, "LEASE", 0.6)
    with running_cluster(tmp_path / "redis") as servers:
        url = f"redis+cluster://{servers[0].address}"
        there = Move(tmp_path / "data", url, to_servers=True)
        with there.plain(there.source) as old:
            for number in range(300):
                old.put(f"s{number}", "k", number)
        back = copy.copy(there)
        back.source, back.target, back.to_servers = there.target, there.source, False
        for move in (there, back):
            move.take("begin")
            with move.both():
                move.take("switch", "copy", "finish")
            with move.plain(move.target) as new:
                assert [new.get(f"s{number}", "k") for number in range(300)] == list(range(300))


def test_a_restart_of_the_servers_amid_a_step_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the copy nor the comparison takes a part of the sessions for all."""
    monkeypatch.setenv("CANISTER_CLUSTER", "")
    monkeypatch.setattr(leases, "LEASE", 0.6)
    durable = ("--appendonly", "yes", "--appendfsync", "always")
    with running_redis(tmp_path / "redis", *durable) as server:
        move = Move(tmp_path / "data", server.url, to_servers=False)
        with move.plain(move.source) as old:
            for number in range(1500):
                old.put(f"s{number}", "k", number)
        move.take("begin")
        with move.both():
            move.take("switch")
        pages = RedisStore.pages

        def restarting(self: RedisStore, position: bytes = b"") -> Iterator[Page]:
            for number, page in enumerate(pages(self, position)):
                yield page
                if number == 5:
                    server.stop()
                    server.start()

        monkeypatch.setattr(RedisStore, "pages", restarting)
        move.take("copy")
        told = run("migrate", move.source, move.target, "finish", "--json").json
        assert told["sessions"] == 1500
        with move.plain(move.target) as new:
            assert new.num_local_sessions() == 1500


def test_no_directory_is_made_for_servers_that_cannot_be_reached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrate, "_PATIENCE", timedelta(milliseconds=200))
    monkeypatch.setenv("CANISTER_REMOTE_TIMEOUT", "200ms")
    refused("migrate", f"redis://127.0.0.1:{free_port()}", tmp_path / "data", "begin")
    assert not (tmp_path / "data").exists()


def test_an_event_loop_goes_on_while_the_servers_hang(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though the process has to ask for the step again."""
    monkeypatch.setenv("CANISTER_CLUSTER", "")
    monkeypatch.setattr(leases, "LEASE", 0.0)
    monkeypatch.setattr(leases, "_RENEWAL", 0.0)

    async def beat(gaps: list[float]) -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.01)
            gaps.append(time.monotonic() - before)

    async def request(manager: SessionManager) -> float:
        gaps: list[float] = []
        beating = asyncio.create_task(beat(gaps))
        session = await manager.aload([], ["what the browser has seen"])
        session["k"] = 1
        with pytest.raises(StoreUnavailableError):
            await manager.acommit(session)
        beating.cancel()
        return max(gaps)

    with running_redis(tmp_path / "redis") as server:
        move = Move(tmp_path / "data", server.url, to_servers=True)
        move.take("begin")
        with move.both(remote_timeout="1500ms") as canister:
            server.signal(signal.SIGSTOP)
            assert asyncio.run(request(SessionManager(canister, secret_keys=KEY))) < 1
            server.signal(signal.SIGCONT)
