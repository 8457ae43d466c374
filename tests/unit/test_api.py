"""The API of the seed, function by function, on a single node whose clock stands still."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from canister import Canister, Status
from canister.clock import instant, to_datetime
from canister.errors import (
    SessionDestroyedError,
)
from canister.store.base import LogEntry
from canister.testing.clock import ManualClock

MICROSECOND = timedelta(microseconds=1)
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)

# The defaults: an idle timeout of 20 minutes, and a touch interval of a twentieth of it.
IDLE, INTERVAL, GRACE, ABSOLUTE = 20 * MINUTE, MINUTE, 60 * MINUTE, 30 * DAY


@pytest.fixture
def node(tmp_path: Path, clock: ManualClock) -> Iterator[Canister]:
    """Yield a node of its own with the default settings."""
    with Canister(tmp_path / "node", clock=clock) as node:
        yield node


def now(clock: ManualClock) -> datetime:
    return to_datetime(clock.now())


def log_of(node: Canister, after: int = 0) -> list[LogEntry]:
    """Return what the node has committed."""
    with node.node.store.snapshot() as snapshot:
        return snapshot.log(after)


def last_stamp(node: Canister) -> int:
    with node.node.store.snapshot() as snapshot:
        return snapshot.last_stamp()


# Keys and values.


def test_put_returns_the_previous_value(node: Canister) -> None:
    """The value that was there is returned, None if there was none."""
    assert node.put("s", "k", "one") is None
    assert node.put("s", "k", "two") == "one"
    assert node.put("s", "other", 1) is None
    assert node.put("t", "k", 1) is None
    assert node.get("s", "k") == "two"


def test_put_returns_none_for_what_is_no_longer_there(node: Canister) -> None:
    """A removed or cleared value is not a previous one."""
    node.put("s", "k", 1)
    node.remove("s", "k")
    assert node.put("s", "k", 2) is None
    node.clear("s")
    assert node.put("s", "k", 3) is None


def test_ids_of_another_type_are_other_sessions(node: Canister) -> None:
    """A str and a bytes id never meet, and both come back as they were given."""
    node.put("s", "k", "text")
    node.put(b"s", "k", "bytes")
    assert node.get("s", "k") == "text"
    assert node.get(b"s", "k") == "bytes"
    assert {*node.all_sessions()} == {"s", b"s"}


def test_keys_of_another_type_are_other_keys(node: Canister) -> None:
    """Keys that look alike do not meet, and come back as they were given."""
    keys: list[Any] = ["1", b"1", 1, ("1",), (1,), (1, ("a", b"b")), "", -(2**70)]
    for key in keys:
        node.put("s", key, [key])
    assert node.get_data("s") == {key: [key] for key in keys}
    assert all(node.get("s", key) == [key] for key in keys)


def test_values_come_back_equal_and_of_the_same_type(node: Canister) -> None:
    """What a session can hold is returned as it was stored."""
    values: list[Any] = [
        *(None, True, 7, 2**100, 1.5, "text", b"bytes", [1, (2, {3})], frozenset({1})),
        *({"a": {1: None}}, datetime(2026, 1, 1, tzinfo=UTC), DAY, Decimal("1.10"), UUID(int=5)),
    ]
    for value in values:
        node.put("s", "k", value)
        found = node.get("s", "k")
        assert (type(found), found) == (type(value), value)


def test_get_returns_the_default_for_what_is_not_there(node: Canister) -> None:
    """An unknown session and an unknown key give the default; a stored None does not."""
    assert node.get("s", "k") is None
    assert node.get("s", "k", 5) == 5
    node.put("s", "k", None)
    assert node.get("s", "k", 5) is None
    assert node.get("s", "other", 5) == 5


def test_get_counts_as_an_access(node: Canister, clock: ManualClock) -> None:
    """A get after the touch interval records an access, whether or not the key is there."""
    node.put("s", "k", 1)
    clock.advance(INTERVAL)
    node.get("s", "k")
    assert node.last_access_time("s") == now(clock)
    clock.advance(INTERVAL)
    node.get("s", "other")
    assert node.last_access_time("s") == now(clock)


def test_local_get_and_touch_record_nothing(node: Canister, clock: ManualClock) -> None:
    """With local=True a session is read, and nobody is told."""
    node.put("s", "k", 1)
    stamp = last_stamp(node)
    clock.advance(2 * INTERVAL)
    assert node.get("s", "k", local=True) == 1
    assert node.get_data("s", local=True) == {"k": 1}
    assert node.touch("s", local=True)
    assert not node.touch("unknown", local=True)
    assert last_stamp(node) == stamp


def test_peek_is_no_access(node: Canister, clock: ManualClock) -> None:
    """A peek reads without prolonging the session, and so does all that is not get or touch."""
    node.put("s", "k", 1)
    created, stamp = now(clock), last_stamp(node)
    clock.advance(IDLE)
    assert node.peek("s", "k") == 1
    assert node.peek("s", "other", 7) == 7
    assert node.peek("unknown", "k", 7) == 7
    assert node.get_data("s") == {"k": 1}
    node.session_info("s")
    node.version("s")
    node.record_status("s")
    assert node.last_access_time("s") == created
    assert last_stamp(node) == stamp


@pytest.mark.parametrize("more", [{}, {"list": [1]}])
def test_what_get_data_returns_is_the_callers_own(node: Canister, more: dict[str, Any]) -> None:
    """Whoever changes it changes nothing for the next one who asks."""
    node.update("s", {"k": "v"} | more)
    for _ in range(3):
        data = node.get_data("s")
        assert data == {"k": "v"} | more
        data["k"] = "changed"
        data.setdefault("list", []).append(2)


def test_a_session_in_memory_ends_in_time(node: Canister, clock: ManualClock) -> None:
    """What was worked out of a session that is read again holds until its end, and no longer."""
    node.put("s", "k", "v")
    for _ in range(3):
        assert node.get_data("s") == {"k": node.get("s", "k", local=True)} == {"k": "v"}
        clock.advance(1)
    info = node.session_info("s")
    assert info is not None
    clock.set(instant(info.ends) - 1)
    assert node.get_data("s") == {"k": node.get("s", "k", local=True)} == {"k": "v"}
    clock.advance(1)
    assert node.get_data("s") == {}
    assert node.get("s", "k", local=True) is None


def test_get_data_returns_all_keys(node: Canister) -> None:
    """The data is a dict, empty where there is no session."""
    assert node.get_data("s") == {}
    node.update("s", {"a": 1, 2: [3]})
    assert node.get_data("s") == {"a": 1, 2: [3]}


def test_update_is_one_commit(node: Canister) -> None:
    """All keys are written under one version, creating the session with it."""
    node.update("s", {"a": 1, "b": 2, "c": 3})
    (entry,) = log_of(node)
    assert [len(entry.changes)] == [1]
    assert node.get_data("s") == {"a": 1, "b": 2, "c": 3}
    node.update("s", {"a": 4, "d": 5})
    assert len(log_of(node)) == 2
    assert node.get_data("s") == {"a": 4, "b": 2, "c": 3, "d": 5}


def test_remove_returns_the_value(node: Canister) -> None:
    """One key goes and its value is returned; what is not there writes nothing."""
    node.update("s", {"a": 1, "b": 2})
    assert node.remove("s", "a") == 1
    assert node.get_data("s") == {"b": 2}
    stamp = last_stamp(node)
    assert node.remove("s", "a") is None
    assert node.remove("unknown", "a") is None
    assert last_stamp(node) == stamp
    assert node.record_status("unknown").status is Status.UNKNOWN


def test_threads_share_a_node(node: Canister) -> None:
    """Writers to different keys of one session lose nothing of each other."""

    def write(name: str) -> None:
        for i in range(20):
            node.put("s", f"{name}{i}", i)

    threads = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert node.get_data("s") == {f"{name}{i}": i for name in "abcd" for i in range(20)}


# What is known of a session.


def test_session_info(node: Canister, clock: ManualClock) -> None:
    """Data and times of a live session are returned together."""
    created = now(clock)
    node.put("s", "k", 1)
    clock.advance(10 * MINUTE)
    node.clear("s")
    cleared = now(clock)
    clock.advance(SECOND)
    node.put("s", "k", 2)
    info = node.session_info("s")
    assert info is not None
    assert info[:5] == ({"k": 2}, created, cleared, now(clock), cleared)
    assert info.ends == cleared + timedelta(minutes=21)  # idle timeout and touch interval
    assert {info.created.tzinfo, info.accessed.tzinfo} == {UTC}


def test_session_info_is_none_without_a_live_session(node: Canister, clock: ManualClock) -> None:
    """Unknown, destroyed and expired sessions have no info; a cleared one has, without data."""
    for name in ("destroyed", "expired", "cleared"):
        node.put(name, "k", 1)
    node.destroy("destroyed")
    assert node.session_info("destroyed") is None
    assert node.session_info("unknown") is None
    node.clear("cleared")
    info = node.session_info("cleared")
    assert info is not None
    assert (info.data, info.cleared) == ({}, node.deleted_time("cleared"))
    clock.advance(IDLE + INTERVAL)
    assert node.session_info("expired") is None


def test_last_access_and_update_times(node: Canister, clock: ManualClock) -> None:
    """Writing, removing and clearing update; reading and touching access; neither of nothing."""
    assert node.last_access_time("s") is None
    assert node.last_update_time("s") is None
    node.update("s", {"a": 1, "b": 2})
    written = now(clock)
    assert node.last_access_time("s") == node.last_update_time("s") == written
    clock.advance(5 * MINUTE)
    node.get("s", "a")
    assert node.last_access_time("s") == now(clock)
    assert node.last_update_time("s") == written
    clock.advance(SECOND)
    node.remove("s", "a")
    assert node.last_update_time("s") == now(clock)
    clock.advance(SECOND)
    node.clear("s")
    assert node.last_update_time("s") == now(clock)
    node.destroy("s")
    assert node.last_access_time("s") is None
    assert node.last_update_time("s") is None


def test_a_write_counts_as_an_access(node: Canister, clock: ManualClock) -> None:
    """A put prolongs the session, in the same commit."""
    node.put("s", "k", 1)
    for i in range(3):
        stamp = last_stamp(node)
        clock.advance(IDLE)
        node.put("s", "k", i)
        assert node.last_access_time("s") == now(clock)
        assert len(log_of(node, stamp)) == 1


def test_deleted_time(node: Canister, clock: ManualClock) -> None:
    """It is when the session was destroyed, or cleared with nothing written since."""
    assert node.deleted_time("s") is None
    node.put("s", "k", 1)
    assert node.deleted_time("s") is None
    clock.advance(SECOND)
    node.clear("s")
    assert node.deleted_time("s") == now(clock)
    node.put("s", "k", 1)
    assert node.deleted_time("s") is None
    clock.advance(SECOND)
    node.destroy("s")
    destroyed = now(clock)
    clock.advance(DAY)
    assert node.deleted_time("s") == destroyed


def test_record_status_of_all_five_states(node: Canister, clock: ManualClock) -> None:
    """Every state an id can be in is told apart, with the times that are known."""
    born = now(clock)
    assert node.record_status("s") == (Status.UNKNOWN, None, None, None, None)
    node.put("s", "k", 1)
    assert node.record_status("s") == (Status.LIVE, born, born, born, None)
    clock.advance(SECOND)
    node.clear("s")
    assert node.record_status("s") == (Status.CLEARED, born, born, now(clock), now(clock))
    cleared = now(clock)
    clock.advance(IDLE + INTERVAL)
    assert node.record_status("s") == (Status.EXPIRED, born, born, cleared, None)
    node.destroy("s")
    assert node.record_status("s") == (Status.DESTROYED, None, None, None, now(clock))


def test_record_status_past_the_grace_period_is_unknown(node: Canister, clock: ManualClock) -> None:
    """An expired session is gone after its grace period, swept or not."""
    node.put("s", "k", 1)
    clock.advance(IDLE + INTERVAL + GRACE - MICROSECOND)
    assert node.record_status("s").status is Status.EXPIRED
    clock.advance(MICROSECOND)
    assert node.record_status("s") == (Status.UNKNOWN, None, None, None, None)


def test_a_write_after_a_clear_makes_it_live_again(node: Canister) -> None:
    """A session is cleared only as long as it holds nothing."""
    node.put("s", "k", 1)
    node.clear("s")
    node.put("s", "k", 2)
    assert node.record_status("s").status is Status.LIVE
    node.remove("s", "k")
    assert node.record_status("s").status is Status.CLEARED


def test_version_names_what_was_read(node: Canister) -> None:
    """A version changes with the session, satisfies reads here, and is None for an unknown id."""
    assert node.version("s") is None
    node.put("s", "k", 1)
    first = node.version("s")
    node.put("s", "k", 2)
    second = node.version("s")
    assert first is not None
    assert second is not None
    assert first != second
    for seen in (first, second):
        assert node.get("s", "k", after=seen) == 2
        assert node.get_data("s", after=seen) == {"k": 2}
    assert node.get("unknown", "k", 5, after=second) == 5


# Ending a session.


def test_clear_empties_a_session(node: Canister, clock: ManualClock) -> None:
    """All keys go, the birth stays, and a put starts afresh."""
    born = now(clock)
    node.update("s", {"a": 1, "b": 2})
    clock.advance(SECOND)
    node.clear("s")
    assert node.get_data("s") == {}
    assert node.get("s", "a") is None
    node.put("s", "c", 3)
    assert node.get_data("s") == {"c": 3}
    assert node.record_status("s").created == born


def test_clear_keeps_the_times_of_its_own(node: Canister, clock: ManualClock) -> None:
    """An expiry that was set holds after a clear."""
    node.put("s", "k", 1)
    node.set_expiry("s", idle="2h")
    node.clear("s")
    node.put("s", "k", 2)
    clock.advance(timedelta(hours=2))
    assert node.get("s", "k") == 2


def test_destroy_is_for_good(node: Canister, clock: ManualClock) -> None:
    """Nothing brings a destroyed id back while its tombstone lives; destroying again is no error."""
    node.put("s", "k", 1)
    node.destroy("s")
    node.destroy("s")
    assert node.get("s", "k") is None
    assert not node.touch("s")
    assert not node.set_expiry("s", idle="1h")
    assert node.remove("s", "k") is None
    clock.advance(ABSOLUTE - SECOND)
    for write in (lambda: node.put("s", "k", 2), lambda: node.update("s", {1: 2}), lambda: node.clear("s")):
        with pytest.raises(SessionDestroyedError):
            write()
    assert node.record_status("s").status is Status.DESTROYED


def test_destroy_of_an_unknown_id_outlives_any_lifetime(node: Canister, clock: ManualClock) -> None:
    """A tombstone for what may exist elsewhere is kept for the longest lifetime there can be."""
    node.destroy("s")
    clock.advance(400 * DAY + GRACE)
    with pytest.raises(SessionDestroyedError):
        node.put("s", "k", 1)
    clock.advance(MINUTE)
    assert node.put("s", "k", 1) is None
    assert node.get("s", "k") == 1


def test_forget_drops_the_copy(node: Canister) -> None:
    """A forgotten session is unknown here, as if it had never been."""
    node.put("s", "k", 1)
    assert node.forget("s")
    assert not node.forget("s")
    assert node.record_status("s").status is Status.UNKNOWN
    assert node.get("s", "k") is None


# Touch.


def test_touch_records_an_access_once_per_interval(node: Canister, clock: ManualClock) -> None:
    """A second touch within the interval answers True and writes nothing."""
    node.put("s", "k", 1)
    stamp = last_stamp(node)
    clock.advance(INTERVAL - MICROSECOND)
    assert node.touch("s")
    assert last_stamp(node) == stamp
    clock.advance(MICROSECOND)
    assert node.touch("s")
    assert node.last_access_time("s") == now(clock)
    stamp = last_stamp(node)
    assert node.touch("s")
    assert last_stamp(node) == stamp


def test_touch_without_a_live_session_answers_false(node: Canister, clock: ManualClock) -> None:
    """Unknown, expired and destroyed sessions are not touched, and not made."""
    node.put("s", "k", 1)
    clock.advance(IDLE + INTERVAL)
    stamp = last_stamp(node)
    assert not node.touch("s")
    assert not node.touch("unknown")
    assert last_stamp(node) == stamp
    assert node.record_status("unknown").status is Status.UNKNOWN


def test_touch_in_the_past(node: Canister, clock: ManualClock) -> None:
    """An access is recorded with its own time, and never moves back."""
    node.put("s", "k", 1)
    created = now(clock)
    clock.advance(10 * MINUTE)
    assert node.touch("s", created + 5 * MINUTE)
    assert node.last_access_time("s") == created + 5 * MINUTE
    stamp = last_stamp(node)
    assert node.touch("s", created + 2 * MINUTE)
    assert node.touch("s", datetime(1970, 1, 2, tzinfo=UTC))
    assert node.last_access_time("s") == created + 5 * MINUTE
    assert last_stamp(node) == stamp


def test_touch_in_another_time_zone(node: Canister, clock: ManualClock) -> None:
    """An aware time of any zone is the instant it names."""
    node.put("s", "k", 1)
    clock.advance(10 * MINUTE)
    assert node.touch("s", now(clock).astimezone(timezone(timedelta(hours=9))))
    assert node.last_access_time("s") == now(clock)


# Enumerating and sweeping.


def test_all_sessions_never_holds_the_whole_list(node: Canister, monkeypatch: pytest.MonkeyPatch) -> None:
    """The iterator reads on only when asked for more."""
    expected = {f"s{i}" for i in range(1100)}
    for name in expected:
        node.put(name, "k", 1)
    scan, read = node.node.store.scan, list[bytes]()

    def counting() -> Any:
        for session, record in scan():
            read.append(session)
            yield session, record

    monkeypatch.setattr(node.node.store, "scan", counting)
    sessions = node.all_sessions()
    assert read == []
    first = next(sessions)
    assert len(read) == 1
    found = [first, *sessions]
    assert len(found) == 1100
    assert {*found} == expected


def test_all_sessions_goes_on_over_changes(node: Canister) -> None:
    """Sessions that end while the list is read neither break it nor make it lose others."""
    expected = {f"s{i}" for i in range(600)}
    for name in expected:
        node.put(name, "k", 1)
    found = set()
    for name in node.all_sessions():
        found.add(name)
        node.destroy(name)
    assert found == expected
    assert list(node.all_sessions()) == []


def test_only_live_sessions_are_counted_and_listed(node: Canister, clock: ManualClock) -> None:
    """Expired, cleared and destroyed sessions are not counted, nor listed."""
    node.put("expired", "k", 1)
    clock.advance(IDLE + INTERVAL)
    for name in ("live", "cleared", "destroyed", "forgotten"):
        node.put(name, "k", 1)
    assert node.num_local_sessions() == 4
    node.clear("cleared")
    node.destroy("destroyed")
    node.forget("forgotten")
    assert node.num_local_sessions() == 1
    assert list(node.all_sessions()) == ["live"]


def test_clear_untouched_sessions(node: Canister, clock: ManualClock) -> None:
    """A sweep drops what is past its grace period, and nothing else."""
    for i in range(450):
        node.put(f"old{i}", "k", 1)
    node.put("destroyed", "k", 1)
    node.destroy("destroyed")
    clock.advance(GRACE)
    node.put("expired", "k", 1)
    clock.advance(IDLE + INTERVAL)
    node.put("live", "k", 1)
    assert node.clear_untouched_sessions() == 450
    assert node.clear_untouched_sessions() == 0
    assert node.record_status("expired").status is Status.EXPIRED
    assert node.record_status("destroyed").status is Status.DESTROYED
    assert node.get("live", "k") == 1


def test_delete_deleted_sessions(node: Canister, clock: ManualClock) -> None:
    """A tombstone is dropped when its session could no longer exist, and not before."""
    node.put("s", "k", 1)
    node.destroy("s")
    clock.advance(ABSOLUTE + GRACE)
    assert node.delete_deleted_sessions() == 0
    clock.advance(2 * MINUTE)  # twice the greatest clock difference
    assert node.clear_untouched_sessions() == 0
    assert node.delete_deleted_sessions() == 1
    assert node.delete_deleted_sessions() == 0


# The cluster of one.


def test_a_single_node_is_its_only_member(node: Canister) -> None:
    """Without peers there is one member, and nothing to repair."""
    (me,) = node.members()
    assert (me.state, me.lag) == ("self", None)
    node.put("s", "k", 1)
    node.resync()
    node.resync(["s", b"unknown"])
    assert node.num_queued() == 0
    assert not node.is_resyncing()
    assert node.get("s", "k") == 1
