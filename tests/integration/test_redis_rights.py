"""Holds the rights that docs/howto/redis.md gives a user to what the store does with them."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis
from tests.integration.test_cli_kit import run
from tests.redis_servers import RedisServer, running_redis

from canister import Canister, StoreError
from canister.sessions import SessionManager

pytestmark = pytest.mark.integration

PAGE = (Path(__file__).parents[2] / "docs" / "howto" / "redis.md").read_text("utf-8")
LISTED = re.search(r"ACL SETUSER shop (on >PASSWORD .*?)```\n(.*?)\n- ", PAGE, re.DOTALL)
KEY = "key-0123456789-abcdefghijklmnopqrs"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with running_redis(tmp_path / "redis") as server:
        yield server


def rights() -> list[str]:
    """Return the words of the page's command after the user's name."""
    assert LISTED is not None
    return LISTED[1].split()


def allow(server: RedisServer, *words: str, without: str = "") -> str:
    """Make the page's user, with more words; return the URL that it opens."""
    given = [word for word in rights() if word != without]
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "shop", *given, *words)
    return f"redis://shop:PASSWORD@{server.address}"


def use(canister: Canister, name: str = "a") -> None:
    """Do what an application does."""
    canister.put(name, "k", "v")
    canister.put(name, "k", "w")
    canister.update(name, {"x": 1, "y": 2})
    canister.remove(name, "x")
    assert canister.get(name, "k") == "w"
    assert canister.touch(name)
    assert list(canister.all_sessions()) == [name]
    canister.clear(name)
    canister.destroy(name)
    assert canister.num_local_sessions() == 0
    canister.delete_deleted_sessions()
    manager = SessionManager(canister, secret_keys=KEY, max_sessions=1)
    for _ in range(3):
        session = manager.open([])
        session.login("ann")
        manager.commit(session)
    assert len(manager.users.sessions("ann")) == 1
    manager.users.end_all("ann")


def test_the_listed_rights_are_enough(server: RedisServer) -> None:
    with Canister(allow(server), cluster="shop") as canister:
        use(canister)


def test_a_database_and_a_move_need_what_the_page_adds(server: RedisServer, tmp_path: Path) -> None:
    assert LISTED is not None
    added = re.findall(r"`(\+[a-z|]+)`", LISTED[2])
    assert added == ["+select", "+cluster|slots", "+asking", "+hmget", "+del"]
    with pytest.raises(StoreError, match="select"):
        Canister(allow(server) + "/3", cluster="shop")
    url = allow(server, *added) + "/3"
    with Canister(url, cluster="shop") as canister:
        use(canister)
    with Canister(tmp_path / "data", cluster="shop", agent=False):
        pass
    run("migrate", tmp_path / "data", url, "begin")
    with Canister(tmp_path / "data", cluster="shop", agent=False, migrate_to=url) as canister:
        use(canister, "b")
    for step in ("switch", "copy", "finish"):
        run("migrate", tmp_path / "data", url, step)


@pytest.mark.parametrize("right", ["+pexpire", "+hset", "+publish", "+zadd"])
def test_a_right_that_lacks_is_told(server: RedisServer, right: str) -> None:
    url = allow(server, without=right)
    with pytest.raises(StoreError), Canister(url, cluster="shop") as canister:
        use(canister)


def test_whatever_the_list_names_is_a_command(server: RedisServer) -> None:
    """A word that is misspelt would be refused with the whole command."""
    client: Redis = server.client()
    with client:
        known = {name.lower() for name in client.command()}
    assert {word[1:] for word in rights() if word.startswith("+")} <= known
