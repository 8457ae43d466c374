"""Tokens that are no good."""

import gc

import pytest
from tests.unit.sessions.kit import END, KEY, OTHER_KEY, create, forged, sent

from canister import Canister
from canister.record import make_version
from canister.sessions import SessionManager, SessionStatus
from canister.sessions.lookup import MOST_TOKENS
from canister.sessions.token import Draft, Token, draft, parse


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
    session = manager.load(cookies)
    assert len(set(looked)) == MOST_TOKENS
    assert len(looked) == 2 * MOST_TOKENS, "looked at again before it is called gone"
    assert manager.commit(session).set_cookie is None, "one that was not looked at may be good"
    assert manager.commit(manager.load(cookies[:MOST_TOKENS])).set_cookie == manager.cookie.end()


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


def test_a_mac_is_checked_once_as_long_as_the_session_stays_in_memory(
    manager: SessionManager, canister: Canister, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What opens a session is in memory no longer than the session, and is asked of it each time."""
    cookie = create(manager, a=1)
    checked: list[bytes] = []
    key = manager.keys.current
    mac = key.mac

    def counted(data: bytes) -> bytes:
        checked.append(data)
        return mac(data)

    monkeypatch.setattr(key, "mac", counted)
    for _ in range(3):
        assert manager.load([cookie]) == {"a": 1}
    assert len(checked) == 1
    assert tokens_in_memory(cookie) == 1
    assert manager.load([forged(cookie)]) == {}
    assert len(checked) == 2
    session = manager.load([cookie])
    session["a"] = 2
    manager.commit(session)
    assert manager.load([cookie]) == {"a": 2}
    assert len(checked) == 2
    manager.destroy(session)
    del session
    assert tokens_in_memory(cookie) == 0
    assert manager.load([cookie]) == {}


def tokens_in_memory(text: str) -> int:
    gc.collect()
    return sum(type(one) is Token and one.text == text for one in gc.get_objects())


def test_a_token_that_was_good_is_not_once_its_secret_is_retired(manager: SessionManager) -> None:
    old = create(manager, a=1)
    session = manager.load([old])
    session.renew()
    new = sent(manager.commit(session).set_cookie)
    session = manager.load([new])
    assert manager.load([old]) == session == {"a": 1}
    manager.commit(session)
    assert manager.load([old]) == {}
    assert manager.load([new]) == {"a": 1}
