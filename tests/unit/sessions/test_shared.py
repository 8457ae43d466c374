"""Keys that several requests change at once: update_key, counters, and tokens of forms."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from canister import Canister, InvalidKeyError, InvalidValueError
from canister.sessions import SessionManager
from canister.testing.clock import ManualClock

KEY = "key-0123456789-abcdefghijklmnopqrs"


@pytest.fixture
def manager(tmp_path: Path, clock: ManualClock) -> Iterator[SessionManager]:
    with Canister(tmp_path / "data", agent=False, clock=clock) as canister:
        yield SessionManager(canister, secret_keys=KEY)


@pytest.fixture
def other(tmp_path: Path, clock: ManualClock) -> Iterator[SessionManager]:
    with Canister(tmp_path / "other", agent=False, clock=clock) as canister:
        yield SessionManager(canister, secret_keys=KEY)


def create(manager: SessionManager, **values: Any) -> str:
    session = manager.load([])
    session.update(values or {"a": 1})
    set_cookie = manager.commit(session).set_cookie
    assert set_cookie is not None
    return set_cookie.partition(";")[0].partition("=")[2]


def exchange(a: SessionManager, b: SessionManager) -> None:
    """Give each of two nodes what the other holds."""
    for source, target in ((a, b), (b, a)):
        target.canister.node.store.merge(source.canister.node.store.scan(), {})


def test_update_key_runs_again_on_what_another_request_stored(manager: SessionManager) -> None:
    cookie = create(manager, cart=[])
    first, second = manager.load([cookie]), manager.load([cookie])
    assert first.update_key("cart", lambda cart: [*cart, "a"]) == ["a"]
    second.update_key("cart", lambda cart: [*cart, "b"])
    second.update_key("cart", lambda cart: [*cart, "c"])
    manager.commit(first)
    manager.commit(second)
    assert manager.load([cookie])["cart"] == ["a", "b", "c"]
    assert second["cart"] == ["a", "b", "c"], "the request sees what is stored"
    assert not second.changes().any


@pytest.mark.parametrize("then", [2, 1, None])
def test_another_value_after_update_key_is_the_one_that_stays(
    manager: SessionManager, then: int | None
) -> None:
    """Also the one of before, and none at all."""
    cookie = create(manager, n=1)
    session = manager.load([cookie])
    session.update_key("n", lambda n: n + 1)
    if then is None:
        del session["n"]
    else:
        session["n"] = then
    session["other"] = 0
    left = {"other": 0} if then is None else {"n": then, "other": 0}
    session.commit()
    assert dict(session) == left == manager.load([cookie])
    session["n"] = 2
    manager.commit(session)
    assert manager.load([cookie]) == {"n": 2, "other": 0}


def test_plain_appends_of_two_tabs_to_one_list_keep_one(manager: SessionManager) -> None:
    """What update_key is for: one key has one value, and the last writer's stands."""
    cookie = create(manager, cart=[])
    first, second = manager.load([cookie]), manager.load([cookie])
    first["cart"].append("a")
    second["cart"].append("b")
    manager.commit(first)
    manager.commit(second)
    assert manager.load([cookie])["cart"] == ["b"]


def test_update_key_begins_with_the_default(manager: SessionManager) -> None:
    cookie = create(manager)
    first, second = manager.load([cookie]), manager.load([cookie])
    for session in (first, second):
        session.update_key("n", lambda n: n + 1, default=10)
        manager.commit(session)
    assert manager.load([cookie])["n"] == 12


def test_update_key_works_in_a_new_session_and_in_one_with_a_new_id(manager: SessionManager) -> None:
    session = manager.load([])
    session.update_key("n", lambda n: n + 1, default=0)
    set_cookie = manager.commit(session).set_cookie
    assert set_cookie is not None
    cookie = set_cookie.partition(";")[0].partition("=")[2]
    session, concurrent = manager.load([cookie]), manager.load([cookie])
    concurrent["n"] = 5
    manager.commit(concurrent)
    session.update_key("n", lambda n: n + 1)
    session.regenerate()
    set_cookie = manager.commit(session).set_cookie
    assert set_cookie is not None
    assert manager.load([set_cookie.partition(";")[0].partition("=")[2]])["n"] == 6


def test_a_plain_write_goes_before_and_after_update_key(manager: SessionManager) -> None:
    cookie = create(manager, n=1)
    for before, after, expected in ((5, None, 6), (None, 70, 70)):
        session, concurrent = manager.load([cookie]), manager.load([cookie])
        if before is not None:
            session["n"] = before
        session.update_key("n", lambda n: n + 1)
        if after is not None:
            session["n"] = after
        concurrent["n"] = 100
        manager.commit(concurrent)
        manager.commit(session)
        assert manager.load([cookie])["n"] == expected


def test_what_update_key_makes_has_to_be_storable(manager: SessionManager) -> None:
    with pytest.raises(InvalidValueError, match="key 'n'"):
        manager.load([]).update_key("n", lambda _: object())


def test_counters_of_several_requests_add_up(manager: SessionManager) -> None:
    cookie = create(manager)
    sessions = [manager.load([cookie]) for _ in range(3)]
    for session in sessions:
        assert session.increment("views", 2) == 2
        manager.commit(session)
    session = manager.load([cookie])
    assert session.count("views") == 6
    assert session.increment("views", -1) == 5
    assert "views" not in session
    manager.commit(session)
    assert (session.count("views"), manager.load([cookie]).count("views")) == (5, 5)


def test_counters_add_up_across_a_split(manager: SessionManager, other: SessionManager) -> None:
    cookie = create(manager)
    exchange(manager, other)
    for node, times in ((manager, 3), (other, 4)):
        for _ in range(times):
            session = node.load([cookie])
            session.increment(("article", 7))
            node.commit(session)
    for _ in range(2):
        exchange(manager, other)
        assert manager.load([cookie]).count(("article", 7)) == 7
        assert other.load([cookie]).count(("article", 7)) == 7


def test_what_was_counted_before_a_clear_never_shows_again(
    manager: SessionManager, other: SessionManager
) -> None:
    cookie = create(manager)
    session = manager.load([cookie])
    session.increment("n", 5)
    manager.commit(session)
    exchange(manager, other)
    cleared = other.load([cookie])
    cleared.clear()
    cleared.increment("n", 2)
    other.commit(cleared)
    concurrent = manager.load([cookie])
    concurrent.increment("n")
    manager.commit(concurrent)
    exchange(manager, other)
    assert (manager.load([cookie]).count("n"), other.load([cookie]).count("n")) == (2, 2)
    session = manager.load([cookie])
    session.increment("n")
    manager.commit(session)
    exchange(manager, other)
    assert other.load([cookie]).count("n") == 3


def test_counters_go_with_the_session_to_a_new_id(manager: SessionManager) -> None:
    cookie = create(manager)
    session = manager.load([cookie])
    session.increment("n", 5)
    manager.commit(session)
    session = manager.load([cookie])
    session.increment("n")
    session.regenerate()
    set_cookie = manager.commit(session).set_cookie
    assert set_cookie is not None
    assert session.count("n") == 6
    assert manager.load([set_cookie.partition(";")[0].partition("=")[2]]).count("n") == 6


def test_a_counter_has_a_key_like_any_other(manager: SessionManager) -> None:
    with pytest.raises(InvalidKeyError):
        manager.load([]).increment(True)


def test_a_forms_token_is_of_one_session(manager: SessionManager) -> None:
    session = manager.load([])
    token = session.csrf_token()
    set_cookie = manager.commit(session).set_cookie
    assert set_cookie is not None
    cookie = set_cookie.partition(";")[0].partition("=")[2]
    again = manager.load([cookie])
    assert again.is_csrf_token(token)
    assert again.csrf_token() != token
    assert not again.changes().any
    assert not manager.load([create(manager)]).is_csrf_token(token)
    for wrong in ("", "00", "zz", token[:-2], token[:-1] + ("0" if token[-1] != "0" else "1")):
        assert not again.is_csrf_token(wrong)
    no_field: Any = None
    assert not again.is_csrf_token(no_field)


def test_a_forms_token_ends_with_the_id(manager: SessionManager) -> None:
    session = manager.load([create(manager)])
    token = session.csrf_token()
    manager.commit(session)
    session.login("ann")
    manager.commit(session)
    assert not session.is_csrf_token(token)
