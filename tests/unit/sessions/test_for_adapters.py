"""What frameworks with a session life of their own need of the session manager."""

import socket
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.unit.sessions.kit import KEY, create, sent

from canister import Canister, CannotTellError
from canister.config import load_config, stated_settings
from canister.record import NodeId, make_version
from canister.sessions import SessionManager
from canister.sessions.keys import KeyRing
from canister.sessions.token import draft
from canister.testing.clock import ManualClock

DAY = timedelta(days=1)


@pytest.fixture
def canister(tmp_path: Path, clock: ManualClock) -> Iterator[Canister]:
    with Canister(tmp_path / "data", agent=False, clock=clock, renewal_timeout="10m") as canister:
        yield canister


# Sessions that hold nothing.


def test_a_session_may_be_stored_though_it_holds_nothing(manager: SessionManager, canister: Canister) -> None:
    session = manager.load([])
    session.ensure_stored()
    cookie = sent(manager.commit(session).set_cookie)
    assert manager.load([cookie]).handle == session.handle is not None
    session.ensure_stored()
    assert manager.commit(session).set_cookie is None, "it is stored already"


def test_what_is_destroyed_after_all_is_not_stored(manager: SessionManager, canister: Canister) -> None:
    session = manager.load([])
    session.ensure_stored()
    session.destroy()
    assert manager.commit(session).set_cookie is None
    assert list(canister.all_sessions()) == []


def test_a_destroyed_session_may_be_followed_by_an_empty_one(manager: SessionManager) -> None:
    cookie = create(manager, a=1)
    session = manager.load([cookie])
    session.destroy()
    session.ensure_stored()
    follower = sent(manager.commit(session).set_cookie)
    assert manager.load([cookie]).handle is None
    found = manager.load([follower])
    assert (found, found.handle is None) == ({}, False)


# What an event loop must not do by itself.


def test_a_commit_that_only_records_an_access_may_wait(canister: Canister) -> None:
    """It does not have to be seen by the response: `mark_active`, and Quart's permanent sessions."""
    manager = SessionManager(canister, secret_keys=KEY, acks=2)
    session = manager.load([])
    assert not manager.may_wait(session)
    session.mark_active()
    assert manager.may_wait(session)


# The cookie's age.


def test_a_session_may_have_a_cookie_age_of_its_own(manager: SessionManager, clock: ManualClock) -> None:
    session = manager.load([])
    session["a"] = 1
    session.set_cookie_age(DAY)
    cookie = manager.commit(session).set_cookie
    assert cookie is not None
    assert cookie.endswith("; Max-Age=86400")
    session = manager.load([sent(cookie)])
    session.set_cookie_age(2 * DAY)
    again = manager.commit(session).set_cookie
    assert again is not None
    assert again.endswith("; Max-Age=172800")
    assert sent(again) == sent(cookie)
    session.set_cookie_age(2 * DAY)
    assert manager.commit(session).set_cookie is None, "it has that age"
    session.set_cookie_age(None)
    assert "Max-Age" not in (manager.commit(session).set_cookie or "")


def test_a_cookie_that_lasts_is_sent_anew_as_the_session_is_used(
    manager: SessionManager, clock: ManualClock
) -> None:
    cookie = create(manager, a=1)
    clock.advance(timedelta(minutes=2))
    session = manager.load([cookie])
    session.state.max_age = DAY
    assert session["a"] == 1
    assert (manager.commit(session).set_cookie or "").endswith("; Max-Age=86400")
    session = manager.load([cookie])
    session.state.max_age = DAY
    assert session["a"] == 1
    assert manager.commit(session).set_cookie is None, "once for each touch interval"


def test_a_request_may_count_as_an_access_whatever_it_reads(
    manager: SessionManager, canister: Canister, clock: ManualClock
) -> None:
    cookie = create(manager, a=1)
    handle = manager.load([cookie]).handle
    assert handle is not None
    clock.advance(timedelta(minutes=2))
    session = manager.load([cookie])
    session.mark_active()
    assert not manager.commit(session).vary
    info = canister.session_info(handle)
    assert info is not None
    assert info.accessed > info.created


# What a commit would do.


def test_it_is_told_whether_a_commit_would_write(manager: SessionManager, clock: ManualClock) -> None:
    cookie = create(manager, a=[1])
    session = manager.load([cookie])
    assert not manager.is_due(session)
    session["a"].append(2)
    assert manager.is_due(session)
    manager.commit(session)
    assert not manager.is_due(session)
    session["a"] = object()
    assert manager.is_due(session), "the commit will say why it cannot"
    clock.advance(timedelta(minutes=2))
    session = manager.load([cookie])
    assert not manager.is_due(session), "nothing was read"
    session.get("a")
    assert manager.is_due(session), "an access"
    manager.commit(session)
    for use in (lambda s: s.destroy(), lambda s: s.regenerate()):
        session = manager.load([cookie])
        use(session)
        assert manager.is_due(session)
    clock.advance(timedelta(minutes=9))
    session = manager.load([cookie])
    session.get("a")
    manager.store(session)
    assert not manager.is_due(session)
    session = manager.load([])
    assert not manager.is_due(session)
    session.ensure_stored()
    assert manager.is_due(session)


def test_a_renewal_is_due_as_well(manager: SessionManager, clock: ManualClock) -> None:
    cookie = create(manager, a=1)
    clock.advance(timedelta(seconds=590))
    session = manager.load([cookie])
    session.mark_active()
    manager.store(session)  # the access
    clock.advance(timedelta(seconds=11))
    session = manager.load([cookie])
    assert not manager.is_due(session)
    session.mark_active()
    assert manager.is_due(session)
    assert sent(manager.commit(session).set_cookie) != cookie


def test_a_request_that_fails_may_store_nothing_more(manager: SessionManager) -> None:
    session = manager.load([create(manager, a=1)])
    session["a"] = 2
    assert manager.discard(session).set_cookie is None
    manager.finish(session, "GET /")
    fresh = manager.load([])
    fresh["a"] = 1
    manager.store(fresh)
    fresh["b"] = 2
    cookie = sent(manager.discard(fresh).set_cookie)
    assert manager.load([cookie]) == {"a": 1}, "what was stored before has its cookie"


def test_loading_may_refuse_to_wait(tmp_path: Path, clock: ManualClock) -> None:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        listen = f"127.0.0.1:{one.getsockname()[1]}"
    settings: Any = {"listen": listen, "seeds": ["127.0.0.1:1"], "remote_timeout": "100ms"}
    with Canister(tmp_path / "cut-off", agent=False, clock=clock, **settings) as cut_off:
        manager = SessionManager(cut_off, secret_keys=KEY)
        elsewhere = draft(KeyRing([KEY])).seal(make_version(clock.now(), NodeId(b"node-B.."))).text
        cut_off.node.store.set_doubts(1)
        assert manager.load_here([elsewhere]) is None
        assert manager.load_here([]) == {}
        assert manager.load_here([create(manager, a=1)]) == {"a": 1}
        session = manager.load([elsewhere])
        session.ensure_stored()
        with pytest.raises(CannotTellError):
            manager.commit(session)
        for behind in ("serve", "refuse"):
            manager = SessionManager(cut_off, secret_keys=KEY, when_behind=behind)
            with pytest.raises(CannotTellError):
                manager.load([elsewhere]).is_csrf_token("00" * 64)


# Settings.


def test_what_somebody_stated_is_told_from_what_is_the_default(tmp_path: Path) -> None:
    file = tmp_path / "canister.toml"
    file.write_text('absolute_lifetime = "12h"\n')
    environ = {"CANISTER_GRACE_PERIOD": "5m"}
    stated = stated_settings({"seeds": "a:1,b:2"}, environ, file)
    assert stated == {
        "absolute_lifetime": timedelta(hours=12),
        "grace_period": timedelta(minutes=5),
        "seeds": ("a:1", "b:2"),
    }
    assert load_config({}, environ, file).session_timeout == timedelta(minutes=20)
