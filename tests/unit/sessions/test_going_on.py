"""A connection that goes on after a commit, such as a WebSocket: it is served by what it has stored."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from tests.unit.sessions.kit import KEY, MINUTE, create, sent

from canister import Canister
from canister.errors import SessionError
from canister.sessions import SessionManager, SessionStatus
from canister.sessions.identity import KNOWN, Identity
from canister.testing.clock import ManualClock


@pytest.mark.parametrize("logs_in", [False, True])
def test_the_connection_that_made_a_session_keeps_it_alive(
    manager: SessionManager, clock: ManualClock, logs_in: bool
) -> None:
    """What it reads counts as an access from the first commit on, or the session would end in use."""
    session = manager.load([])
    session["a"] = 1
    if logs_in:
        session.login("ann")
    cookie = sent(manager.commit(session).set_cookie)
    for _ in range(10):
        clock.advance(5 * MINUTE)
        session.get("a")
        session.commit()
    assert manager.load([cookie]) == {"a": 1}


def test_when_a_session_ends_that_was_just_stored(manager: SessionManager) -> None:
    session = manager.load([])
    session["a"] = 1
    assert session.ends is None
    cookie = sent(manager.commit(session).set_cookie)
    ends = manager.load([cookie]).ends
    assert session.ends == ends is not None
    session.set_expiry(timedelta(hours=2))
    session.commit()
    assert session.ends == manager.load([cookie]).ends != ends


def test_commits_that_only_read_write_once(manager: SessionManager) -> None:
    """The secrets that were replaced are ended by the first; the others find nothing to do."""
    session = manager.load([create(manager, a=1)])
    session.renew()
    session = manager.load([sent(manager.commit(session).set_cookie)])
    versions = []
    for _ in range(3):
        session.get("a")
        session.commit()
        versions.append(manager.canister.version(session.handle or ""))
    assert len(set(versions)) == 1


@pytest.fixture
def cluster_of_one(tmp_path: Path, clock: ManualClock) -> Iterator[SessionManager]:
    with Canister(tmp_path / "one", agent=False, clock=clock) as canister:
        canister.node.store.set_doubts(1)
        yield SessionManager(canister, secret_keys=KEY)


def test_the_client_of_a_session_that_stays_shows_that_it_does(cluster_of_one: SessionManager) -> None:
    """At another node, which has not heard of that: there a new id would take less than that along."""
    session = cluster_of_one.load([])
    session.login("ann")
    outcome = cluster_of_one.commit(session)
    cookies = [sent(outcome.set_cookie)], [sent(outcome.set_seen)]
    session = cluster_of_one.load(*cookies)
    cluster_of_one.users.end_all("ann", keep=session)
    set_seen = cluster_of_one.commit(session).set_seen
    record = cluster_of_one.load(*cookies).state.record
    assert record is not None
    shown = cluster_of_one.load(cookies[0], [sent(set_seen)]).state.sight.shown
    assert shown == (record.cells[KNOWN].version,)


def test_the_seen_cookie_tells_what_the_client_has_seen(cluster_of_one: SessionManager) -> None:
    """That is what was loaded and what was written, not what another request has written in between."""
    cookie = create(cluster_of_one, a=1)
    session, other = cluster_of_one.load([cookie]), cluster_of_one.load([cookie])
    loaded = session.state.contents.seen
    other["b"] = 2
    cluster_of_one.commit(other)
    session["a"] = 2
    session.commit()
    assert session.state.sight.served == loaded
    assert session.state.written not in (None, *loaded)


def test_a_log_out_that_was_committed_is_seen_until_a_new_session_begins(manager: SessionManager) -> None:
    session = manager.load([create(manager, a=1)])
    session.logout()
    assert session.status is SessionStatus.DESTROYED
    session.commit()
    assert session.status is SessionStatus.DESTROYED
    session["b"] = 1
    assert session.status is SessionStatus.NEW


def test_after_its_commit_a_log_in_has_an_instant(manager: SessionManager) -> None:
    session = manager.load([])
    session.login("ann")
    assert session.identity == Identity("ann")
    session.commit()
    assert session.identity is not None
    assert session.identity == manager.users.sessions("ann")[0].identity
    assert session.identity.at is not None


def test_a_renewal_that_comes_too_late_is_refused_once(manager: SessionManager) -> None:
    cookie = create(manager, a=1)
    session = manager.load([cookie])
    manager.commit(session)
    session["a"] = 2
    session.renew()
    with pytest.raises(SessionError, match="headers have left"):
        session.commit()
    session.commit()
    assert manager.load([cookie])["a"] == 2
