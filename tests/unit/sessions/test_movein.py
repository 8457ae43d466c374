"""Sessions of another system that go on here."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from canister import Canister, ConfigError, OldSystemError
from canister.clock import to_datetime
from canister.life import hard_end
from canister.record import stamp_of
from canister.sessions import Session, SessionManager
from canister.sessions.movein import OldSession
from canister.testing.clock import ManualClock

KEY = "key-0123456789-abcdefghijklmnopqrs"
NEW_KEY = "new-key-0123456789-abcdefghijklmnop"
DAY = timedelta(days=1)
OLD = ["x=y; old=credential-1"]


class Book:
    """An old system that keeps its sessions in a dictionary."""

    cookie_name = "old"

    def __init__(self, clock: ManualClock) -> None:
        self.created = to_datetime(clock.now()) - DAY
        self.sessions: dict[str, dict[Any, Any]] = {"credential-1": {"cart": [1], "odd": object}}
        self.user: str | None = "ann"

    def find(self, value: str) -> OldSession | None:
        data = self.sessions.get(value)
        if data is None:
            return None
        return OldSession(value, data, self.created + 3 * DAY, self.created, self.user)


@pytest.fixture
def book(clock: ManualClock) -> Book:
    return Book(clock)


@pytest.fixture
def manager(tmp_path: Path, clock: ManualClock, book: Book) -> Iterator[SessionManager]:
    with Canister(tmp_path / "data", agent=False, clock=clock, session_timeout="2d") as canister:
        yield SessionManager(canister, secret_keys=KEY, move_in=[book])


@pytest.fixture
def other(tmp_path: Path, clock: ManualClock, book: Book) -> Iterator[SessionManager]:
    with Canister(tmp_path / "other", agent=False, clock=clock, session_timeout="2d") as canister:
        yield SessionManager(canister, secret_keys=KEY, move_in=[book])


def request(manager: SessionManager, headers: list[str]) -> tuple[Any, str | None]:
    session = manager.open(headers)
    set_cookie = manager.commit(session).set_cookie
    return session, set_cookie.partition(";")[0] if set_cookie else None


def exchange(a: SessionManager, b: SessionManager) -> None:
    for source, target in ((a, b), (b, a)):
        target.canister.node.store.merge(source.canister.node.store.scan(), {})


def test_a_session_moves_in_with_its_data_and_its_user(
    manager: SessionManager, caplog: pytest.LogCaptureFixture
) -> None:
    session, cookie = request(manager, OLD)
    assert (dict(session), session.user) == ({"cart": [1]}, "ann")
    assert "key 'odd'" in caplog.text, "what cannot be stored is left behind, and said"
    assert cookie is not None
    again, none = request(manager, [f"{OLD[0]}; {cookie}"])
    assert (again.handle, none) == (session.handle, None)
    assert "credential-1" not in caplog.text


def test_it_ends_when_the_old_one_would_have(manager: SessionManager, clock: ManualClock, book: Book) -> None:
    session, cookie = request(manager, OLD)
    record = session.state.record
    assert record.birth.born == int(book.created.timestamp() * 1e6)
    clock.advance(DAY)
    assert cookie is not None
    assert manager.open([cookie])["cart"] == [1]
    manager.commit(manager.open([cookie]))
    clock.advance(DAY)
    assert manager.open([cookie]).handle is None


def test_it_may_be_idle_as_long_as_there(
    tmp_path: Path, clock: ManualClock, book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = book.created + 3 * DAY
    old = OldSession("credential-1", {"a": 1}, ends, book.created, idle=timedelta(hours=6))
    monkeypatch.setattr(book, "find", lambda _value: old)
    with Canister(tmp_path / "idle", agent=False, clock=clock, session_timeout="20m") as canister:
        manager = SessionManager(canister, secret_keys=KEY, move_in=[book])
        _, cookie = request(manager, OLD)
        assert cookie is not None
        for hours, there in ((5, True), (7, False)):
            clock.advance(timedelta(hours=hours))
            session = manager.open([cookie])
            assert (session.get("a") == 1) is there
            manager.commit(session)


def test_idle_is_no_longer_than_the_session_lasts(manager: SessionManager, book: Book) -> None:
    ends = book.created + 3 * DAY
    book.find = lambda value: OldSession(value, {}, ends, book.created, idle=40 * DAY)  # type: ignore[method-assign]
    expiry = manager.open(OLD).state.record.expiry
    assert expiry.idle == int((3 * DAY).total_seconds() * 1e6)


@pytest.mark.parametrize("use", ["get", "login", "destroy", "logout", "regenerate", "set"])
def test_nobody_gets_a_new_session_beside_an_old_one_that_cannot_be_asked_for(
    manager: SessionManager, book: Book, monkeypatch: pytest.MonkeyPatch, use: str
) -> None:
    """It would come up again once the new one had been logged out."""

    def down(_value: str) -> OldSession | None:
        raise OldSystemError("the book is lost")

    uses: dict[str, Callable[[Session], object]] = {
        "get": lambda session: session.get("cart"),
        "login": lambda session: session.login("bob"),
        "destroy": lambda session: session.destroy(),
        "logout": lambda session: session.logout(),
        "regenerate": lambda session: session.regenerate(),
        "set": lambda session: session.update(a=1),
    }
    with monkeypatch.context() as patched:
        patched.setattr(book, "find", down)
        session = manager.open(OLD)
        assert session.cannot_tell
        with pytest.raises(OldSystemError, match="the book is lost"):
            uses[use](session)
        assert manager.commit(session).cookies == []
        successor = manager.open([])
        with pytest.raises(OldSystemError):
            successor.supersede(session)
    assert manager.open(OLD).user == "ann"


def test_the_cookie_is_due_until_it_was_sent(manager: SessionManager) -> None:
    session = manager.open(OLD)
    assert manager.is_due(session)
    manager.commit(session)
    assert not manager.is_due(session)


def test_two_requests_that_move_in_at_once_meet_in_one_session(manager: SessionManager) -> None:
    first, second = manager.open(OLD), manager.open(OLD)
    first["a"], second["b"] = 1, 2
    cookies = {manager.commit(session).set_cookie for session in (first, second)}
    assert len(cookies) == 1
    assert dict(manager.open(OLD)) == {"cart": [1], "a": 1, "b": 2}


def test_two_nodes_that_let_it_in_agree(manager: SessionManager, other: SessionManager) -> None:
    here, _ = request(manager, OLD)
    there, _ = request(other, OLD)
    assert here.handle == there.handle
    exchange(manager, other)
    birth = manager.open(OLD).state.record.birth
    assert birth == other.open(OLD).state.record.birth


def test_an_old_cookie_cannot_undo_a_log_out(manager: SessionManager, clock: ManualClock) -> None:
    _, cookie = request(manager, OLD)
    assert cookie is not None
    manager.destroy(manager.open([cookie]))
    clock.advance(DAY * 1.9)
    manager.canister.delete_deleted_sessions()
    assert request(manager, OLD)[0].handle is None


@pytest.mark.parametrize("keys", [[KEY, NEW_KEY], [NEW_KEY, KEY], [NEW_KEY]])
def test_an_old_cookie_cannot_undo_a_log_out_after_the_secret_key_was_replaced(
    manager: SessionManager, book: Book, keys: list[str]
) -> None:
    _, cookie = request(manager, OLD)
    assert cookie is not None
    manager.destroy(manager.open([cookie]))
    rolled = SessionManager(manager.canister, secret_keys=keys, move_in=[book])
    assert request(rolled, OLD)[0].handle is None


@pytest.mark.parametrize("keys", [[KEY, NEW_KEY], [NEW_KEY, KEY]])
def test_who_moved_in_goes_on_while_the_secret_key_is_replaced(
    manager: SessionManager, book: Book, keys: list[str]
) -> None:
    """A client that the answer never reached still shows the old cookie."""
    session, _ = request(manager, OLD)
    rolled = SessionManager(manager.canister, secret_keys=keys, move_in=[book])
    again, cookie = request(rolled, OLD)
    assert (again.handle, again.user) == (session.handle, "ann")
    assert cookie is not None
    assert manager.open([cookie]).user == "ann", "where the new key is not listed yet"


def test_a_log_out_on_one_side_wins_over_a_move_in_on_the_other(
    manager: SessionManager, other: SessionManager
) -> None:
    """Rule R11: the birth comes from the credential, so the tombstone outlives the other side's copy."""
    _, cookie = request(manager, OLD)
    assert cookie is not None
    manager.destroy(manager.open([cookie]))
    session, _ = request(other, OLD)
    assert session.user == "ann"
    exchange(manager, other)
    assert other.open(OLD).handle is None


def test_an_old_cookie_cannot_undo_an_idle_time_out(tmp_path: Path, clock: ManualClock, book: Book) -> None:
    with Canister(tmp_path / "strict", agent=False, clock=clock, session_timeout="20m") as canister:
        manager = SessionManager(canister, secret_keys=KEY, move_in=[book])
        request(manager, OLD)
        clock.advance(DAY)
        canister.clear_untouched_sessions()
        assert request(manager, OLD)[0].handle is None


def test_an_old_cookie_does_not_lead_into_a_session_that_went_on(manager: SessionManager) -> None:
    _, cookie = request(manager, OLD)
    assert cookie is not None
    session = manager.open([cookie])
    session.login("ann")
    manager.commit(session)
    assert manager.open(OLD).handle is None


def test_an_own_cookie_goes_first_and_a_stale_one_does_not_hinder(manager: SessionManager) -> None:
    fresh = manager.open([])
    fresh["own"] = 1
    set_cookie = manager.commit(fresh).set_cookie
    assert set_cookie is not None
    own = set_cookie.partition(";")[0]
    assert dict(manager.open([f"{own}; {OLD[0]}"])) == {"own": 1}
    manager.destroy(manager.open([own]))
    assert manager.open([f"{own}; {OLD[0]}"]).user == "ann"


@pytest.mark.parametrize("header", ["old=forged", "old=", "", "old", "old=\x00", json.dumps({"old": 1})])
def test_what_the_old_system_does_not_know_moves_nothing_in(manager: SessionManager, header: str) -> None:
    assert request(manager, [header]) == ({}, None)


def test_an_end_in_the_past_or_too_far_off_moves_nothing_in(
    manager: SessionManager, book: Book, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = to_datetime(manager.canister.node.clock.now())
    for created, ends in ((datetime(2020, 1, 1, tzinfo=UTC), now), (now + 500 * DAY, now + 501 * DAY)):
        monkeypatch.setattr(book, "find", lambda v, e=ends, c=created: OldSession(v, {}, e, c))
        assert manager.open(OLD).handle is None
    assert "cannot move in" in caplog.text


def test_a_session_without_an_end_to_speak_of_gets_the_longest_there_is(
    manager: SessionManager, book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, ends in enumerate((book.created + 4000 * DAY, datetime.max.replace(tzinfo=UTC))):
        old = OldSession(f"endless-{number}", {"a": 1}, ends, book.created)
        monkeypatch.setattr(book, "find", lambda value, old=old: old)
        record = manager.open(OLD).state.record
        assert hard_end(record) == int((book.created + 400 * DAY).timestamp() * 1e6)


def test_an_end_that_no_sum_of_dates_reaches(
    manager: SessionManager, book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = datetime.max.replace(tzinfo=UTC)
    monkeypatch.setattr(book, "find", lambda value: OldSession(value, {"a": 1}, late, late - DAY))
    assert manager.open(OLD).handle is None


def test_an_old_clock_that_is_ahead_logs_nobody_out(
    manager: SessionManager, other: SessionManager, book: Book, clock: ManualClock
) -> None:
    book.created = to_datetime(clock.now()) + timedelta(seconds=2)
    ends = int((book.created + 3 * DAY).timestamp() * 1e6)
    assert manager.open(OLD).user == "ann"
    clock.advance(timedelta(seconds=1))
    assert other.open(OLD).user == "ann"
    exchange(manager, other)
    records = [node.open(OLD).state.record for node in (manager, other)]
    assert records[0].birth == records[1].birth
    assert [hard_end(record) for record in records] == [ends, ends]
    assert records[0].birth.born <= stamp_of(records[0].birth.version), "peers refuse a birth to come"


def test_an_old_cookie_does_not_lead_into_a_session_whose_secret_was_renewed(
    tmp_path: Path, clock: ManualClock, book: Book
) -> None:
    times = {"session_timeout": "2d", "renewal_timeout": "1h"}
    with Canister(tmp_path / "renews", agent=False, clock=clock, **times) as canister:
        manager = SessionManager(canister, secret_keys=KEY, move_in=[book])
        _, first = request(manager, OLD)
        assert first is not None
        assert manager.open(OLD).handle is not None
        clock.advance(timedelta(hours=2))
        session = manager.open([first])
        dict(session)
        assert manager.commit(session).set_cookie is not None
        assert manager.open([first]).handle == session.handle, "the old secret is good for a while"
        assert manager.open(OLD).handle is None


def test_a_request_that_loses_the_race_takes_nothing_back(
    manager: SessionManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = manager.canister.node
    load, raced = node.load, []

    def slow(session: bytes) -> Any:
        found = load(session)
        if not raced:
            raced.append(session)
            faster = manager.open(OLD)
            faster["cart"] = [1, 2]
            manager.commit(faster)
        return found

    monkeypatch.setattr(node, "load", slow)
    assert manager.open(OLD)["cart"] == [1, 2]
    assert raced


def test_odd_cookies_and_others_of_the_same_name_hide_nothing(manager: SessionManager) -> None:
    for header in (
        'a={"x": 1}; old=credential-1',
        "old=stale; old=credential-1",
        "old=credential-1; old=stale",
    ):
        assert manager.open([header]).user == "ann"


def test_ending_all_sessions_of_a_user_reaches_those_that_have_not_moved_in(manager: SessionManager) -> None:
    manager.users.end_all("ann")
    assert manager.open(OLD).handle is None


@pytest.mark.parametrize("user", ["", False, 1.0, {"sub": "ann"}])
def test_a_session_of_a_user_that_cannot_be_stored_stays_behind(
    manager: SessionManager, book: Book, caplog: pytest.LogCaptureFixture, user: Any
) -> None:
    """It is no reason to answer its browser with an error for as long as the old cookie lasts."""
    book.user = user
    session = manager.open(OLD)
    assert (dict(session), session.user) == ({}, None)
    assert "cannot move in" in caplog.text


def test_a_session_that_is_too_large_stays_behind(manager: SessionManager, book: Book) -> None:
    book.sessions["credential-1"] = {f"key {n}": "x" * 200_000 for n in range(8)}
    assert manager.open(OLD) == {}


def test_a_value_that_is_too_large_is_left_behind(
    manager: SessionManager, book: Book, caplog: pytest.LogCaptureFixture
) -> None:
    """Were it stored, every request that reads the session would find it there, too large to be written."""
    book.sessions["credential-1"] = {"cart": [1], "history": ["x" * 300_000]}
    session = manager.open(OLD)
    assert session == {"cart": [1]}
    manager.commit(session)
    assert "left behind: the value of key 'history' has 300006 bytes" in caplog.text


@pytest.mark.parametrize("wrong", ["django", [None], 5])
def test_what_is_no_system_is_refused(tmp_path: Path, wrong: Any) -> None:
    """At once, and not at the first request."""
    with (
        Canister(tmp_path / "data", agent=False) as canister,
        pytest.raises(ConfigError, match="move_in lists systems"),
    ):
        SessionManager(canister, secret_keys=KEY, move_in=wrong)


def test_naive_times_are_told(manager: SessionManager, book: Book, caplog: pytest.LogCaptureFixture) -> None:
    """The session stays behind, as any does that cannot be stored."""
    book.created = book.created.replace(tzinfo=None)
    assert request(manager, OLD)[1] is None
    assert "must be aware datetimes" in caplog.text
