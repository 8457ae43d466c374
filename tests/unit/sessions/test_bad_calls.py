"""What an application cannot mean is refused in the call, not at the commit, where all else would be lost."""

from datetime import timedelta
from typing import Any

import pytest
from tests.unit.sessions.kit import create, sent

from canister import InputError, TooLargeError
from canister.clock import to_datetime
from canister.sessions import SessionManager
from canister.testing.clock import ManualClock

DAY = timedelta(days=1)


@pytest.mark.parametrize(
    "age", [500 * DAY, timedelta(0), timedelta(milliseconds=100), -DAY, 3600, "1h"], ids=repr
)
def test_a_cookie_is_not_kept_for_an_age_there_is_not(manager: SessionManager, age: Any) -> None:
    session = manager.load([])
    session.login("ann")
    with pytest.raises(InputError, match="1 second to 400 days"):
        session.set_cookie_age(age)
    assert "Max-Age" not in str(manager.commit(session).set_cookie)
    assert len(manager.users.sessions("ann")) == 1


@pytest.mark.parametrize("stored", [True, False])
def test_no_session_is_given_times_past_its_absolute_lifetime(
    manager: SessionManager, clock: ManualClock, stored: bool
) -> None:
    cookies = [create(manager, n=1)] if stored else []
    clock.advance(timedelta(minutes=10))
    session = manager.load(cookies)
    session["n"] = 2
    with pytest.raises(InputError, match="idle is longer than the session's absolute lifetime"):
        session.set_expiry(idle="31d")
    end = to_datetime(clock.now()) + 30 * DAY
    with pytest.raises(InputError, match="until is past the session's absolute lifetime"):
        session.set_expiry(until=end + timedelta(seconds=1))
    if stored:
        for change in (lambda: None, session.regenerate):
            change()
            with pytest.raises(InputError, match="until is past"):
                session.set_expiry(until=end)
        session.login("ann")
    session.set_expiry(until=end)  # it begins now, or anew
    session = manager.load([sent(manager.commit(session).set_cookie)])
    assert session["n"] == 2


@pytest.mark.parametrize(
    "what",
    [
        {"methods": "pwd"},
        {"methods": ("pwd", 1)},
        {"methods": None},
        {"address": object()},
        {"address": b"192.0.2.7"},
        {"agent": 7},
    ],
    ids=str,
)
def test_a_log_in_says_how_and_from_where_by_texts(manager: SessionManager, what: Any) -> None:
    session = manager.load([])
    session["cart"] = 1
    with pytest.raises(InputError):
        session.login("ann", **what)
    session = manager.load([sent(manager.commit(session).set_cookie)])
    assert (session["cart"], session.user) == (1, None)
    session.login("ann", methods=["pwd", "otp"], address="192.0.2.7")
    session = manager.load([sent(manager.commit(session).set_cookie)])
    assert session.identity is not None
    assert session.identity.methods == ("pwd", "otp")


@pytest.mark.parametrize("by", [0.5, float("nan"), True, "1", None], ids=str)
def test_a_counter_counts_by_whole_numbers(manager: SessionManager, by: Any) -> None:
    session = manager.load([])
    assert session.increment("clicks") == 1
    with pytest.raises(InputError, match="by an int"):
        session.increment("clicks", by)
    assert manager.load([sent(manager.commit(session).set_cookie)]).count("clicks") == 1


def test_a_counter_is_no_larger_than_a_value(manager: SessionManager) -> None:
    session = manager.load([create(manager, n=1)])
    session.increment("clicks", 1 << 3_000_000)
    with pytest.raises(TooLargeError, match=r"'clicks' has 37.... bytes, max_value is 262144"):
        manager.commit(session)


def test_a_default_that_a_function_changes_in_place_stays_as_it_was(manager: SessionManager) -> None:
    """The function runs again where the key was removed meanwhile."""
    cookie = create(manager, cart=["a"])
    default: list[str] = []

    def add(cart: list[str]) -> list[str]:
        cart.append("tea")
        return cart

    first, second, third = (manager.load([cookie]) for _ in range(3))
    for session in (first, third):
        session.update_key("cart", add, default)
    del second["cart"]
    manager.commit(second)
    for session in (first, third):
        manager.commit(session)
    assert manager.load([cookie])["cart"] == ["tea", "tea"]
    assert manager.load([]).update_key("cart", add, default) == ["tea"]
    assert default == []
