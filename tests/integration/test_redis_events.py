"""What other processes do to sessions on Redis: events, and streams that end, without polling."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.integration.cluster import eventually
from tests.redis_servers import RedisServer, running_redis

from canister import Canister, StoreError
from canister.clock import to_datetime
from canister.sessions import Event, EventKind, Session, SessionManager
from canister.store.redis import listening
from canister.store.redis.wire import Link

pytestmark = pytest.mark.integration

KEY = "key-0123456789-abcdefghijklmnopqrs"
SOON = 1.0
"""Seconds within which a stream is to end."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with running_redis(tmp_path) as server:
        yield server


@pytest.fixture
def here(server: RedisServer) -> Iterator[SessionManager]:
    with Canister(server.url) as canister:
        yield SessionManager(canister, secret_keys=KEY)


@pytest.fixture
def there(server: RedisServer) -> Iterator[SessionManager]:
    """The session manager of another process: it shares nothing with the first but the server."""
    with Canister(server.url) as canister:
        yield SessionManager(canister, secret_keys=KEY)


def create(manager: SessionManager, user: str | None = None) -> Session:
    session = manager.load([])
    session["a"] = 1
    if user is not None:
        session.login(user)
    manager.commit(session)
    return session


class Stream:
    """A stream that is held by a session, and when it was told that it is over."""

    def __init__(self, manager: SessionManager, session: Session, **how: bool) -> None:
        self.ended = threading.Event()
        self.lease = manager.hold(session, self.ended.set, **how)
        assert self.lease is not None

    def await_first_look(self) -> "Stream":
        eventually(lambda: self.lease is not None and self.lease.next > 0, 10)
        return self


@pytest.fixture
def trips(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return the round trips to servers, as they are made."""
    made: list[Any] = []
    exchange = Link.exchange

    def counting(self: Link, commands: Any, deadline: Any) -> Any:
        made.append(commands)
        return exchange(self, commands, deadline)

    monkeypatch.setattr(Link, "exchange", counting)
    return made


def test_what_others_destroy_is_told(here: SessionManager, there: SessionManager) -> None:
    """However it is destroyed, and nothing else is; what this process does is told once, as its own."""
    events: list[Event] = []
    here.subscribe(events.append)
    eventually(lambda: here.canister.engine.last_stamp() > 0, 10, "it listens")
    begun = to_datetime(here.canister.engine.clock.now())
    first, second, third, own = (create(there, "ann") for _ in range(4))
    told = {str(session.handle): session is own for session in (first, second, third, own)}
    told["never-seen"] = False
    kept = create(there, "bob")
    there.canister.put(str(kept.handle), "b", 2)
    there.destroy(first)
    there.canister.destroy(str(second.handle))
    there.canister.destroy("never-seen")
    there.users.end("ann", str(third.handle))
    here.destroy(here.load([own.state.token.text if own.state.token else ""]))
    eventually(lambda: len(events) >= len(told), 10)
    there.canister.destroy("the last one")
    eventually(lambda: events[-1].handle == "the last one", 10)
    assert {event.handle: event.here for event in events[:-1]} == told
    assert len(events) == len(told) + 1
    assert {event.kind for event in events} == {EventKind.DESTROYED}
    assert all(event.at >= begun for event in events)


@pytest.mark.parametrize("how", ["destroy", "end all", "sooner"])
def test_a_stream_ends_within_a_second(here: SessionManager, there: SessionManager, how: str) -> None:
    session, other = create(there, "ann"), create(there, "bob")
    stream, goes_on = Stream(here, session).await_first_look(), Stream(here, other).await_first_look()
    begun = time.monotonic()
    if how == "destroy":
        there.destroy(session)
    elif how == "end all":
        there.users.end_all("ann")
    else:
        there.canister.set_expiry(str(session.handle), idle="1ms")
    assert stream.ended.wait(10)
    assert time.monotonic() - begun < SOON
    assert not goes_on.ended.is_set()


def test_sessions_that_are_held_cost_nothing(
    here: SessionManager, there: SessionManager, trips: list[Any]
) -> None:
    """Nobody asks for them, and of a user that is logged out everywhere only the own ones are looked at."""
    streams = [Stream(here, create(there, f"user {n}"), keep_alive=n % 2 == 0) for n in range(20)]
    for stream in streams:
        stream.await_first_look()
    trips.clear()
    for _ in range(3):
        here._watch.look()
    assert trips == []
    there.users.end_all("user 3")
    trips.clear()
    assert streams[3].ended.wait(10)
    assert len(trips) <= 2  # the session; gone by itself, its user need not be asked for
    assert not any(stream.ended.is_set() for stream in streams if stream is not streams[3])


def test_what_is_said_while_nobody_listens_is_looked_up(
    server: RedisServer, here: SessionManager, there: SessionManager
) -> None:
    """After a new connection each stream looks at its session once."""
    session = create(there)
    stream = Stream(here, session).await_first_look()
    listener: Any = here.canister.engine.store.listener  # type: ignore[attr-defined]
    with server.client() as client, listener._lock:  # it cannot connect anew meanwhile
        client.client_kill_filter(_type="pubsub")
        there.destroy(session)
    assert stream.ended.wait(SOON)


def test_a_server_that_hung_and_one_that_went(server: RedisServer, there: SessionManager) -> None:
    """A connection that is silent is given up; streams go on until their session is known to be over."""
    with Canister(server.url, remote_timeout="500ms") as canister:
        here = SessionManager(canister, secret_keys=KEY)
        session = create(there)
        stream = Stream(here, session).await_first_look()
        before = canister.engine.last_stamp()
        server.signal(signal.SIGSTOP)
        lost = canister.engine.store.listener  # type: ignore[attr-defined]
        eventually(lambda: lost._link is None, 10, "the connection is given up")
        assert not stream.ended.is_set()
        server.signal(signal.SIGCONT)
        eventually(lambda: canister.engine.last_stamp() > before, 10, "it listens again")
        there.destroy(session)
        assert stream.ended.wait(SOON)
        other = Stream(here, create(there)).await_first_look()
        server.stop()
        eventually(lambda: lost._link is None, 10, "the connection is lost")
        assert not other.ended.is_set()
        server.start()  # it keeps nothing on disk
        assert other.ended.wait(10)


def test_a_server_that_does_not_say_that_it_is_there_is_left(
    server: RedisServer, here: SessionManager, there: SessionManager
) -> None:
    """What it answers instead ends the connection, not whoever listens."""
    session = create(there)
    stream = Stream(here, session).await_first_look()
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "default", "-ping")
        before = here.canister.engine.last_stamp()
        eventually(lambda: here.canister.engine.last_stamp() > before, 10, "it listens anew")
    there.destroy(session)
    assert stream.ended.wait(SOON)


def test_a_child_listens_for_itself(here: SessionManager, there: SessionManager) -> None:
    """After a fork parent and child each have a connection of their own."""
    first, second = create(there), create(there)
    stream = Stream(here, first).await_first_look()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            own = Stream(here, second).await_first_look()
            os.write(writer, b"holds")
            os.write(writer, b" ended" if own.ended.wait(10) else b" not ended")
        finally:
            os._exit(0)
    assert os.read(reader, 5) == b"holds"
    there.destroy(second)
    assert os.read(reader, 20) == b" ended"
    os.waitpid(child, 0)
    assert not stream.ended.is_set()
    there.destroy(first)
    assert stream.ended.wait(SOON)


def test_who_may_not_speak_is_told_at_the_start(server: RedisServer) -> None:
    """A user without the channel is refused before anything is written."""
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "ann", "on", ">pw", "~*", "+@all", "resetchannels")
        with pytest.raises(StoreError, match=r"refuses this user .*channel"):
            Canister(f"redis://ann:pw@{server.address}")
        client.execute_command("ACL", "SETUSER", "ann", "&shop:ended")
        with Canister(f"redis://ann:pw@{server.address}", cluster="shop") as canister:
            canister.destroy("s")
            assert canister.engine.changes_since(0).missed
        with pytest.raises(StoreError, match=r"refuses this user .*channel"):
            Canister(f"redis://ann:pw@{server.address}", cluster="other")


def test_more_than_is_remembered(here: SessionManager, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has not looked for long is told that something may be missing."""
    monkeypatch.setattr(listening, "_REMEMBERED", 3)
    engine = here.canister.engine
    assert engine.changes_since(0).missed
    start = engine.last_stamp()
    for number in range(3):
        here.canister.destroy(str(number))

    def heard() -> int:
        changes = engine.changes_since(start)
        assert changes.missed == (changes.upto > start + 3)
        return changes.upto - start

    eventually(lambda: heard() == 3, 10)
    here.canister.destroy("3")
    eventually(lambda: heard() == 4, 10)
    assert not engine.changes_since(start + 1).missed
