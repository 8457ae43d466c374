"""What a request writes of its session, and which cookie it sends."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.unit.sessions.kit import KEY, MINUTE, create, log_of, sent

from canister import Canister
from canister.codec import key_slot
from canister.errors import InvalidValueError
from canister.record import decode_record
from canister.sessions import CookieSettings, Outcome, Session, SessionManager, SessionStatus
from canister.testing.clock import ManualClock


def test_an_unused_new_session_writes_nothing_and_sets_no_cookie(
    manager: SessionManager, canister: Canister
) -> None:
    outcome = manager.commit(manager.load([]))
    assert outcome == Outcome(None, False)
    assert log_of(canister) == []


def test_a_new_session_that_was_only_read_is_not_stored(manager: SessionManager, canister: Canister) -> None:
    session = manager.load([])
    assert session.get("a") is None
    assert manager.commit(session) == Outcome(None, True)
    assert log_of(canister) == []


def test_a_session_is_created_by_the_first_value_and_found_by_its_cookie(manager: SessionManager) -> None:
    session = manager.load([])
    session["a"] = [1]
    cookie = sent(manager.commit(session).set_cookie)
    found = manager.load([cookie])
    assert found.status is SessionStatus.UNREAD
    assert found == {"a": [1]}
    assert found.handle == session.handle


def test_the_library_knows_the_session_by_its_handle(manager: SessionManager, canister: Canister) -> None:
    session = manager.load([create(manager, a=1)])
    assert session.handle is not None
    assert canister.get_data(session.handle) == {"a": 1}
    canister.destroy(session.handle)


def test_an_unused_session_writes_nothing_and_sets_no_cookie(
    manager: SessionManager, canister: Canister, clock: ManualClock
) -> None:
    cookie = create(manager, a=1)
    before = log_of(canister)
    clock.advance(10 * MINUTE)
    assert manager.commit(manager.load([cookie])) == Outcome(None, False)
    assert log_of(canister) == before


def test_a_session_that_was_peeked_at_is_not_touched(
    manager: SessionManager, canister: Canister, clock: ManualClock
) -> None:
    cookie = create(manager, a=1)
    before = log_of(canister)
    clock.advance(10 * MINUTE)
    session = manager.load([cookie])
    assert session.peek("a") == 1
    assert manager.commit(session) == Outcome(None, True)
    assert log_of(canister) == before


def test_reading_touches_once_in_a_touch_interval(
    manager: SessionManager, canister: Canister, clock: ManualClock
) -> None:
    cookie = create(manager, a=1)
    entries = [len(log_of(canister))]
    for seconds in (59, 1, 59, 1):
        clock.advance(timedelta(seconds=seconds))
        for _ in range(3):
            session = manager.load([cookie])
            assert session["a"] == 1
            assert manager.commit(session).set_cookie is None
        entries.append(len(log_of(canister)))
    assert entries == [1, 1, 2, 2, 3]


def test_a_read_that_is_no_touch_does_not_wait_for_the_write_lock(
    manager: SessionManager, canister: Canister, monkeypatch: pytest.MonkeyPatch
) -> None:
    cookie = create(manager, a=1)
    session = manager.load([cookie])
    assert session["a"] == 1
    monkeypatch.setattr(canister.node, "commit", None)
    assert manager.commit(session).set_cookie is None


def test_reading_keeps_the_session_and_being_idle_ends_it(
    manager: SessionManager, clock: ManualClock
) -> None:
    cookie = create(manager, a=1)
    for _ in range(5):
        clock.advance(15 * MINUTE)
        session = manager.load([cookie])
        assert session["a"] == 1
        manager.commit(session)
    clock.advance(21 * MINUTE)
    assert manager.load([cookie]).status is SessionStatus.NEW


def test_only_the_changed_keys_are_written(manager: SessionManager, canister: Canister) -> None:
    cookie = create(manager, a=1, b=[1], c=3)
    session = manager.load([cookie])
    session["b"].append(2)
    del session["c"]
    session["a"] = 1
    manager.commit(session)
    (change,) = log_of(canister)[-1].changes
    assert set(decode_record(change.delta).cells) == {key_slot("b"), key_slot("c")}
    assert manager.load([cookie]) == {"a": 1, "b": [1, 2]}


def test_requests_at_the_same_time_keep_each_others_keys(manager: SessionManager) -> None:
    cookie = create(manager, a=1, b=1)
    one, two = manager.load([cookie]), manager.load([cookie])
    one["a"] = 2
    two["b"] = 2
    two["c"] = 2
    manager.commit(one)
    manager.commit(two)
    assert manager.load([cookie]) == {"a": 2, "b": 2, "c": 2}


def test_clear_hides_what_another_request_wrote_meanwhile(
    manager: SessionManager, canister: Canister
) -> None:
    cookie = create(manager, a=1)
    one, two = manager.load([cookie]), manager.load([cookie])
    two["b"] = 2
    manager.commit(two)
    one.clear()
    one["c"] = 3
    assert manager.commit(one).set_cookie is None
    assert manager.load([cookie]) == {"c": 3}


def test_a_session_emptied_by_clear_is_still_the_clients(manager: SessionManager) -> None:
    cookie = create(manager, a=1)
    session = manager.load([cookie])
    handle = session.handle
    session.clear()
    manager.commit(session)
    again = manager.load([cookie])
    assert (again.handle, dict(again)) == (handle, {})


def test_a_later_commit_writes_what_changed_since(manager: SessionManager) -> None:
    session = manager.load([])
    session["a"] = 1
    cookie = sent(manager.commit(session).set_cookie)
    session["b"] = 2
    assert manager.commit(session).set_cookie is None
    assert manager.load([cookie]) == {"a": 1, "b": 2}


def test_a_value_that_was_put_back_after_a_commit_is_written(manager: SessionManager) -> None:
    """What is compared is what is stored, not what the request began with."""
    cookie = create(manager, a="first", b=2)
    session = manager.load([cookie])
    first = session["a"]
    session["a"] = "second"
    manager.commit(session)
    assert manager.load([cookie])["a"] == "second"
    session["a"] = first
    session.commit()
    assert manager.load([cookie])["a"] == "first"


@pytest.mark.parametrize(
    ("change", "left"),
    [
        (lambda s: s.pop("b"), {"a": "first"}),
        (lambda s: s.update(c=3), {"a": "first", "b": 2, "c": 3}),
        (lambda s: s.update(b=3), {"a": "first", "b": 3}),
        (lambda s: s.update(b=2.0), {"a": "first", "b": 2.0}),
        (lambda s: s.update(a=s.pop("b"), b="first"), {"a": 2, "b": "first"}),
        (lambda s: s.clear(), {}),
        (lambda s: s.update_key("b", lambda b: b + 1), {"a": "first", "b": 3}),
        (lambda s: (s.pop("b"), s.update(c=2)), {"a": "first", "c": 2}),
    ],
)
def test_no_change_is_overlooked(manager: SessionManager, change: Any, left: dict[str, Any]) -> None:
    """A session of plain values is compared at a glance, which sees every change."""
    cookie = create(manager, a="first", b=2)
    session = manager.load([cookie])
    change(session)
    manager.commit(session)
    found = dict(manager.load([cookie]))
    assert found == left
    assert {key: type(value) for key, value in found.items()} == {k: type(v) for k, v in left.items()}


def test_a_value_that_cannot_be_stored_writes_nothing(manager: SessionManager, canister: Canister) -> None:
    session = manager.load([])
    session["a"] = 1
    session["b"] = object()
    with pytest.raises(InvalidValueError, match="'b'"):
        manager.commit(session)
    assert log_of(canister) == []


def test_a_persistent_cookie_is_sent_again_when_the_session_is_touched(
    canister: Canister, clock: ManualClock
) -> None:
    manager = SessionManager(canister, secret_keys=KEY, cookie=CookieSettings(max_age=timedelta(days=7)))
    cookie = create(manager, a=1)
    sent_again: list[bool] = []
    for seconds in (30, 40, 10, 60):
        clock.advance(timedelta(seconds=seconds))
        session = manager.load([cookie])
        session["a"] = seconds
        set_cookie = manager.commit(session).set_cookie
        sent_again.append(set_cookie is not None)
        assert set_cookie is None or (sent(set_cookie) == cookie and "Max-Age=604800" in set_cookie)
    assert sent_again == [False, True, False, True]


def test_a_session_may_have_its_cookie_kept_for_another_time(manager: SessionManager) -> None:
    session = manager.load([])
    session["a"] = 1
    session.state.max_age = timedelta(hours=1)
    set_cookie = manager.commit(session).set_cookie
    assert set_cookie is not None
    assert set_cookie.endswith("; Max-Age=3600")
    session = manager.load([sent(set_cookie)])
    session["a"] = 2
    session.state.ask(resend=True)
    set_again = manager.commit(session).set_cookie
    assert set_again == set_cookie.removesuffix("; Max-Age=3600")


def test_a_persistent_cookie_that_is_sent_again_holds_the_renewed_token(
    tmp_path: Path, clock: ManualClock
) -> None:
    settings = CookieSettings(max_age=timedelta(days=7))
    with Canister(tmp_path / "data", agent=False, clock=clock, renewal_timeout="1m") as canister:
        manager = SessionManager(canister, secret_keys=KEY, cookie=settings)
        cookie = create(manager, a=1)
        clock.advance(2 * MINUTE)
        session = manager.load([cookie])
        session["a"] = 2
        renewed = sent(manager.commit(session).set_cookie)
        clock.advance(2 * MINUTE)
        late = manager.load([cookie])
        assert late["a"] == 2
        assert sent(manager.commit(late).set_cookie) == renewed != cookie


@pytest.mark.parametrize("ask", [lambda s: s.user, lambda s: s.identity, lambda s: s.known_user()])
def test_to_ask_who_is_logged_in_is_an_access(
    manager: SessionManager, clock: ManualClock, ask: Callable[[Session], Any]
) -> None:
    """All that many an application wants of its session."""
    session = manager.load([])
    session.login("ann")
    cookie = sent(manager.commit(session).set_cookie)
    for _ in range(3):
        clock.advance(15 * MINUTE)
        session = manager.load([cookie])
        ask(session)
        manager.commit(session)
    assert manager.load([cookie]).user == "ann"
