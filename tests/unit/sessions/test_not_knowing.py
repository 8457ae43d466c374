"""Not knowing is not absence."""

from datetime import timedelta
from pathlib import Path

import pytest
from tests.unit.sessions.kit import (
    END,
    KEY,
    MINUTE,
    OTHER_NODE,
    create,
    forged,
    in_doubt,
    log_of,
    sent,
    token_of_elsewhere,
)

from canister import Canister, edits
from canister.codec import encode_id, encode_value, key_slot
from canister.errors import CannotTellError
from canister.freshness import Fetched
from canister.record import make_version
from canister.sessions import Outcome, SessionManager, SessionStatus
from canister.sessions.token import Draft, Token, parse
from canister.testing.clock import ManualClock
from canister.testing.contract import told


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


def test_what_may_be_elsewhere_is_not_cleared_in_silence(
    manager: SessionManager, canister: Canister, clock: ManualClock
) -> None:
    """Some frameworks log out so."""
    in_doubt(canister)
    session = manager.load([token_of_elsewhere(clock).text])
    session.clear()
    with pytest.raises(CannotTellError, match="cookie was left as it is"):
        manager.commit(session)


def test_a_node_that_cannot_tell_may_refuse(canister: Canister, clock: ManualClock) -> None:
    in_doubt(canister)
    manager = SessionManager(canister, secret_keys=KEY, when_behind="refuse")
    session = manager.load([token_of_elsewhere(clock).text])
    assert session.cannot_tell
    assert manager.commit(session) == Outcome(None, False)
    for use in (lambda: session.get("a"), lambda: session.user, lambda: session.identity):
        with pytest.raises(CannotTellError):
            use()
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


def test_with_doubts_a_destroyed_session_is_decided(
    manager: SessionManager, canister: Canister, clock: ManualClock
) -> None:
    cookie = create(manager, a=1)
    manager.destroy(manager.load([cookie]))
    in_doubt(canister)
    clock.advance(2 * MINUTE)
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
    assert told(canister.node.store, token.session) == (None, True)
    assert manager.commit(manager.load([token.text])).set_cookie is None


def test_what_this_node_forgot_it_cannot_call_gone(manager: SessionManager, canister: Canister) -> None:
    cookie = create(manager, a=1)
    session = manager.load([cookie])
    assert session.handle is not None
    canister.node.store.forget(encode_id(session.handle))
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
