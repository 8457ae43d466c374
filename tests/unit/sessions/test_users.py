"""Logging in and out, a user's sessions, caps and revocation."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.unit.sessions.kit import KEY, MINUTE

from canister import Canister, ClockError, ConfigError, InputError, StoreBusyError, TooManySessionsError
from canister.sessions import Event, EventKind, Session, SessionManager
from canister.testing.clock import ManualClock


def cookie_of(manager: SessionManager, session: Session) -> str:
    set_cookie = manager.commit(session).set_cookie
    assert set_cookie is not None
    return set_cookie.partition(";")[0].partition("=")[2]


def log_in(manager: SessionManager, user: object = "ann", cookie: str | None = None) -> str:
    session = manager.load([cookie] if cookie else [])
    session.login(user)
    return cookie_of(manager, session)


def user_of(manager: SessionManager, cookie: str) -> object:
    return manager.load([cookie]).user


def test_a_log_in_names_user_time_methods_and_place(manager: SessionManager, clock: ManualClock) -> None:
    session = manager.load([])
    session.login(7, methods=("pwd", "otp"), address="192.0.2.1", agent="Test/1")
    assert session.user == 7
    cookie = cookie_of(manager, session)
    identity = manager.load([cookie]).identity
    assert identity is not None
    assert identity[:1] + identity[2:] == (7, ("pwd", "otp"), "192.0.2.1", "Test/1")
    assert identity.at is not None
    assert abs(identity.at.timestamp() - clock.now() / 1e6) < 1


@pytest.mark.parametrize("user", [None, "", b"", 1.5, "x" * 600, ["ann"]])
def test_what_is_no_user_id_is_refused(manager: SessionManager, user: object) -> None:
    with pytest.raises(InputError, match="user id"):
        manager.load([]).login(user)


def test_a_log_in_moves_to_a_new_id_and_carries_the_keys(manager: SessionManager) -> None:
    session = manager.load([])
    session["cart"] = [1]
    before = cookie_of(manager, session)
    after = log_in(manager, cookie=before)
    assert manager.load([before]) == {}
    assert manager.load([after]) == {"cart": [1]}


def test_another_users_keys_are_not_carried_over(manager: SessionManager) -> None:
    cookie = log_in(manager, "ann")
    session = manager.load([cookie])
    session["secret"] = 1
    manager.commit(session)
    cookie = log_in(manager, "bob", cookie)
    session = manager.load([cookie])
    assert (dict(session), session.user) == ({}, "bob")


def test_logging_in_again_begins_both_time_outs_anew(manager: SessionManager, clock: ManualClock) -> None:
    cookie = log_in(manager)
    first = manager.load([cookie]).identity
    clock.advance(10 * MINUTE)
    again = log_in(manager, cookie=cookie)
    second = manager.load([again])
    record = second.state.record
    assert record is not None
    assert record.birth is not None
    assert record.birth.born == clock.now()
    assert second.identity is not None
    assert first is not None
    assert second.identity.at != first.at


@pytest.mark.parametrize("logs_in", [False, True])
def test_a_new_id_alone_begins_no_absolute_lifetime_anew(
    manager: SessionManager, clock: ManualClock, *, logs_in: bool
) -> None:
    """Only a log-in does: after the absolute lifetime its user has to prove again who it is."""
    session = manager.load([])
    session.set_expiry(idle="30d")
    session.login("ann")
    cookie = cookie_of(manager, session)
    created = manager.users.sessions("ann")[0].created
    for _ in range(3):
        clock.advance(timedelta(days=9))
        session = manager.load([cookie])
        session.regenerate()
        cookie = cookie_of(manager, session)
    assert [one.created for one in manager.users.sessions("ann")] == [created]
    clock.advance(timedelta(days=2))
    assert user_of(manager, cookie) == "ann"
    if logs_in:
        cookie = log_in(manager, cookie=cookie)
    clock.advance(timedelta(days=1))
    assert user_of(manager, cookie) == ("ann" if logs_in else None)


def test_clear_logs_out_and_keeps_the_session(manager: SessionManager) -> None:
    cookie = log_in(manager)
    session = manager.load([cookie])
    session.clear()
    assert session.user is None
    manager.commit(session)
    found = manager.load([cookie])
    assert (found.user, found.handle) == (None, session.handle)


def test_logout_ends_the_session(manager: SessionManager) -> None:
    cookie = log_in(manager)
    session = manager.load([cookie])
    session.logout()
    assert session.user is None
    manager.commit(session)
    assert manager.load([cookie]).handle is None
    assert manager.users.sessions("ann") == []


def test_regenerate_keeps_who_is_logged_in_and_since_when(
    manager: SessionManager, clock: ManualClock
) -> None:
    session = manager.load([log_in(manager)])
    before = session.identity
    clock.advance(MINUTE)
    session.regenerate()
    assert manager.load([cookie_of(manager, session)]).identity == before


def test_the_list_holds_the_users_own_live_sessions(manager: SessionManager, clock: ManualClock) -> None:
    first = log_in(manager)
    clock.advance(MINUTE)
    second = log_in(manager)
    log_in(manager, "bob")
    assert [s.handle for s in manager.users.sessions("ann")] == [
        manager.load([second]).handle,
        manager.load([first]).handle,
    ]
    clock.advance(20 * MINUTE)
    assert [s.handle for s in manager.users.sessions("ann")] == [manager.load([second]).handle]
    clock.advance(20 * MINUTE)
    assert manager.users.sessions("ann") == []


def test_a_user_ends_one_of_the_own_sessions_and_nobody_elses(manager: SessionManager) -> None:
    ann, bob = log_in(manager, "ann"), log_in(manager, "bob")
    handle, foreign = manager.load([ann]).handle, manager.load([bob]).handle
    assert handle is not None
    assert foreign is not None
    assert not manager.users.end("ann", foreign)
    assert user_of(manager, bob) == "bob"
    assert manager.users.end("ann", handle)
    assert user_of(manager, ann) is None
    assert not manager.users.end("ann", handle)


def test_end_all_but_the_present_one(manager: SessionManager) -> None:
    cookies = [log_in(manager) for _ in range(3)]
    bob = log_in(manager, "bob")
    kept = manager.load(cookies[:1]).handle
    assert manager.users.end_all("ann", keep=kept) == 2
    assert [user_of(manager, cookie) for cookie in cookies] == ["ann", None, None]
    assert user_of(manager, bob) == "bob"
    assert manager.users.end_all("ann") == 1
    assert user_of(manager, cookies[0]) is None
    assert user_of(manager, log_in(manager)) == "ann"


def leave_it(session: Session) -> None:
    assert session.user == "ann"


def begin_anew(session: Session) -> None:
    session.login("ann")


@pytest.mark.parametrize("act", [leave_it, Session.regenerate, begin_anew, Session.logout])
def test_the_session_that_stays_is_given_itself(
    manager: SessionManager, act: Callable[[Session], Any]
) -> None:
    """Also where it is about to go on under a new id, and has no handle."""
    cookies = [log_in(manager) for _ in range(2)]
    session = manager.load(cookies[:1])
    act(session)
    manager.users.end_all("ann", keep=session)
    fresh = manager.commit(session).set_cookie
    cookie = cookies[0] if fresh is None else fresh.partition(";")[0].partition("=")[2]
    assert user_of(manager, cookie) == (None if act is Session.logout else "ann")
    assert user_of(manager, cookies[1]) is None


def test_a_session_that_is_to_stay_and_cannot_be_told_is_an_error(manager: SessionManager) -> None:
    cookie = log_in(manager)
    session = manager.load([cookie])
    session.regenerate()
    with pytest.raises(InputError, match="give the session itself"):
        manager.users.end_all("ann", keep=session.handle)  # type: ignore[arg-type]
    assert user_of(manager, cookie) == "ann"


def carry(source: Canister, target: Canister) -> None:
    """Give all that one node holds to another."""
    batch = source.node.store.scan()
    target.node.store.merge(batch, {})


@pytest.fixture
def other(tmp_path: Path, clock: ManualClock) -> Iterator[SessionManager]:
    with Canister(tmp_path / "other", agent=False, clock=clock) as canister:
        yield SessionManager(canister, secret_keys=KEY)


def test_end_all_where_the_clock_is_wrong_ends_what_is_known(
    manager: SessionManager, canister: Canister
) -> None:
    """A destroy waits for no clock. That all are over is to be said again once the clock is right."""
    cookies = [log_in(manager), log_in(manager)]
    canister.node.store.set_clock_off(True)
    with pytest.raises(ClockError, match="clock"):
        manager.users.end_all("ann")
    assert [user_of(manager, cookie) for cookie in cookies] == [None, None]


def test_end_all_reaches_what_the_other_side_of_a_split_holds(
    manager: SessionManager, other: SessionManager, clock: ManualClock
) -> None:
    """Rule R27: what did not know of it, and was not surely later, falls once it is heard of."""
    there = log_in(other)
    manager.users.end_all("ann")
    clock.advance(timedelta(seconds=30))
    soon = log_in(other)
    clock.advance(timedelta(seconds=31))
    later = log_in(other)
    assert [user_of(other, cookie) for cookie in (there, soon, later)] == ["ann"] * 3
    carry(manager.canister, other.canister)
    assert [user_of(other, cookie) for cookie in (there, soon, later)] == [None, None, "ann"]
    carry(other.canister, manager.canister)
    assert [user_of(manager, cookie) for cookie in (there, soon, later)] == [None, None, "ann"]
    assert len(other.users.sessions("ann")) == 1


def test_a_log_in_that_knew_of_the_revocation_stands(manager: SessionManager) -> None:
    manager.users.end_all("ann")
    assert user_of(manager, log_in(manager)) == "ann"


def test_a_new_id_does_not_outlive_the_revocation(
    manager: SessionManager, other: SessionManager, clock: ManualClock
) -> None:
    """The log-in is what counts, not the id: a privilege change cut off from the news is no log-in."""
    cookie = log_in(other)
    manager.users.end_all("ann")
    clock.advance(2 * MINUTE)
    session = other.load([cookie])
    session.regenerate()
    moved = cookie_of(other, session)
    carry(manager.canister, other.canister)
    assert user_of(other, moved) is None


def test_the_record_of_a_user_is_no_session(manager: SessionManager, canister: Canister) -> None:
    manager.users.end_all("ann")
    assert list(canister.all_sessions()) == []
    assert canister.num_local_sessions() == 0


def test_the_record_of_a_user_outlives_what_it_covers(
    manager: SessionManager, canister: Canister, clock: ManualClock
) -> None:
    manager.users.end_all("ann")
    clock.advance(timedelta(days=400))
    assert canister.clear_untouched_sessions() == 0
    clock.advance(timedelta(days=2))
    assert canister.clear_untouched_sessions() == 1


@pytest.mark.parametrize("most", ["3", 1.5, 0, True])
def test_a_cap_is_a_number_from_one(canister: Canister, most: Any) -> None:
    with pytest.raises(ConfigError, match="max_sessions is a number from 1, or None, not"):
        SessionManager(canister, secret_keys=KEY, max_sessions=most)


def test_a_cap_evicts_the_oldest_log_in(canister: Canister, clock: ManualClock) -> None:
    manager = SessionManager(canister, secret_keys=KEY, max_sessions=2)
    cookies = []
    for _ in range(3):
        cookies.append(log_in(manager))
        clock.advance(MINUTE)
    assert [user_of(manager, cookie) for cookie in cookies] == [None, "ann", "ann"]
    again = log_in(manager, cookie=cookies[1])
    assert [user_of(manager, cookie) for cookie in (cookies[2], again)] == ["ann", "ann"]


def test_a_cap_rejects_a_log_in_and_leaves_everything(canister: Canister) -> None:
    manager = SessionManager(canister, secret_keys=KEY, max_sessions=1, at_cap="reject")
    first = log_in(manager)
    anonymous = manager.load([])
    anonymous["cart"] = 1
    before = cookie_of(manager, anonymous)
    session = manager.load([before])
    session.login("ann")
    with pytest.raises(TooManySessionsError, match="1 sessions"):
        manager.commit(session)
    assert manager.load([before]) == {"cart": 1}
    assert user_of(manager, first) == "ann"
    assert user_of(manager, log_in(manager, cookie=first)) == "ann", "logging in again is no session more"


def test_a_log_in_that_another_one_has_ended_by_the_cap_is_not_answered_as_done(
    canister: Canister, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both were admitted; the other one's commit ended this one's session before it could look."""
    manager, other = (
        SessionManager(canister, secret_keys=KEY, max_sessions=1, at_cap="reject") for _ in range(2)
    )
    keep_cap, winners = manager.users.keep_cap, list[str]()
    monkeypatch.setattr(manager.users, "admit", lambda *_: winners.append(log_in(other)))
    monkeypatch.setattr(manager.users, "keep_cap", lambda user: other.users.keep_cap(user) and keep_cap(user))
    session = manager.load([])
    session.login("ann")
    with pytest.raises(TooManySessionsError):
        manager.commit(session)
    assert manager.discard(session).set_cookie == manager.cookie.end()
    assert user_of(other, winners[0]) == "ann"


def test_a_log_in_after_which_the_cap_cannot_be_kept_has_its_cookie(
    canister: Canister, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stands, and the session before it is over."""

    def busy(_user: object) -> list[str]:
        raise StoreBusyError("another process has the turn")

    manager = SessionManager(canister, secret_keys=KEY, max_sessions=1)
    anonymous = manager.load([])
    anonymous["cart"] = 1
    before = cookie_of(manager, anonymous)
    monkeypatch.setattr(manager.users, "keep_cap", busy)
    session = manager.load([before])
    session.login("ann")
    with pytest.raises(StoreBusyError):
        manager.commit(session)
    outcome = session.state.outcome
    assert outcome is not None
    assert outcome.set_cookie is not None
    assert manager.discard(session) is outcome
    cookie = outcome.set_cookie.partition(";")[0].partition("=")[2]
    assert user_of(manager, cookie) == "ann"
    assert manager.load([before]) == {}


def test_a_log_in_that_a_later_one_evicts_at_once_is_no_error(
    canister: Canister, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a form is sent twice: the other answer's cookie is the one to keep."""
    manager, other = (SessionManager(canister, secret_keys=KEY, max_sessions=n) for n in (1, None))
    keep_cap, winners = manager.users.keep_cap, list[str]()

    def later(user: Any) -> list[str]:
        clock.advance(MINUTE)
        winners.append(log_in(other))
        return keep_cap(user)

    monkeypatch.setattr(manager.users, "keep_cap", later)
    session = manager.load([])
    session.login("ann")
    assert manager.commit(session).set_cookie is None
    assert user_of(manager, winners[0]) == "ann"
    assert len(manager.users.sessions("ann")) == 1


def test_a_cap_is_restored_after_a_split(
    manager: SessionManager, other: SessionManager, clock: ManualClock
) -> None:
    capped = SessionManager(manager.canister, secret_keys=KEY, max_sessions=1)
    there = log_in(other)
    clock.advance(MINUTE)
    here = log_in(capped)
    carry(other.canister, capped.canister)
    clock.advance(2 * MINUTE)
    session = capped.load([here])
    assert session.get("a") is None
    capped.commit(session)
    assert [user_of(capped, cookie) for cookie in (there, here)] == [None, "ann"]


def test_events_tell_what_happened(manager: SessionManager, canister: Canister) -> None:
    events: list[Event] = []
    unsubscribe = manager.subscribe(events.append)
    cookie = log_in(manager)
    handle = manager.load([cookie]).handle
    manager.destroy(manager.load([cookie]))
    manager.load(["rubbish"])
    found = [(e.kind, e.handle, e.user, e.here) for e in events]
    assert found == [
        (EventKind.CREATED, handle, "ann", True),
        (EventKind.DESTROYED, handle, "ann", True),
        (EventKind.UNKNOWN_TOKEN, None, None, True),
    ]
    unsubscribe()
    log_in(manager)
    assert len(events) == 3


def test_one_function_subscribed_twice_is_told_until_both_are_ended(manager: SessionManager) -> None:
    events: list[Event] = []
    told = events.append
    first, second = manager.events.subscribe(told), manager.events.subscribe(told)
    log_in(manager)
    assert len(events) == 2
    first()
    first()
    log_in(manager)
    assert len(events) == 3
    second()
    log_in(manager)
    assert len(events) == 3


@pytest.mark.parametrize("handle", ["no-such-handle", "", "x" * 600, "\ud800", None, 7], ids=ascii)
def test_what_is_no_handle_ends_nothing(manager: SessionManager, handle: Any) -> None:
    """It comes from a form."""
    log_in(manager)
    assert not manager.users.end("ann", handle)
    assert len(manager.users.sessions("ann")) == 1


def test_a_subscriber_that_raises_breaks_nothing(
    manager: SessionManager, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(event: Event) -> None:
        raise RuntimeError("boom")

    manager.events.subscribe(fail)
    assert user_of(manager, log_in(manager)) == "ann"
    assert "a subscriber failed on the event created" in caplog.text


def test_a_session_that_supersedes_another_destroys_it_and_carries_nothing_over(
    manager: SessionManager, canister: Canister
) -> None:
    cookie = log_in(manager, "ann")
    old = manager.load([cookie])
    session = manager.load([])
    session["a"] = 1
    session.supersede(old)
    fresh = cookie_of(manager, session)
    assert (dict(manager.load([fresh])), user_of(manager, fresh)) == ({"a": 1}, None)
    assert canister.record_status(str(old.handle)).status == "destroyed"
    empty = manager.load([])
    empty.supersede(manager.load([fresh]))
    assert manager.commit(empty).set_cookie == manager.cookie.end()
    assert list(canister.all_sessions()) == []
