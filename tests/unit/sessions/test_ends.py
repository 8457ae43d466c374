"""How sessions end, and go on under a new id."""

from datetime import timedelta

import pytest
from tests.unit.sessions.kit import END, MINUTE, create, log_of, sent

from canister import Canister
from canister.clock import to_datetime
from canister.codec import encode_id, encode_value
from canister.errors import SessionDestroyedError, SessionEndedError
from canister.record import IDENTITY, Cell, Record, Slot
from canister.sessions import SessionManager, SessionStatus
from canister.sessions.token import Token, parse
from canister.testing.clock import ManualClock


def test_an_expired_session_gets_a_fresh_one(manager: SessionManager, clock: ManualClock) -> None:
    cookie = create(manager, a=1)
    clock.advance(21 * MINUTE)
    session = manager.load([cookie])
    assert (session.status, dict(session)) == (SessionStatus.NEW, {})
    assert manager.commit(session).set_cookie == END
    session = manager.load([cookie])
    session["b"] = 2
    fresh = sent(manager.commit(session).set_cookie)
    assert manager.load([fresh]) == {"b": 2}
    assert manager.load([cookie]) == {}


def test_a_session_that_expires_during_the_request_is_not_begun_anew(
    manager: SessionManager, canister: Canister, clock: ManualClock
) -> None:
    cookie = create(manager, a=1)
    session = manager.load([cookie])
    session["b"] = 2
    before = log_of(canister)
    clock.advance(21 * MINUTE)
    with pytest.raises(SessionEndedError):
        manager.commit(session)
    assert log_of(canister) == before


@pytest.mark.parametrize("act", ["writes", "reads", "goes on under a new id", "logs in"])
def test_a_request_that_begins_in_time_may_take_long(
    manager: SessionManager, clock: ManualClock, act: str
) -> None:
    """It has accessed the session when it began: the idle timeout counts from then."""
    cookie = create(manager, a=1)
    clock.advance(20 * MINUTE)
    session = manager.load([cookie])
    assert session["a"] == 1
    if act == "writes":
        session["a"] = 2
    elif act == "goes on under a new id":
        session.regenerate()
    elif act == "logs in":
        session.login("ann")
    clock.advance(19 * MINUTE)
    fresh = manager.commit(session).set_cookie
    cookie = sent(fresh) if fresh is not None else cookie
    assert manager.load([cookie]).get("a") == (2 if act == "writes" else 1)
    clock.advance(2 * MINUTE)
    is_new = fresh is not None
    assert (manager.load([cookie]).handle is not None) is is_new, "it was accessed when the request began"


def test_a_request_that_takes_as_long_as_the_idle_timeout_does_not_keep_the_session(
    manager: SessionManager, clock: ManualClock
) -> None:
    cookie = create(manager, a=1)
    clock.advance(20 * MINUTE)
    session = manager.load([cookie])
    session["a"] = 2
    clock.advance(21 * MINUTE)
    with pytest.raises(SessionEndedError):
        manager.commit(session)


def test_a_long_request_does_not_outlive_the_end_of_its_session(
    manager: SessionManager, clock: ManualClock
) -> None:
    """Neither an end of its own nor the absolute lifetime is moved by an access."""
    session = manager.load([])
    session.set_expiry(until=to_datetime(clock.now()) + 20 * MINUTE)
    cookie = sent(manager.commit(session).set_cookie)
    clock.advance(19 * MINUTE)
    session = manager.load([cookie])
    session["a"] = 2
    clock.advance(2 * MINUTE)
    with pytest.raises(SessionEndedError):
        manager.commit(session)


def test_a_session_that_was_swept_during_the_request_is_not_created(
    manager: SessionManager, canister: Canister, clock: ManualClock
) -> None:
    cookie = create(manager, a=1)
    session = manager.load([cookie])
    session["b"] = 2
    clock.advance(timedelta(days=2))
    assert canister.clear_untouched_sessions() == 1
    with pytest.raises(SessionEndedError):
        manager.commit(session)
    assert list(canister.all_sessions()) == []


def test_destroying_ends_the_session_and_the_cookie(
    manager: SessionManager, canister: Canister, clock: ManualClock
) -> None:
    cookie = create(manager, a=1)
    session = manager.load([cookie])
    handle = session.handle
    assert handle is not None
    session.destroy()
    assert manager.commit(session).set_cookie == END
    assert canister.record_status(handle).status == "destroyed"
    assert manager.load([cookie]).status is SessionStatus.NEW
    clock.advance(2 * MINUTE)
    assert manager.commit(manager.load([cookie])).set_cookie == END


def test_a_late_save_does_not_bring_a_destroyed_session_back(
    manager: SessionManager, canister: Canister
) -> None:
    cookie = create(manager, a=1)
    late = manager.load([cookie])
    late["a"] = 2
    manager.destroy(manager.load([cookie]))
    before = log_of(canister)
    with pytest.raises(SessionDestroyedError):
        manager.commit(late)
    assert log_of(canister) == before
    assert list(canister.all_sessions()) == []


def test_a_late_read_of_a_destroyed_session_is_no_error(manager: SessionManager, clock: ManualClock) -> None:
    cookie = create(manager, a=1)
    clock.advance(2 * MINUTE)
    late = manager.load([cookie])
    assert late["a"] == 1
    manager.destroy(manager.load([cookie]))
    assert manager.commit(late).set_cookie is None
    assert manager.load([cookie]).status is SessionStatus.NEW


def test_two_requests_may_destroy_one_session(manager: SessionManager) -> None:
    cookie = create(manager, a=1)
    one, two = manager.load([cookie]), manager.load([cookie])
    assert manager.destroy(one).set_cookie == END
    assert manager.destroy(two).set_cookie == END


def test_what_is_set_after_destroying_goes_into_a_new_session(
    manager: SessionManager, canister: Canister
) -> None:
    cookie = create(manager, a=1)
    session = manager.load([cookie])
    old = session.handle
    session.destroy()
    session["notice"] = "you have logged out"
    fresh = sent(manager.commit(session).set_cookie)
    assert manager.load([fresh]) == {"notice": "you have logged out"}
    assert session.handle != old
    assert manager.load([cookie]) == {}
    assert len(log_of(canister)) == 2


# Privilege changes.


def test_regenerate_moves_the_data_to_a_new_id_in_one_commit(
    manager: SessionManager, canister: Canister
) -> None:
    cookie = create(manager, a=1, b=2)
    session = manager.load([cookie])
    old = session.handle
    session.regenerate()
    session["user"] = "ann"
    del session["b"]
    fresh = sent(manager.commit(session).set_cookie)
    assert fresh != cookie
    assert session.handle not in (None, old)
    assert manager.load([fresh]) == {"a": 1, "user": "ann"}
    assert manager.load([cookie]) == {}
    assert [len(entry.changes) for entry in log_of(canister)] == [1, 2]


def test_regenerate_keeps_what_other_requests_stored_meanwhile(manager: SessionManager) -> None:
    cookie = create(manager, a=1)
    session, other = manager.load([cookie]), manager.load([cookie])
    other["b"] = 2
    manager.commit(other)
    session.regenerate()
    fresh = sent(manager.commit(session).set_cookie)
    assert manager.load([fresh]) == {"a": 1, "b": 2}


def test_regenerate_keeps_the_identity_and_the_sessions_own_expiry(
    manager: SessionManager, canister: Canister, clock: ManualClock
) -> None:
    cookie = create(manager, a=1)
    session = manager.load([cookie])
    assert session.handle is not None
    canister.set_expiry(session.handle, idle="2h")
    user = Slot(IDENTITY + b"user")
    canister.node.commit(
        [
            (
                encode_id(session.handle),
                lambda r, m: Record(cells={user: Cell(m.version, encode_value("ann"))}),
            )
        ]
    )
    session = manager.load([cookie])
    session.regenerate()
    fresh = sent(manager.commit(session).set_cookie)
    clock.advance(100 * MINUTE)
    record = manager.load([fresh]).state.record
    assert record is not None
    assert record.cells[user].value == encode_value("ann")
    token = parse(cookie, manager.keys)
    assert isinstance(token, Token)
    assert token.slot not in record.cells, "the old secret must not open the new session"


def test_regenerate_does_not_carry_a_destroyed_session_over(
    manager: SessionManager, canister: Canister
) -> None:
    cookie = create(manager, user="ann")
    session = manager.load([cookie])
    manager.destroy(manager.load([cookie]))
    session.regenerate()
    with pytest.raises(SessionDestroyedError):
        manager.commit(session)
    assert list(canister.all_sessions()) == []


def test_regenerating_a_new_session_just_creates_it(manager: SessionManager, canister: Canister) -> None:
    session = manager.load([])
    session.regenerate()
    assert manager.commit(session).set_cookie is None
    session["a"] = 1
    assert manager.load([sent(manager.commit(session).set_cookie)]) == {"a": 1}
    assert len(list(canister.all_sessions())) == 1
