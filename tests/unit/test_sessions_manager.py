import asyncio
import logging
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from canister import Canister, edits
from canister.codec import encode_value, key_slot
from canister.errors import (
    CannotTellError,
    ConfigError,
    InvalidValueError,
    SessionDestroyedError,
    SessionEndedError,
)
from canister.freshness import Fetched
from canister.record import IDENTITY, Cell, NodeId, Record, Slot, decode_record, make_version
from canister.sessions import CookieSettings, Outcome, Session, SessionManager, SessionStatus
from canister.sessions.keys import KeyRing
from canister.sessions.lookup import MOST_TOKENS
from canister.sessions.token import Draft, Token, draft, parse
from canister.testing.clock import ManualClock

KEY = "key-0123456789-abcdefghijklmnopqrs"
OTHER_KEY = "other-0123456789-abcdefghijklmnopq"
END = CookieSettings().end()
MINUTE = timedelta(minutes=1)
OTHER_NODE = NodeId(b"node-B..")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def canister(tmp_path: Path, clock: ManualClock) -> Iterator[Canister]:
    with Canister(tmp_path / "data", agent=False, clock=clock) as canister:
        yield canister


@pytest.fixture
def manager(canister: Canister) -> SessionManager:
    return SessionManager(canister, secret_keys=KEY)


def create(manager: SessionManager, **values: Any) -> str:
    """Store a session as one request does; return the cookie's value."""
    session = manager.load([])
    session.update(values)
    return sent(manager.commit(session).set_cookie)


def sent(set_cookie: str | None) -> str:
    assert set_cookie is not None
    assert set_cookie != END
    return set_cookie.partition(";")[0].partition("=")[2]


def log_of(canister: Canister) -> list[Any]:
    with canister.node.store.snapshot() as snapshot:
        return snapshot.log(0)


def forged(cookie: str) -> str:
    return cookie[:-1] + ("A" if cookie[-1] != "A" else "B")


def in_doubt(canister: Canister) -> None:
    """Make the node one that has not compared itself with another member, whom it cannot ask."""
    canister.node.store.set_doubts(1)


def token_of_elsewhere(clock: ManualClock) -> Token:
    """Return a token that another node issued just now."""
    return draft(KeyRing([KEY])).seal(make_version(clock.now(), OTHER_NODE))


# Creation and use.


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
    session.state.resend = True
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


# Tokens that are no good.


def test_a_forged_token_gets_a_fresh_session_without_a_look_at_the_disk(
    manager: SessionManager, canister: Canister, monkeypatch: pytest.MonkeyPatch
) -> None:
    cookie = create(manager, a=1)
    looked: list[bytes] = []
    load = canister.node.store.load
    monkeypatch.setattr(
        canister.node.store, "load", lambda session: (looked.append(session), load(session))[1]
    )
    session = manager.load([forged(cookie)])
    assert (session.status, dict(session)) == (SessionStatus.NEW, {})
    assert looked == []
    assert manager.load([cookie]) == {"a": 1}
    assert len(looked) == 1


@pytest.mark.parametrize("value", ["", "x", "é" * 112, "A" * 112, "\x00" * 112])
def test_anything_else_under_the_cookies_name_is_taken_away(manager: SessionManager, value: str) -> None:
    session = manager.load([value])
    assert session.status is SessionStatus.NEW
    assert manager.commit(session).set_cookie == END


def test_a_forged_token_is_taken_away_or_replaced(manager: SessionManager) -> None:
    cookie = create(manager, a=1)
    assert manager.commit(manager.load([forged(cookie)])).set_cookie == END
    session = manager.load([forged(cookie)])
    session["b"] = 2
    fresh = sent(manager.commit(session).set_cookie)
    assert manager.load([fresh]) == {"b": 2}
    assert session.handle != manager.load([cookie]).handle


def test_an_id_the_client_chose_is_never_used(manager: SessionManager, canister: Canister) -> None:
    token = draft(manager.keys).seal(make_version(canister.node.clock.now(), canister.node.store.node))
    session = manager.load([token.text])  # as if the key had leaked: signed, but never issued
    session["a"] = 1
    fresh = parse(sent(manager.commit(session).set_cookie), manager.keys)
    assert isinstance(fresh, Token)
    assert fresh.id != token.id
    assert canister.session_info(token.handle) is None


def test_a_right_id_with_a_wrong_secret_is_refused(manager: SessionManager) -> None:
    cookie = create(manager, a=1)
    token = parse(cookie, manager.keys)
    assert isinstance(token, Token)
    impostor = Draft(token.id, bytes(32), token.key).seal(token.issued)
    session = manager.load([impostor.text])
    assert (session.status, dict(session)) == (SessionStatus.NEW, {})
    assert manager.commit(session).set_cookie == END
    assert manager.load([cookie]) == {"a": 1}


def test_every_candidate_is_tried(manager: SessionManager) -> None:
    cookie = create(manager, a=1)
    gone = create(manager, b=1)
    manager.destroy(manager.load([gone]))
    for values in ([forged(cookie), "x", cookie], [cookie, "x"], [gone, cookie], [gone, "", cookie, gone]):
        session = manager.load(values)
        assert session == {"a": 1}
        assert manager.commit(session).set_cookie is None


def test_the_tokens_looked_up_for_one_request_are_few(
    manager: SessionManager, canister: Canister, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = make_version(1, canister.node.store.node)
    cookies = [draft(manager.keys).seal(version).text for _ in range(100)]
    looked: list[bytes] = []
    load = canister.node.store.load
    monkeypatch.setattr(
        canister.node.store, "load", lambda session: (looked.append(session), load(session))[1]
    )
    manager.load(cookies)
    assert len(set(looked)) == MOST_TOKENS
    assert len(looked) == 2 * MOST_TOKENS, "looked at again before it is called gone"


def test_a_token_of_an_unlisted_key_is_left_alone_until_something_is_stored(
    canister: Canister, manager: SessionManager
) -> None:
    other = SessionManager(canister, secret_keys=OTHER_KEY)
    cookie = create(other, a=1)
    session = manager.load([cookie])
    assert dict(session) == {}
    assert manager.commit(session).set_cookie is None
    session["b"] = 1
    assert sent(manager.commit(session).set_cookie) != cookie


def test_a_key_that_was_replaced_still_verifies(canister: Canister, manager: SessionManager) -> None:
    cookie = create(manager, a=1)
    renewed = SessionManager(canister, secret_keys=[OTHER_KEY, KEY])
    assert renewed.load([cookie]) == {"a": 1}
    assert SessionManager(canister, secret_keys=OTHER_KEY).load([create(renewed, b=1)]) == {"b": 1}


# Ends.


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


def test_destroying_ends_the_session_and_the_cookie(manager: SessionManager, canister: Canister) -> None:
    cookie = create(manager, a=1)
    session = manager.load([cookie])
    handle = session.handle
    assert handle is not None
    session.destroy()
    assert manager.commit(session).set_cookie == END
    assert canister.record_status(handle).status == "destroyed"
    assert manager.load([cookie]).status is SessionStatus.NEW
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
                b"s" + session.handle.encode(),
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


# Not knowing is not absence.


@pytest.mark.parametrize("age", [timedelta(0), timedelta(days=1)])
def test_a_node_that_cannot_tell_leaves_the_cookie_alone(
    manager: SessionManager, canister: Canister, clock: ManualClock, age: timedelta
) -> None:
    cookie = token_of_elsewhere(clock).text
    clock.advance(age)
    in_doubt(canister)
    session = manager.load([cookie])
    assert session.get("a") is None
    assert manager.commit(session) == Outcome(None, True)
    session["a"] = 1
    with pytest.raises(CannotTellError, match="cookie was left as it is"):
        manager.commit(session)
    assert log_of(canister) == []


def test_a_node_that_cannot_tell_may_refuse(canister: Canister, clock: ManualClock) -> None:
    in_doubt(canister)
    manager = SessionManager(canister, secret_keys=KEY, when_behind="refuse")
    session = manager.load([token_of_elsewhere(clock).text])
    assert session.cannot_tell
    assert manager.commit(session) == Outcome(None, False)
    with pytest.raises(CannotTellError):
        session.get("a")
    assert manager.load([]).status is SessionStatus.NEW
    assert not manager.load([]).cannot_tell


def test_the_managers_own_choice_comes_before_the_canisters(tmp_path: Path, clock: ManualClock) -> None:
    with Canister(tmp_path / "refuses", agent=False, clock=clock, when_behind="refuse") as canister:
        in_doubt(canister)
        cookie = token_of_elsewhere(clock).text
        with pytest.raises(CannotTellError):
            dict(SessionManager(canister, secret_keys=KEY).load([cookie]))
        assert SessionManager(canister, secret_keys=KEY, when_behind="serve").load([cookie]) == {}


def test_with_doubts_a_live_session_here_is_served_and_written_and_no_peer_asked(
    manager: SessionManager, canister: Canister, monkeypatch: pytest.MonkeyPatch
) -> None:
    cookie = create(manager, a=1)
    in_doubt(canister)
    monkeypatch.setattr(canister.node, "_fetch", None)
    session = manager.load([cookie])
    session["b"] = 2
    assert manager.commit(session).set_cookie is None
    assert manager.load([token_of_elsewhere(ManualClock()).text, cookie]) == {"a": 1, "b": 2}


def test_with_doubts_a_forged_token_is_still_decided(manager: SessionManager, canister: Canister) -> None:
    cookie = create(manager, a=1)
    in_doubt(canister)
    assert manager.commit(manager.load([forged(cookie)])).set_cookie == END


def test_with_doubts_and_a_forged_token_beside_it_the_cookie_is_left_alone(
    manager: SessionManager, canister: Canister, clock: ManualClock
) -> None:
    in_doubt(canister)
    session = manager.load(["x", token_of_elsewhere(clock).text])
    assert manager.commit(session).set_cookie is None


def test_with_doubts_a_destroyed_session_is_decided(manager: SessionManager, canister: Canister) -> None:
    cookie = create(manager, a=1)
    manager.destroy(manager.load([cookie]))
    in_doubt(canister)
    assert manager.commit(manager.load([cookie])).set_cookie == END


def test_with_doubts_a_session_idle_here_may_be_in_use_elsewhere(
    manager: SessionManager, canister: Canister, clock: ManualClock
) -> None:
    cookie = create(manager, a=1)
    clock.advance(21 * MINUTE)
    in_doubt(canister)
    session = manager.load([cookie])
    assert dict(session) == {}
    assert manager.commit(session).set_cookie is None
    session["b"] = 1
    with pytest.raises(CannotTellError):
        manager.commit(session)


def test_with_doubts_a_session_past_its_absolute_lifetime_is_decided(
    manager: SessionManager, canister: Canister, clock: ManualClock
) -> None:
    cookie = create(manager, a=1)
    clock.advance(timedelta(days=30))
    in_doubt(canister)
    assert manager.commit(manager.load([cookie])).set_cookie == END


def hear(canister: Canister, stamp: int) -> None:
    canister.node.store.merge([], {OTHER_NODE: stamp})


def test_with_doubts_a_heard_and_young_issue_stamp_decides(
    manager: SessionManager, canister: Canister, clock: ManualClock
) -> None:
    in_doubt(canister)
    cookie = token_of_elsewhere(clock).text
    hear(canister, clock.now() - 1)
    assert manager.commit(manager.load([cookie])).set_cookie is None
    hear(canister, clock.now())
    assert manager.commit(manager.load([cookie])).set_cookie == END
    clock.advance(timedelta(minutes=60))  # the grace period: it may have been dropped by now
    assert manager.commit(manager.load([cookie])).set_cookie is None


def test_with_doubts_what_is_held_back_is_not_absent(
    manager: SessionManager, canister: Canister, clock: ManualClock
) -> None:
    token = token_of_elsewhere(clock)
    ahead = clock.now() + 10 * 60_000_000
    policy = canister.node.policy
    moment = edits.Moment(make_version(ahead, OTHER_NODE), ahead)
    record = edits.write(None, moment, policy, {})
    canister.node.store.merge([(token.session, record)], {OTHER_NODE: clock.now()})
    assert canister.node.store.load(token.session) == (None, True)
    assert manager.commit(manager.load([token.text])).set_cookie is None


def test_what_this_node_forgot_it_cannot_call_gone(manager: SessionManager, canister: Canister) -> None:
    cookie = create(manager, a=1)
    session = manager.load([cookie])
    assert session.handle is not None
    canister.node.store.forget(b"s" + session.handle.encode())
    in_doubt(canister)
    assert manager.commit(manager.load([cookie])).set_cookie is None


def test_a_wrong_secret_with_an_issue_stamp_not_heard_is_not_decided(
    manager: SessionManager, canister: Canister, clock: ManualClock
) -> None:
    cookie = create(manager, a=1)
    token = parse(cookie, manager.keys)
    assert isinstance(token, Token)
    renewed = Draft(token.id, bytes(32), token.key).seal(make_version(clock.now() + 5, OTHER_NODE))
    assert manager.commit(manager.load([renewed.text])).set_cookie is None
    hear(canister, clock.now() + 5)
    assert manager.commit(manager.load([renewed.text])).set_cookie == END


@pytest.mark.parametrize(
    ("everyone", "cookie_sent"), [(True, END), (False, None)], ids=["all answered", "one did not"]
)
def test_the_answers_of_all_members_decide(
    manager: SessionManager,
    canister: Canister,
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
    everyone: bool,
    cookie_sent: str | None,
) -> None:
    in_doubt(canister)
    monkeypatch.setattr(canister.node, "_fetch", lambda session: Fetched([], everyone))
    assert manager.commit(manager.load([token_of_elsewhere(clock).text])).set_cookie == cookie_sent


def test_a_session_that_a_peer_had_is_served(
    manager: SessionManager, canister: Canister, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_doubt(canister)
    token = token_of_elsewhere(clock)
    moment = edits.Moment(token.issued, clock.now())
    writes = {token.slot: encode_value(None), key_slot("a"): encode_value(1)}
    record = edits.write(None, moment, canister.node.policy, writes)

    def fetch(session: bytes) -> Fetched:
        canister.node.store.merge([(session, record)], {OTHER_NODE: clock.now()})
        return Fetched([], True)

    monkeypatch.setattr(canister.node, "_fetch", fetch)
    assert manager.load([token.text]) == {"a": 1}


def test_logging_out_works_where_the_node_cannot_tell(
    manager: SessionManager, canister: Canister, clock: ManualClock
) -> None:
    in_doubt(canister)
    token = token_of_elsewhere(clock)
    session = manager.load([token.text])
    session.destroy()
    assert manager.commit(session).set_cookie == END
    assert canister.record_status(token.handle).status == "destroyed"


def test_a_privilege_change_works_where_the_node_cannot_tell(
    manager: SessionManager, canister: Canister, clock: ManualClock
) -> None:
    in_doubt(canister)
    token = token_of_elsewhere(clock)
    session = manager.load([token.text])
    session.regenerate()
    session["user"] = "ann"
    fresh = sent(manager.commit(session).set_cookie)
    assert manager.load([fresh]) == {"user": "ann"}
    assert canister.record_status(token.handle).status == "destroyed"


# The awaitable forms.


def test_the_awaitable_forms_do_the_same(manager: SessionManager) -> None:
    async def request() -> None:
        session = await manager.aload([])
        session["a"] = 1
        cookie = sent((await manager.acommit(session)).set_cookie)
        session = await manager.aload([cookie])
        assert session == {"a": 1}
        assert (await manager.adestroy(session)).set_cookie == END
        assert await manager.aload([cookie]) == {}

    asyncio.run(request())


def test_peers_are_asked_and_disks_waited_for_in_a_thread_and_nothing_else(
    tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    hops: list[str] = []

    async def to_thread(call: Any, *args: Any) -> Any:
        hops.append(call.__name__)
        return call(*args)

    monkeypatch.setattr(asyncio, "to_thread", to_thread)

    async def requests(manager: SessionManager) -> None:
        cookie = create(manager, a=1)
        await manager.acommit(await manager.aload([cookie, "x"]))
        await manager.aload([])
        in_doubt(manager.canister)
        await manager.aload([cookie])
        await manager.aload([token_of_elsewhere(clock).text])

    for durability in ("normal", "full"):
        with Canister(tmp_path / durability, agent=False, clock=clock, durability=durability) as canister:
            asyncio.run(requests(SessionManager(canister, secret_keys=KEY)))
    assert hops == ["anywhere", "commit", "anywhere"]


# Set-up, logs, secrets.


def test_a_node_alone_needs_no_key(canister: Canister) -> None:
    cookie = create(SessionManager(canister), a=1)
    assert SessionManager(canister).load([cookie]) == {"a": 1}


def test_a_node_with_peers_needs_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CANISTER_SECRET_KEYS", raising=False)
    with (
        Canister(tmp_path / "data", agent=False, listen="127.0.0.1:7499") as canister,
        pytest.raises(ConfigError, match="same value on all nodes"),
    ):
        SessionManager(canister)


def test_an_unknown_choice_of_when_behind_is_refused(canister: Canister) -> None:
    with pytest.raises(ConfigError, match="'serve' or 'refuse'"):
        SessionManager(canister, secret_keys=KEY, when_behind="perhaps")  # type: ignore[arg-type]


def test_neither_the_database_nor_the_log_ever_holds_a_secret(
    manager: SessionManager, canister: Canister, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    cookies = [create(manager, a=n) for n in range(5)]
    session = manager.load([cookies[0]])
    session.regenerate()
    cookies.append(sent(manager.commit(session).set_cookie))
    manager.destroy(manager.load([cookies[1]]))
    manager.load([forged(cookies[2]), cookies[1]])
    files = [p for p in canister.node.store.files.path.iterdir() if p.is_file()]
    stored = b"".join(file.read_bytes() for file in files)
    assert {file.suffix for file in files} >= {".db", ".db-wal"}
    for cookie in cookies:
        token = parse(cookie, manager.keys)
        assert isinstance(token, Token)
        assert token.handle.encode() in stored, "the search must be able to find what is there"
        assert token.handle in caplog.text
        for secret in (token.secret, token.secret.hex().encode(), cookie.encode(), cookie[30:70].encode()):
            assert secret not in stored
            assert secret.decode("latin-1") not in caplog.text
        assert repr(token.secret) not in caplog.text


def test_creation_end_and_refusal_are_logged_by_handle(
    manager: SessionManager, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "canister.sessions")
    cookie = create(manager, a=1)
    session = manager.load([cookie])
    handle = session.handle
    manager.destroy(session)
    manager.load([cookie])
    manager.load([forged(cookie)])
    assert [record.getMessage() for record in caplog.records] == [
        f"session {handle} was created",
        f"session {handle} was destroyed",
        f"session {handle} is gone; its cookie is refused",
        "a session cookie was refused: forged",
    ]


def test_a_change_that_is_never_committed_is_reported(
    canister: Canister, caplog: pytest.LogCaptureFixture
) -> None:
    manager = SessionManager(canister, secret_keys=KEY, strict=False)

    def finish(session: Session) -> str:
        caplog.clear()
        manager.finish(session, "http /cart")
        return caplog.text

    session = manager.load([])
    assert finish(session) == ""
    session["a"] = [1]
    manager.commit(session)
    assert finish(session) == ""
    session["a"].append(2)
    assert f"http /cart changed in session {session.handle}" in finish(session)
    session["a"] = object()
    assert "is lost" in finish(session)
    session = manager.load([])
    session["a"] = 1
    manager.commit(session)
    session.clear()
    assert "is lost" in finish(session)
    session.destroy()
    assert "is lost" in finish(session)
