"""Leases of streams, and what others do to sessions."""

import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.unit.sessions.kit import KEY, MINUTE

from canister import Canister, edits
from canister.codec import encode_user, user_record_id
from canister.engine import Changes
from canister.errors import StoreError
from canister.sessions import Event, EventKind, SessionManager
from canister.sessions.watch import Watch
from canister.store.base import Change, Mark
from canister.testing.clock import ManualClock


@pytest.fixture
def elsewhere(canister: Canister) -> SessionManager:
    """The session manager of another process of the node."""
    return SessionManager(canister, secret_keys=KEY)


@pytest.fixture
def watch(manager: SessionManager) -> Watch:
    """A watch that looks when the test says so."""
    return Watch(manager.canister.node, manager.users, manager.events)


def create(manager: SessionManager, user: str | None = None) -> Any:
    session = manager.load([])
    session["a"] = 1
    if user is not None:
        session.login(user)
    manager.commit(session)
    return session


def hold(watch: Watch, session: Any, ended: list[str], *, keep_alive: bool = False) -> None:
    """Hold a session without the thread."""
    watch.start = lambda: None  # type: ignore[method-assign]
    watch.hold(session.state.token.session, lambda: ended.append(session.handle), keep_alive=keep_alive)


def test_a_lease_ends_when_the_session_is_destroyed(
    manager: SessionManager, elsewhere: SessionManager, watch: Watch
) -> None:
    session, other = create(manager), create(manager)
    ended: list[str] = []
    hold(watch, session, ended)
    hold(watch, other, ended)
    watch.look()
    assert ended == []
    elsewhere.destroy(elsewhere.load([session.state.token.text]))
    watch.look()
    watch.look()
    assert ended == [session.handle]


def test_a_lease_ends_when_the_session_expires(
    manager: SessionManager, watch: Watch, clock: ManualClock
) -> None:
    session = create(manager)
    ended: list[str] = []
    hold(watch, session, ended)
    watch.look()
    clock.advance(20 * MINUTE)
    watch.look()
    assert ended == [], "idle for the idle timeout, and no touch interval more"
    clock.advance(MINUTE)
    watch.look()
    assert ended == [session.handle]


def test_a_lease_keeps_a_session_alive_if_asked(
    manager: SessionManager, watch: Watch, clock: ManualClock
) -> None:
    session = create(manager)
    ended: list[str] = []
    hold(watch, session, ended, keep_alive=True)
    for _ in range(40):
        clock.advance(MINUTE)
        watch.look()
    assert ended == []
    assert manager.load([session.state.token.text])["a"] == 1


def test_a_lease_ends_when_the_user_is_logged_out_everywhere(
    manager: SessionManager, tmp_path: Path, clock: ManualClock, watch: Watch
) -> None:
    session = create(manager, "ann")
    ended: list[str] = []
    hold(watch, session, ended)
    with Canister(tmp_path / "other", agent=False, clock=clock) as canister:
        SessionManager(canister, secret_keys=KEY).users.end_all("ann")
        manager.canister.node.store.merge(canister.node.store.scan(), {})
    watch.look()
    assert ended == [session.handle]


def test_a_lease_that_was_given_up_is_not_told(
    manager: SessionManager, elsewhere: SessionManager, watch: Watch
) -> None:
    session = create(manager)
    watch.start = lambda: None  # type: ignore[method-assign]
    ended: list[str] = []
    lease = watch.hold(session.state.token.session, lambda: ended.append("told"))
    lease.close()
    elsewhere.destroy(elsewhere.load([session.state.token.text]))
    watch.look()
    assert ended == []
    assert not lease.over


def test_what_a_late_look_may_have_missed_is_looked_up(
    manager: SessionManager, elsewhere: SessionManager, watch: Watch, clock: ManualClock
) -> None:
    session = create(manager)
    ended: list[str] = []
    hold(watch, session, ended)
    watch.look()
    elsewhere.destroy(elsewhere.load([session.state.token.text]))
    clock.advance(timedelta(seconds=10))
    create(manager)
    manager.canister.node.store.trim_log(clock.now() - 5_000_000)
    watch.look()
    assert ended == [session.handle]


def test_what_others_do_is_told(
    manager: SessionManager, elsewhere: SessionManager, watch: Watch, clock: ManualClock
) -> None:
    destroyed, expiring = create(manager), create(manager)
    events: list[Event] = []
    manager.events.subscribe(events.append)
    watch.look()
    elsewhere.destroy(elsewhere.load([destroyed.state.token.text]))
    watch.look()
    assert [(e.kind, e.handle, e.here) for e in events] == [(EventKind.DESTROYED, destroyed.handle, False)]
    clock.advance(3 * 60 * MINUTE)
    manager.canister.clear_untouched_sessions()
    events.clear()
    watch.look()
    assert [(e.kind, e.handle, e.here) for e in events] == [(EventKind.EXPIRED, expiring.handle, False)]


def test_an_end_after_many_writes_is_told_once(
    manager: SessionManager, elsewhere: SessionManager, watch: Watch
) -> None:
    """One look finds all of them, and the session as it is after the last."""
    session = create(manager)
    events: list[Event] = []
    manager.events.subscribe(events.append)
    watch.look()
    other = elsewhere.load([session.state.token.text])
    for number in range(5):
        other["a"] = number
        elsewhere.commit(other)
    elsewhere.destroy(other)
    watch.look()
    assert [(e.kind, e.handle) for e in events] == [(EventKind.DESTROYED, session.handle)]


@pytest.mark.parametrize("first", ["session", "revocation"])
def test_an_end_of_all_sessions_that_could_not_list_one_is_told(
    tmp_path: Path, manager: SessionManager, clock: ManualClock, first: str
) -> None:
    """No tombstone says that it is over, on no node."""
    session = create(manager, "ann")
    clock.advance(MINUTE)
    with (
        Canister(tmp_path / "other", agent=False, clock=clock) as ending,
        Canister(tmp_path / "third", agent=False, clock=clock) as third,
    ):
        SessionManager(ending, secret_keys=KEY).users.end_all("ann")
        seeing = SessionManager(third, secret_keys=KEY)
        events: list[Event] = []
        seeing.events.subscribe(events.append)
        watch = Watch(third.node, seeing.users, seeing.events)
        own, user = session.state.token.session, user_record_id(encode_user("ann"))
        arriving = [
            (own, manager.canister.node.store.load(own).record),
            (user, ending.node.store.load(user).record),
        ]
        for id, record in arriving if first == "session" else reversed(arriving):
            assert record is not None
            assert events == []
            third.node.take([(id, record)])
            watch.look()
        assert [(e.kind, e.handle, e.user, e.here) for e in events] == [
            (EventKind.DESTROYED, session.handle, "ann", False)
        ]
        seeing.users.end_all("ann")
        watch.look()
        assert len(events) == 1


def test_many_ends_at_once_are_each_told_once(
    manager: SessionManager, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.monotonic()
    events: list[Event] = []
    manager.events.subscribe(events.append)
    manager._watch = watch
    sessions = [create(manager, "ann") for _ in range(1100)]
    watch.look()
    events.clear()
    assert manager.users.end_all("ann") == len(sessions)
    watch.look()
    assert {e.handle for e in events} == {session.handle for session in sessions}
    assert len(events) == len(sessions)
    monkeypatch.setattr(time, "monotonic", lambda: now + 3600)
    watch.look()
    assert watch._told == {}, "not kept for ever"


def test_what_this_process_did_is_told_once(manager: SessionManager, watch: Watch) -> None:
    session = create(manager)
    events: list[Event] = []
    manager.events.subscribe(events.append)
    watch.look()
    watch.acted(session.handle)
    manager.destroy(session)
    watch.look()
    assert [e.here for e in events] == [True]


def test_the_thread_sees_a_destroy_within_a_second_and_ends_with_the_node(
    tmp_path: Path,
) -> None:
    with Canister(tmp_path / "data") as canister:
        manager = SessionManager(canister, secret_keys=KEY)
        session = create(manager)
        ended = threading.Event()
        assert manager.hold(session, ended.set) is not None
        canister.destroy(session.handle)
        assert ended.wait(1)
        threads = [t for t in threading.enumerate() if t.name == "canister-watch"]
        assert len(threads) == 1
    threads[0].join(5)
    assert not threads[0].is_alive()


def test_a_session_that_is_not_stored_cannot_be_held(manager: SessionManager) -> None:
    assert manager.hold(manager.load([]), lambda: None) is None


def test_a_store_that_fails_is_looked_at_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with Canister(tmp_path / "data") as canister:
        manager = SessionManager(canister, secret_keys=KEY)
        session = create(manager)
        failed, real = threading.Event(), canister.node.changes_since

        def fail_once(stamp: int) -> Any:
            if not failed.is_set():
                failed.set()
                raise StoreError("the disk is gone")
            return real(stamp)

        monkeypatch.setattr(canister.node, "changes_since", fail_once)
        ended = threading.Event()
        manager.hold(session, ended.set)
        assert failed.wait(2)
        canister.destroy(session.handle)
        assert ended.wait(2)
    assert "cannot be seen, trying again: the disk is gone" in caplog.text


def test_what_nobody_tells_is_seen_within_half_a_minute(
    manager: SessionManager, watch: Watch, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = create(manager)
    ended: list[str] = []
    hold(watch, session, ended)
    watch.look()
    node = manager.canister.node
    monkeypatch.setattr(node, "changes_since", lambda stamp: Changes([], stamp, missed=False))
    node.store.commit([(session.state.token.session, lambda r, m: edits.destroy(r, m, node.policy))])
    clock.advance(timedelta(seconds=29))
    watch.look()
    assert ended == []
    clock.advance(timedelta(seconds=1))
    watch.look()
    assert ended == [session.handle]


def test_one_session_that_cannot_be_read_holds_up_no_other(
    manager: SessionManager, elsewhere: SessionManager, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What could not be looked at, or told, stays due until it can."""
    ill, well = create(manager), create(manager)
    tokens = [session.state.token for session in (ill, well)]
    ended: list[str] = []
    events: list[Event] = []
    manager.events.subscribe(events.append)
    hold(watch, ill, ended)
    hold(watch, well, ended)
    watch.look()
    handles = [ill.handle, well.handle]
    for token in tokens:
        elsewhere.destroy(elsewhere.load([token.text]))
    events.clear()  # the two managers share a node, not their subscribers
    store = manager.canister.node.store
    load = store.load

    def failing(session: bytes) -> Any:
        if session == tokens[0].session:
            raise StoreError("the disk is gone")
        return load(session)

    with monkeypatch.context() as patch:
        patch.setattr(store, "load", failing)
        for _ in range(2):
            with pytest.raises(StoreError):
                watch.look()
        assert ended == [handles[1]]
        assert [event.handle for event in events] == [handles[1]]
    watch.look()
    assert ended == [handles[1], handles[0]]
    assert [event.handle for event in events] == [handles[1], handles[0]]


def test_every_end_is_told_however_much_else_is_written(
    manager: SessionManager, elsewhere: SessionManager, watch: Watch
) -> None:
    told: list[str | None] = []
    watch.start = lambda: None  # type: ignore[method-assign]
    ended = [create(manager) for _ in range(3)]
    watch.look()
    manager.events.subscribe(lambda event: told.append(event.handle))
    for session in ended:
        elsewhere.destroy(elsewhere.load([session.state.token.text]))
    for number in range(1500):
        elsewhere.canister.put(f"other {number % 7}", "n", number)
    watch.look()
    assert told == [session.handle for session in ended]


def test_the_end_of_one_stream_may_fail(
    manager: SessionManager, elsewhere: SessionManager, watch: Watch, caplog: pytest.LogCaptureFixture
) -> None:
    """What an application does at one end keeps no other one from being seen."""
    first, second = create(manager), create(manager)
    watch.start = lambda: None  # type: ignore[method-assign]
    ended: list[str] = []

    def fail() -> None:
        raise RuntimeError("of the application")

    watch.hold(first.state.token.session, fail)
    hold(watch, second, ended)
    watch.look()
    for session in (first, second):
        elsewhere.destroy(elsewhere.load([session.state.token.text]))
    watch.look()
    assert ended == [second.handle]
    assert "of the application" in caplog.text


def test_what_is_no_session_is_told_to_nobody(
    manager: SessionManager, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Anybody may write to the channel of a server."""
    told: list[Event] = []
    manager.events.subscribe(told.append)
    change = Change(b"s\xff", None, Mark(b"", 0), None)
    monkeypatch.setattr(manager.canister.node, "changes_since", lambda _: Changes([change], 1, missed=False))
    watch.look()
    assert told == []
