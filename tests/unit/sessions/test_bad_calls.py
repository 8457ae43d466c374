"""What an application cannot mean is refused in the call, not at the commit, where all else would be lost."""

from datetime import timedelta
from typing import Any

import pytest
from tests.unit.sessions.kit import create, sent

from canister import InputError
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
