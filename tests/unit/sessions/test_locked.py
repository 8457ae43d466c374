"""Sessions that were idle for so long that their users have to prove to be there."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.unit.sessions.kit import KEY, MINUTE, create, sent

from canister import Canister, SessionError, SessionLockedError
from canister.clock import to_datetime
from canister.sessions import Outcome, Session, SessionManager
from canister.sessions.movein import OldSession
from canister.sessions.watch import Watch
from canister.testing.clock import ManualClock

SETTINGS = {"session_timeout": "8h", "lock_timeout": "10m", "touch_interval": "30s", "renewal_timeout": "5m"}


class Book:
    """An old system with one session."""

    cookie_name = "old"

    def __init__(self, clock: ManualClock) -> None:
        self.created = to_datetime(clock.now())

    def find(self, value: str) -> OldSession | None:
        ends = self.created + 24 * 60 * MINUTE
        return OldSession(value, {"a": 1}, ends, self.created, "ann") if value == "credential" else None


@pytest.fixture
def canister(tmp_path: Path, clock: ManualClock) -> Iterator[Canister]:
    with Canister(tmp_path / "data", agent=False, clock=clock, **SETTINGS) as canister:
        yield canister


@pytest.fixture
def locking(canister: Canister, clock: ManualClock) -> SessionManager:
    return SessionManager(canister, secret_keys=KEY, move_in=[Book(clock)])


def test_a_session_is_locked_after_idling(locking: SessionManager, clock: ManualClock) -> None:
    session = locking.load([])
    session["a"] = 1
    session.login("ann")
    cookie = sent(locking.commit(session).set_cookie)
    clock.advance(10 * MINUTE)
    assert locking.load([cookie])["a"] == 1
    clock.advance(MINUTE)
    session = locking.load([cookie])
    assert session.is_locked
    assert session.user == "ann", "whom to ask for proof"
    for use_it in (lambda: session["a"], lambda: session.update(a=2), session.regenerate, session.clear):
        with pytest.raises(SessionLockedError, match="idle too long"):
            use_it()
    assert locking.commit(session).set_cookie is None
    assert locking.load([cookie]).is_locked, "a refused use is no access"


def test_unlock_opens_it_under_a_new_secret(locking: SessionManager, clock: ManualClock) -> None:
    cookie = create(locking, a=1)
    clock.advance(11 * MINUTE)
    session = locking.load([cookie])
    session.unlock()
    assert session["a"] == 1
    renewed = sent(locking.commit(session).set_cookie)
    found = locking.load([renewed])
    assert not found.is_locked
    assert found["a"] == 1


@pytest.mark.parametrize("was_replaced", [False, True])
def test_unlock_leaves_no_other_secret_good(
    locking: SessionManager, clock: ManualClock, *, was_replaced: bool
) -> None:
    """Whoever else holds one has proved nothing, and is not given the new one."""
    old = cookie = create(locking, a=1)
    if was_replaced:  # and its answer was lost: the client goes on with the old one
        clock.advance(6 * MINUTE)
        session = locking.load([cookie])
        assert session["a"] == 1
        sent(locking.commit(session).set_cookie)
    clock.advance(11 * MINUTE)
    session = locking.load([cookie])
    session.unlock()
    cookie = sent(locking.commit(session).set_cookie)
    other = locking.load([old])
    assert (other.handle, dict(other)) == (None, {})
    assert locking.commit(other).set_cookie is None
    assert locking.load([cookie])["a"] == 1


def test_two_pages_that_unlock_at_once_both_go_on(locking: SessionManager, clock: ManualClock) -> None:
    cookie = create(locking, a=1)
    clock.advance(11 * MINUTE)
    pages = [locking.load([cookie]), locking.load([cookie])]
    for page in pages:
        page.unlock()
    cookies = {sent(locking.commit(page).set_cookie) for page in pages}
    assert len(cookies) == 1
    assert locking.load([cookies.pop()])["a"] == 1


def test_a_log_in_opens_a_locked_session_of_the_same_user_only(
    locking: SessionManager, clock: ManualClock
) -> None:
    for user, kept in (("ann", {"a": 1}), ("bob", {})):
        session = locking.load([])
        session["a"] = 1
        session.login("ann")
        cookie = sent(locking.commit(session).set_cookie)
        clock.advance(11 * MINUTE)
        session = locking.load([cookie])
        session.login(user)
        found = locking.load([sent(locking.commit(session).set_cookie)])
        assert (dict(found), found.user, found.is_locked) == (kept, user, False)


def test_a_locked_session_can_be_destroyed(locking: SessionManager, clock: ManualClock) -> None:
    cookie = create(locking, a=1)
    clock.advance(11 * MINUTE)
    locking.destroy(locking.load([cookie]))
    assert locking.load([cookie]).handle is None


def test_unlocking_an_open_session_changes_nothing(manager: SessionManager) -> None:
    cookie = create(manager, a=1)
    session = manager.load([cookie])
    session.unlock()
    assert manager.commit(session) == Outcome(None, False)


def use_mark_active(manager: SessionManager, session: Session) -> None:
    """Do what Django's SESSION_SAVE_EVERY_REQUEST does."""
    session.mark_active()
    manager.commit(session)


def use_user(manager: SessionManager, session: Session) -> None:
    assert session.user == "ann"
    manager.commit(session)


def use_another_mapping(manager: SessionManager, session: Session) -> None:
    with pytest.raises(SessionLockedError):
        session.adopt({"lang": "de"})
    manager.commit(session)


def use_a_stream(manager: SessionManager, session: Session) -> None:
    watch = Watch(manager.canister.engine, manager.users, manager.events)
    manager._watch, watch.start = watch, lambda: None  # type: ignore[method-assign]
    with_lease = manager.hold(session, lambda: None, keep_alive=True)
    assert with_lease is not None
    watch.look()


@pytest.mark.parametrize("use", [use_mark_active, use_user, use_another_mapping, use_a_stream])
def test_nothing_but_a_proof_opens_it(
    locking: SessionManager, clock: ManualClock, use: Callable[[SessionManager, Session], Any]
) -> None:
    """Neither what counts as an access, nor what a commit writes unasked, nor a stream that lasts."""
    session = locking.load([])
    session.login("ann")
    cookie = sent(locking.commit(session).set_cookie)
    clock.advance(6 * MINUTE)
    session = locking.load([cookie])
    assert session.user == "ann"
    cookie = sent(locking.commit(session).set_cookie)  # renewed: the old secret is yet to be retired
    clock.advance(11 * MINUTE)
    session = locking.load([cookie])
    assert session.is_locked
    use(locking, session)
    clock.advance(MINUTE)
    assert locking.load([cookie]).is_locked


def push(session: Session) -> None:
    session["pushed"] = 1


def push_unseen(session: Session) -> None:
    session.mark_passive()
    session["pushed"] = 1


def count(session: Session) -> None:
    session.increment("pushed")


def ask(session: Session) -> None:
    assert session.user == "ann"


@pytest.mark.parametrize("act", [push, push_unseen, count, ask])
@pytest.mark.parametrize("has_begun", [True, False])
def test_nothing_that_began_before_the_lock_opens_it(
    locking: SessionManager, clock: ManualClock, act: Callable[[Session], Any], *, has_begun: bool
) -> None:
    """A stream whose headers have left, or a request that takes that long; what it writes is stored."""
    session = locking.load([])
    session["a"] = 1
    session.login("ann")
    cookie = sent(locking.commit(session).set_cookie)
    session = locking.load([cookie])
    assert session["a"] == 1
    if has_begun:
        locking.commit(session)
    clock.advance(11 * MINUTE)
    assert locking.load([cookie]).is_locked
    act(session)
    if has_begun:
        session.commit()
    else:
        locking.commit(session)
    found = locking.load([cookie])
    assert found.is_locked
    found.unlock()
    pushed = found.get("pushed", 0) + found.count("pushed")
    assert pushed == (0 if act is ask else 1)


def test_a_stream_keeps_a_session_open_that_is_not_locked(
    locking: SessionManager, clock: ManualClock
) -> None:
    cookie = create(locking, a=1)
    session = locking.load([cookie])
    locking.commit(session)
    for _ in range(3):
        clock.advance(9 * MINUTE)
        session["pushed"] = clock.now()
        session.commit()
    assert not locking.load([cookie]).is_locked


def test_a_lease_does_not_open_it_whose_process_was_stopped(
    canister: Canister, locking: SessionManager, clock: ManualClock
) -> None:
    cookie = create(locking, a=1)
    watch = locking._watch
    watch.start = lambda: None  # type: ignore[method-assign]
    assert locking.hold(locking.load([cookie]), lambda: None, keep_alive=True) is not None
    clock.advance(9 * MINUTE)
    watch.look()
    clock.advance(9 * MINUTE)
    assert not locking.load([cookie]).is_locked
    clock.advance(2 * MINUTE)
    watch.look()
    assert locking.load([cookie]).is_locked


def test_an_old_cookie_does_not_open_it(locking: SessionManager, clock: ManualClock) -> None:
    """A session that has moved in is locked for the cookie of the old system as well."""
    headers = ["old=credential"]
    session = locking.open(headers)
    assert (session.user, session.is_locked) == ("ann", False)
    cookie = sent(locking.commit(session).set_cookie)
    clock.advance(11 * MINUTE)
    session = locking.open(headers)
    assert (session.user, session.is_locked) == ("ann", True)
    assert sent(locking.commit(session).set_cookie) == cookie, "by which its user can unlock it"
    assert locking.load([cookie]).is_locked


def test_it_is_not_unlocked_once_the_headers_have_left(locking: SessionManager, clock: ManualClock) -> None:
    """No new secret could reach the client."""
    cookie = create(locking, a=1)
    clock.advance(11 * MINUTE)
    session = locking.load([cookie])
    locking.commit(session)
    with pytest.raises(SessionError, match="headers have left"):
        session.unlock()
    session.commit()
    assert session.is_locked
    assert locking.load([cookie]).is_locked
