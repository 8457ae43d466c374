"""Values and sessions that are larger than the settings allow, and what they leave possible."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.unit.sessions.kit import KEY, create, sent

from canister import Canister, TooLargeError
from canister.sessions import SessionManager, SessionStatus
from canister.testing.clock import ManualClock

LARGE = ["x" * 600]
"""A value that can change in place, so that each commit encodes it."""


def opened(path: Path, clock: ManualClock, **settings: Any) -> Canister:
    return Canister(path, agent=False, clock=clock, session_timeout="8h", **settings)


def test_a_value_stored_before_the_limit_was_lowered_hinders_nobody(
    tmp_path: Path, clock: ManualClock
) -> None:
    with opened(tmp_path, clock) as canister:
        cookie = create(SessionManager(canister, secret_keys=KEY), large=LARGE, n=1)
    with opened(tmp_path, clock, max_value=500) as canister:
        manager = SessionManager(canister, secret_keys=KEY)
        session = manager.load([cookie])
        assert session["large"] == LARGE
        assert session.status is SessionStatus.READ
        manager.commit(session)
        session["n"] = 2
        session.login("ann")
        session = manager.load([sent(manager.commit(session).set_cookie)])
        assert (session.user, session["n"], session["large"]) == ("ann", 2, LARGE)
        session["large"].append("y")
        with pytest.raises(TooLargeError, match=r"'large' has 60. bytes, max_value is 500"):
            manager.commit(session)


def test_functions_that_run_again_store_no_value_that_is_too_large(
    tmp_path: Path, clock: ManualClock
) -> None:
    with opened(tmp_path, clock, max_value=500) as canister:
        manager = SessionManager(canister, secret_keys=KEY)
        cookie = create(manager, log=["x" * 90] * 4)
        first, second = manager.load([cookie]), manager.load([cookie])
        for tab in (first, second):
            tab.update_key("log", lambda log: [*log, "y" * 90])
        manager.commit(first)
        with pytest.raises(TooLargeError, match=r"'log' has 5.. bytes, max_value is 500"):
            manager.commit(second)
        assert len(manager.load([cookie])["log"]) == 5


def test_a_session_that_is_too_large_is_renewed_and_made_smaller(tmp_path: Path, clock: ManualClock) -> None:
    """It may have become so by a merge; what a commit does by itself is not its user's fault."""
    with opened(tmp_path, clock) as canister:
        cookie = create(SessionManager(canister, secret_keys=KEY), a="x" * 900, b="x" * 900, n=1)
    clock.advance(timedelta(hours=5))
    with opened(tmp_path, clock, max_value=1000, max_session=1500) as canister:
        manager = SessionManager(canister, secret_keys=KEY)
        session = manager.load([cookie])
        assert session["n"] == 1
        form = session.csrf_token()
        cookie = sent(manager.commit(session).set_cookie)
        session = manager.load([cookie])
        assert session.is_csrf_token(form)
        session["c"] = "x"
        with pytest.raises(TooLargeError, match="max_session is 1500"):
            manager.commit(session)
        session = manager.load([cookie])
        session.increment("n")
        with pytest.raises(TooLargeError, match="max_session is 1500"):
            manager.commit(session)
        clock.advance(timedelta(hours=5))
        session = manager.load([cookie])
        session["a"] = "x" * 890  # the new secret takes more than that
        cookie = sent(manager.commit(session).set_cookie)
        assert manager.load([cookie])["a"] == "x" * 890


def test_what_removed_keys_leave_behind_counts_and_is_named(tmp_path: Path, clock: ManualClock) -> None:
    with opened(tmp_path, clock, max_value=1000, max_session=1500) as canister:
        manager = SessionManager(canister, secret_keys=KEY)
        cookie = create(manager, **{f"{n:0100}": 1 for n in range(8)})
        session = manager.load([cookie])
        for key in list(session):
            del session[key]
        manager.commit(session)
        session = manager.load([cookie])
        session["a"] = "x" * 900
        with pytest.raises(TooLargeError, match="with what 8 removed keys leave behind, max_session is 1500"):
            manager.commit(session)
        session.regenerate()
        manager.commit(session)
