"""Users, shared keys and leases of sessions on Redis: two processes' worth of session managers."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.redis_servers import running_redis

from canister import Canister
from canister.codec import encode_user
from canister.sessions import SessionManager

pytestmark = pytest.mark.integration

KEY = "key-0123456789-abcdefghijklmnopqrs"


@pytest.fixture
def managers(tmp_path: Path) -> Iterator[tuple[SessionManager, SessionManager]]:
    with (
        running_redis(tmp_path) as server,
        Canister(server.url) as first,
        Canister(server.url) as second,
    ):
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
