"""Users, shared keys and leases of sessions on Redis: two processes' worth of session managers."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis
from tests.redis_servers import RedisServer, running_redis

from canister import Canister
from canister.codec import encode_id, encode_user
from canister.edits import DAY
from canister.sessions import SessionManager
from canister.store.redis import users
from canister.store.redis.deadline import Deadline

pytestmark = pytest.mark.integration

KEY = "key-0123456789-abcdefghijklmnopqrs"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with running_redis(tmp_path) as server:
        yield server


@pytest.fixture
def managers(server: RedisServer) -> Iterator[tuple[SessionManager, SessionManager]]:
    with Canister(server.url) as first, Canister(server.url) as second:
        yield (
            SessionManager(first, secret_keys=KEY, max_sessions=3),
            SessionManager(second, secret_keys=KEY),
        )


def log_in(manager: SessionManager) -> str:
    session = manager.open([])
    session["n"] = 1
    session.login("ann")
    set_cookie = manager.commit(session).set_cookie
    assert set_cookie is not None
    return set_cookie.partition(";")[0]


def test_a_users_sessions_are_listed_capped_and_ended(
    managers: tuple[SessionManager, SessionManager],
) -> None:
    here, there = managers
    cookies = [log_in(here) for _ in range(4)]
    assert [there.open([cookie]).user for cookie in cookies] == [None, "ann", "ann", "ann"]
    assert len(there.users.sessions("ann")) == 3
    kept = there.open([cookies[3]]).handle
    assert there.users.end_all("ann", keep=kept) == 2
    assert [here.open([cookie]).user for cookie in cookies] == [None, None, None, "ann"]
    assert list(here.canister.all_sessions()) == [kept]
    assert here.users.sessions("bob") == []


def lists_of(manager: SessionManager, server: RedisServer) -> tuple[Redis, bytes]:
    """Return a client and the key of the only user's list."""
    client = server.client()
    (key,) = client.keys(f"{manager.canister.config.cluster}:user:*")
    return client, key


def ended(count: int) -> list[bytes]:
    return [encode_id(f"ended-{number}") for number in range(count)]


def test_the_list_of_a_user_who_only_logs_in_stays_short(
    server: RedisServer, managers: tuple[SessionManager, SessionManager]
) -> None:
    _, manager = managers
    log_in(manager)
    client, key = lists_of(manager, server)
    with client:
        now = manager.canister.engine.clock.now()
        client.zadd(key, dict.fromkeys(ended(500), now - DAY))
        client.zadd(key, dict.fromkeys([b"s long over", b"s over as well"], now - 402 * DAY))
        for _ in range(20):
            log_in(manager)
        assert client.zcard(key) < 200
        assert not client.zmscore(key, [b"s long over"])[0]
        cookies = [log_in(manager) for _ in range(100)]  # nobody who is logged in is taken out
        assert len(manager.users.sessions("ann")) == 121
        assert client.zcard(key) == 121
    assert manager.open(cookies[:1]).user == "ann"


def test_a_long_list_is_read_page_by_page(
    server: RedisServer, managers: tuple[SessionManager, SessionManager], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many were listed at one instant; each page may take as long as a call."""
    monkeypatch.setattr(users, "_PAGE", 10)
    _, manager = managers
    for _ in range(25):
        log_in(manager)
    client, key = lists_of(manager, server)
    with client:
        client.zadd(key, dict.fromkeys(client.zrange(key, 0, 21), manager.canister.engine.clock.now()))
        client.zadd(key, dict.fromkeys(ended(50), manager.canister.engine.clock.now() - DAY))
        made: list[float] = []
        monkeypatch.setattr(users, "Deadline", lambda patience: made.append(patience) or Deadline(patience))
        assert manager.users.end_all("ann") == 25
        assert len(made) >= 4
        assert client.zcard(key) == 25


def test_a_session_that_was_cleared_is_nobodys(managers: tuple[SessionManager, SessionManager]) -> None:
    here, there = managers
    session = here.open([log_in(here)])
    session.clear()
    here.commit(session)
    assert there.users.sessions("ann") == []
    assert there.canister.engine.store.of_user(encode_user("ann")) == []


def test_keys_that_two_processes_change_at_once(managers: tuple[SessionManager, SessionManager]) -> None:
    here, there = managers
    cookie = log_in(here)
    first, second = here.open([cookie]), there.open([cookie])
    for manager, session in ((here, first), (there, second)):
        session.update_key("n", lambda n: n + 1)
        session.increment("views")
        manager.commit(session)
    assert here.open([cookie])["n"] == 3
    assert here.open([cookie]).count("views") == 2


def test_a_lease_ends_with_the_session(managers: tuple[SessionManager, SessionManager]) -> None:
    here, there = managers
    cookie = log_in(here)
    ended = threading.Event()
    assert here.hold(here.open([cookie]), ended.set) is not None
    there.destroy(there.open([cookie]))
    assert ended.wait(2)
