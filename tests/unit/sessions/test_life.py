"""Renewal, times of one session, presets, and the commit after the headers."""

import asyncio
import logging
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.unit.sessions.kit import KEY, MINUTE

from canister import (
    Canister,
    ConfigError,
    InputError,
    SessionDestroyedError,
    SessionError,
)
from canister.clock import to_datetime
from canister.config import load_config
from canister.presets import PRESETS
from canister.sessions import Event, EventKind, Outcome, Session, SessionManager
from canister.sessions.renewal import SECRET
from canister.testing.clock import ManualClock


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def canister(directory: Path, clock: ManualClock) -> Iterator[Canister]:
    with open_canister(directory, clock) as canister:
        yield canister


def open_canister(directory: Path, clock: ManualClock, **settings: Any) -> Canister:
    return Canister(directory, agent=False, clock=clock, **settings)


@pytest.fixture
def renewing(directory: Path, clock: ManualClock) -> Iterator[SessionManager]:
    with open_canister(directory, clock, renewal_timeout="10m", renewal_window="2m") as canister:
        yield SessionManager(canister, secret_keys=KEY)


def sent(outcome: Outcome) -> str:
    assert outcome.set_cookie is not None
    return outcome.set_cookie.partition(";")[0].partition("=")[2]


def create(manager: SessionManager, **values: Any) -> str:
    session = manager.load([])
    session.update(values or {"a": 1})
    return sent(manager.commit(session))


def use(manager: SessionManager, cookie: str) -> str | None:
    """Make a request that reads; return the cookie it is sent."""
    session = manager.load([cookie])
    session.get("a")
    outcome = manager.commit(session)
    return sent(outcome) if outcome.set_cookie else None


def secrets_of(session: Session) -> int:
    record = session.state.record
    assert record is not None
    return sum(s.startswith(SECRET) and c.value is not None for s, c in record.cells.items())


# Renewal.


def test_a_secret_is_replaced_when_it_is_old(renewing: SessionManager, clock: ManualClock) -> None:
    cookie = create(renewing)
    assert use(renewing, cookie) is None
    clock.advance(10 * MINUTE)
    renewed = use(renewing, cookie)
    assert renewed is not None
    assert renewed != cookie
    assert renewing.load([renewed]).handle == renewing.load([cookie]).handle, "the same session"


def test_an_untouched_request_renews_nothing(renewing: SessionManager, clock: ManualClock) -> None:
    cookie = create(renewing)
    clock.advance(10 * MINUTE)
    assert renewing.commit(renewing.load([cookie])) == Outcome(None, False)


def test_the_old_secret_is_good_until_the_new_one_shows_up(
    renewing: SessionManager, clock: ManualClock
) -> None:
    cookie = create(renewing)
    clock.advance(10 * MINUTE)
    renewed = use(renewing, cookie)
    assert use(renewing, cookie) == renewed, "an answer that was lost is given again"
    assert renewed is not None
    assert use(renewing, renewed) is None
    assert renewing.load([cookie]).handle is None
    assert secrets_of(renewing.load([renewed])) == 1


def test_the_old_secret_is_good_until_the_window_ends(renewing: SessionManager, clock: ManualClock) -> None:
    cookie = create(renewing)
    clock.advance(10 * MINUTE)
    renewed = use(renewing, cookie)
    clock.advance(2 * MINUTE)
    assert renewing.load([cookie]).handle is None
    assert renewed is not None
    assert renewing.load([renewed]) == {"a": 1}


def test_two_requests_that_renew_at_once_send_the_same_cookie(
    renewing: SessionManager, clock: ManualClock
) -> None:
    cookie = create(renewing)
    clock.advance(10 * MINUTE)
    first, second = renewing.load([cookie]), renewing.load([cookie])
    first["x"], second["y"] = 1, 2
    renewed = sent(renewing.commit(first))
    assert sent(renewing.commit(second)) == renewed
    assert renewing.load([renewed]) == {"a": 1, "x": 1, "y": 2}


def test_two_nodes_that_renew_at_once_agree(
    renewing: SessionManager, tmp_path: Path, clock: ManualClock
) -> None:
    cookie = create(renewing)
    settings = {"renewal_timeout": "10m", "renewal_window": "2m"}
    with open_canister(tmp_path / "other", clock, **settings) as canister:
        other = SessionManager(canister, secret_keys=KEY)
        canister.node.store.merge(renewing.canister.node.store.scan(), {})
        clock.advance(10 * MINUTE)
        here, there = use(renewing, cookie), use(other, cookie)
        assert here is not None
        assert there is not None
        canister.node.store.merge(renewing.canister.node.store.scan(), {})
        renewing.canister.node.store.merge(canister.node.store.scan(), {})
        for manager in (renewing, other):
            assert [manager.load([one]).get("a") for one in (here, there, cookie)] == [1, 1, 1]
            assert secrets_of(manager.load([here])) == 2


def test_a_retired_secret_is_told_and_logged(
    renewing: SessionManager, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    events: list[Event] = []
    session = renewing.load([])
    session.login("ann")
    session["a"] = 1
    cookie = sent(renewing.commit(session))
    clock.advance(10 * MINUTE)
    renewed = use(renewing, cookie)
    assert renewed is not None
    use(renewing, renewed)
    renewing.events.subscribe(events.append)
    handle = renewing.load([renewed]).handle
    renewing.load([cookie])
    assert [(e.kind, e.handle, e.user) for e in events] == [(EventKind.RETIRED_TOKEN_USED, handle, "ann")]
    assert "used after it had been replaced" in caplog.text
    assert renewing.load([renewed]) == {"a": 1}, "the session goes on"


def test_a_renewal_is_an_event(renewing: SessionManager, clock: ManualClock) -> None:
    cookie = create(renewing)
    events: list[Event] = []
    renewing.events.subscribe(events.append)
    clock.advance(10 * MINUTE)
    use(renewing, cookie)
    assert [e.kind for e in events] == [EventKind.RENEWED]


def test_a_session_is_renewed_when_asked(manager: SessionManager) -> None:
    cookie = create(manager)
    session = manager.load([cookie])
    session.renew()
    renewed = sent(manager.commit(session))
    assert manager.load([renewed]) == {"a": 1}


def test_only_the_key_tells_the_next_secret(manager: SessionManager) -> None:
    key = manager.keys.current
    other = SessionManager(manager.canister, secret_keys=KEY.replace("key", "kez")).keys.current
    assert key.next_secret(b"i" * 16, b"s" * 32) != other.next_secret(b"i" * 16, b"s" * 32)
    assert key.next_secret(b"i" * 16, b"s" * 32) != key.next_secret(b"j" * 16, b"s" * 32)


# Times of one session.


def test_a_session_has_times_of_its_own(manager: SessionManager, clock: ManualClock) -> None:
    session = manager.load([])
    session["a"] = 1
    session.set_expiry(idle="2h")
    cookie = sent(manager.commit(session))
    clock.advance(100 * MINUTE)
    session = manager.load([cookie])
    assert session["a"] == 1
    until = to_datetime(clock.now()) + 5 * MINUTE
    session.set_expiry(until=until)
    manager.commit(session)
    assert manager.load([cookie]).ends == until
    clock.advance(5 * MINUTE)
    assert manager.load([cookie]).handle is None


def test_times_go_with_a_log_in_that_sets_them(manager: SessionManager, clock: ManualClock) -> None:
    session = manager.load([create(manager)])
    session.login("ann")
    session.set_expiry(idle="3h")
    cookie = sent(manager.commit(session))
    clock.advance(170 * MINUTE)
    assert manager.load([cookie]).user == "ann"


@pytest.mark.parametrize("idle", ["0s", "soon", timedelta(0)])
def test_impossible_times_are_refused(manager: SessionManager, idle: Any) -> None:
    with pytest.raises(InputError, match="idle"):
        manager.load([]).set_expiry(idle=idle)


def test_a_passive_request_is_no_access(manager: SessionManager, clock: ManualClock) -> None:
    cookie = create(manager)
    clock.advance(15 * MINUTE)
    session = manager.load([cookie])
    session.mark_passive()
    assert session["a"] == 1
    manager.commit(session)
    clock.advance(7 * MINUTE)
    assert manager.load([cookie]).handle is None


@pytest.mark.parametrize("name", PRESETS)
def test_presets_keep_to_the_limits_they_name(name: str) -> None:
    config = load_config({"preset": name}, environ={})
    idle = config.session_timeout + (config.touch_interval or timedelta(0))
    limits = {
        "owasp-high": (5 * MINUTE, 240 * MINUTE),
        "nist-aal1": (None, timedelta(days=30)),
        "nist-aal2": (60 * MINUTE, 1440 * MINUTE),
        "nist-aal3": (15 * MINUTE, 720 * MINUTE),
        "nist-aal1-rev3": (None, timedelta(days=30)),
        "nist-aal2-rev3": (30 * MINUTE, 720 * MINUTE),
        "nist-aal3-rev3": (15 * MINUTE, 720 * MINUTE),
    }
    assert config.absolute_lifetime == limits[name][1]
    assert limits[name][0] in (None, idle)


def test_a_setting_goes_before_the_preset() -> None:
    config = load_config({"session_timeout": "4m"}, environ={"CANISTER_PRESET": "owasp-high"})
    assert config.session_timeout == 4 * MINUTE
    assert config.absolute_lifetime == timedelta(hours=4)
    with pytest.raises(ConfigError, match="no preset 'nist'; there are: owasp-high"):
        load_config({"preset": "nist"}, environ={})


# The commit when the application asks for it.


def test_a_commit_before_the_headers_keeps_the_cookie_for_them(manager: SessionManager) -> None:
    session = manager.load([])
    session["a"] = 1
    session.commit()
    session["b"] = 2
    cookie = sent(manager.commit(session))
    assert manager.load([cookie]) == {"a": 1, "b": 2}


def test_a_commit_after_the_headers_writes(manager: SessionManager) -> None:
    cookie = create(manager)
    session = manager.load([cookie])
    manager.commit(session)
    session["late"] = 1
    session.commit()
    manager.finish(session, "GET /")
    assert manager.load([cookie]) == {"a": 1, "late": 1}


async def _late(manager: SessionManager, session: Session) -> None:
    session["late"] = 1
    await session.acommit()


def test_the_awaitable_commit_writes(manager: SessionManager) -> None:
    cookie = create(manager)
    asyncio.run(_late(manager, manager.load([cookie])))
    assert manager.load([cookie]) == {"a": 1, "late": 1}


def test_no_cookie_can_follow_the_headers(manager: SessionManager, canister: Canister) -> None:
    session = manager.load([])
    manager.commit(session)
    session["late"] = 1
    with pytest.raises(SessionError, match="headers have left"):
        session.commit()
    assert canister.num_local_sessions() == 0


def test_no_renewed_cookie_can_follow_the_headers(manager: SessionManager) -> None:
    session = manager.load([create(manager)])
    manager.commit(session)
    session.renew()
    with pytest.raises(SessionError, match="headers have left"):
        session.commit()


def test_a_commit_never_creates_a_destroyed_session(manager: SessionManager) -> None:
    cookie = create(manager)
    session = manager.load([cookie])
    manager.destroy(manager.load([cookie]))
    session["a"] = 2
    with pytest.raises(SessionDestroyedError):
        manager.commit(session)
    manager.finish(session, "GET /")  # what failed is not reported as lost once more
    assert manager.load([cookie]).handle is None


def test_a_lost_change_raises_where_it_is_tested(
    manager: SessionManager, canister: Canister, caplog: pytest.LogCaptureFixture
) -> None:
    session = manager.load([])
    session["a"] = 1
    with pytest.raises(SessionError, match=r"is lost; call session.commit\(\)"):
        manager.finish(session, "GET /")
    with caplog.at_level(logging.ERROR):
        SessionManager(canister, secret_keys=KEY, strict=False).finish(session, "GET /")
    assert "what GET / changed" in caplog.text


def test_a_session_of_no_manager_cannot_be_stored() -> None:
    with pytest.raises(SessionError, match="no session manager"):
        Session().commit()
