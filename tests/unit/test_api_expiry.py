"""Expiry through the API: computed on read, never early, and reads that write nothing (I6, I12)."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from canister import Canister, SessionEndedError, Status
from canister.clock import to_datetime
from canister.testing.clock import ManualClock

MICROSECOND = timedelta(microseconds=1)
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)

# The defaults, but for the absolute lifetime: the touch interval is a twentieth of the idle timeout.
IDLE, INTERVAL, GRACE, ABSOLUTE = 20 * MINUTE, MINUTE, HOUR, 5 * DAY


@pytest.fixture
def node(tmp_path: Path, clock: ManualClock) -> Iterator[Canister]:
    """Yield a node of its own; nothing here needs its agent."""
    with Canister(tmp_path / "node", agent=False, clock=clock, absolute_lifetime=ABSOLUTE) as node:
        yield node


def now(clock: ManualClock) -> datetime:
    return to_datetime(clock.now())


def last_stamp(node: Canister) -> int:
    with node.node.store.snapshot() as snapshot:
        return snapshot.last_stamp()


def keep_alive(node: Canister, clock: ManualClock, until: datetime) -> None:
    """Touch a session up to an instant."""
    while now(clock) + IDLE < until:
        clock.advance(IDLE)
        assert node.touch("s")
    clock.advance(until - now(clock))


def is_over(node: Canister) -> bool:
    """Tell whether no way of reading shows the session; all ways must agree."""
    seen = {
        node.peek("s", "k") is None,
        node.get_data("s") == {},
        node.session_info("s") is None,
        node.last_access_time("s") is None,
        node.last_update_time("s") is None,
        list(node.all_sessions()) == [],
        node.num_local_sessions() == 0,
        node.record_status("s").status is not Status.LIVE,
        not node.touch("s", local=True),
    }
    (over,) = seen
    return over


def test_a_session_ends_without_being_swept(node: Canister, clock: ManualClock) -> None:
    """Its last microsecond is a touch interval after its idle timeout, for every reader alike."""
    node.put("s", "k", 1)
    clock.advance(IDLE + INTERVAL - MICROSECOND)
    assert not is_over(node)
    clock.advance(MICROSECOND)
    assert is_over(node)
    assert node.get("s", "k") is None
    assert not node.touch("s")
    assert not node.set_expiry("s", idle="1h")
    assert node.remove("s", "k") is None
    assert is_over(node)


@pytest.mark.parametrize("delay", [MICROSECOND, INTERVAL / 2, INTERVAL - MICROSECOND, INTERVAL, 7 * MINUTE])
def test_never_earlier_than_the_idle_timeout_after_the_last_access(
    node: Canister, clock: ManualClock, delay: timedelta
) -> None:
    """An access counts in full, whether or not it fell due to be recorded."""
    node.put("s", "k", 1)
    clock.advance(delay)
    assert node.get("s", "k") == 1
    clock.advance(IDLE - MICROSECOND)
    assert not is_over(node)
    clock.advance(INTERVAL + MICROSECOND)
    assert is_over(node)


def test_without_a_touch_interval_the_idle_timeout_is_exact(tmp_path: Path, clock: ManualClock) -> None:
    """With a touch interval of zero every access is recorded, and the end is the idle timeout itself."""
    with Canister(tmp_path / "exact", clock=clock, touch_interval="0s", session_timeout="10m") as node:
        node.put("s", "k", 1)
        clock.advance(MICROSECOND)
        node.get("s", "k")
        assert node.last_access_time("s") == now(clock)
        clock.advance(10 * MINUTE - MICROSECOND)
        assert not is_over(node)
        clock.advance(MICROSECOND)
        assert is_over(node)


def test_reads_write_nothing_within_the_touch_interval(node: Canister, clock: ManualClock) -> None:
    """A thousand reads of all kinds leave the log where it was; the interval's end brings one entry."""
    node.put("s", "k", 1)
    stamp = last_stamp(node)
    for _ in range(100):
        clock.advance(INTERVAL // 101)
        node.get("s", "k")
        node.get("s", "other")
        node.get("unknown", "k")
        node.touch("s")
        node.touch("s", now(clock))
        node.peek("s", "k")
        node.get_data("s")
        node.session_info("s")
        node.record_status("s")
        node.version("s")
    assert last_stamp(node) == stamp
    clock.advance(INTERVAL)
    for _ in range(10):
        node.get("s", "k")
    with node.node.store.snapshot() as snapshot:
        assert len(snapshot.log(stamp)) == 1


def test_reads_by_peek_never_write(node: Canister, clock: ManualClock) -> None:
    """Only get and touch record an access, however long ago the last one was."""
    node.put("s", "k", 1)
    stamp = last_stamp(node)
    clock.advance(IDLE)
    node.peek("s", "k")
    node.get_data("s")
    node.session_info("s")
    list(node.all_sessions())
    assert last_stamp(node) == stamp


def test_a_put_on_an_expired_session_starts_afresh(node: Canister, clock: ManualClock) -> None:
    """Within the grace period the session goes on with its birth, and old keys do not come back."""
    node.update("s", {"user": "ann", "k": 1})
    born = now(clock)
    clock.advance(IDLE + INTERVAL)
    assert node.put("s", "k", 2) is None
    assert node.get_data("s") == {"k": 2}
    info = node.session_info("s")
    assert info is not None
    assert (info.created, info.accessed, info.cleared) == (born, now(clock), now(clock))
    clock.advance(IDLE)
    assert node.get("s", "k") == 2


def test_a_clear_of_an_expired_session_keeps_its_keys_hidden(node: Canister, clock: ManualClock) -> None:
    """Clearing too late is still a clear."""
    node.update("s", {"user": "ann", "k": 1})
    clock.advance(IDLE + INTERVAL)
    node.clear("s")
    assert node.get_data("s") == {}
    node.put("s", "k", 2)
    assert node.get_data("s") == {"k": 2}


def test_a_put_past_the_grace_period_makes_a_new_session(node: Canister, clock: ManualClock) -> None:
    """What nobody swept yet is hidden like the rest of the former life, its times too."""
    node.update("s", {"user": "ann", "k": 1})
    node.set_expiry("s", idle="2m", until=now(clock) + 5 * MINUTE)
    clock.advance(IDLE + INTERVAL + GRACE)
    assert node.put("s", "k", 2) is None
    born = now(clock)
    assert node.get_data("s") == {"k": 2}
    assert node.record_status("s").created == born
    clock.advance(IDLE)
    assert node.get("s", "k") == 2
    keep_alive(node, clock, born + ABSOLUTE - MICROSECOND)
    assert not is_over(node)


def test_no_use_prolongs_a_session_past_its_absolute_lifetime(node: Canister, clock: ManualClock) -> None:
    """It ends for readers and writers alike, and only a new id goes on."""
    node.put("s", "k", 1)
    end = now(clock) + ABSOLUTE
    keep_alive(node, clock, end - MICROSECOND)
    assert not is_over(node)
    clock.advance(MICROSECOND)
    assert is_over(node)
    stamp = last_stamp(node)
    with pytest.raises(SessionEndedError, match="new id"):
        node.put("s", "k", 2)
    with pytest.raises(SessionEndedError):
        node.update("s", {"k": 2})
    assert last_stamp(node) == stamp
    assert is_over(node)
    node.put("new", "k", 1)
    assert node.get("new", "k") == 1


def test_starting_afresh_does_not_move_the_absolute_end(node: Canister, clock: ManualClock) -> None:
    """A put on an expired session is the same session: its birth still counts."""
    node.put("s", "k", 1)
    end = now(clock) + ABSOLUTE
    clock.advance(IDLE + INTERVAL)
    node.put("s", "k", 2)
    node.clear("s")
    node.put("s", "k", 3)
    keep_alive(node, clock, end - MICROSECOND)
    assert not is_over(node)
    clock.advance(MICROSECOND)
    assert is_over(node)


def test_an_expiry_of_its_own(node: Canister, clock: ManualClock) -> None:
    """A session may live shorter or longer than the default, with a touch interval to match."""
    node.put("s", "k", 1)
    assert node.set_expiry("s", idle="10s")
    clock.advance(10.5 * SECOND - MICROSECOND)
    assert not is_over(node)
    clock.advance(MICROSECOND)
    assert is_over(node)
    node.put("t", "k", 1)
    assert node.set_expiry("t", idle=2 * DAY)
    clock.advance(2.1 * DAY - MICROSECOND)
    assert node.peek("t", "k") == 1
    clock.advance(MICROSECOND)
    assert node.peek("t", "k") is None


def test_an_expiry_is_taken_back_with_none(node: Canister, clock: ManualClock) -> None:
    """Without arguments the session has the times it was born with again."""
    node.put("s", "k", 1)
    node.set_expiry("s", idle="2h", until=now(clock) + HOUR)
    assert node.set_expiry("s")
    clock.advance(IDLE + INTERVAL - MICROSECOND)
    assert not is_over(node)
    clock.advance(MICROSECOND)
    assert is_over(node)


def test_until_ends_a_session_whatever_happens(node: Canister, clock: ManualClock) -> None:
    """No access moves an instant the session was given, and it survives a clear."""
    node.put("s", "k", 1)
    end = now(clock) + 5 * MINUTE
    assert node.set_expiry("s", until=end)
    clock.advance(4 * MINUTE)
    node.clear("s")
    node.put("s", "k", 2)
    node.touch("s")
    clock.advance(MINUTE - MICROSECOND)
    assert not is_over(node)
    clock.advance(MICROSECOND)
    assert is_over(node)
    # Started afresh it has no such instant any more.
    node.put("s", "k", 3)
    clock.advance(IDLE)
    assert node.get_data("s") == {"k": 3}


def test_an_until_in_the_past_ends_a_session_at_once(node: Canister, clock: ManualClock) -> None:
    """The instant may be over already."""
    node.put("s", "k", 1)
    clock.advance(MINUTE)
    assert node.set_expiry("s", until=now(clock) - SECOND)
    assert is_over(node)


def test_no_expiry_passes_the_absolute_lifetime(node: Canister, clock: ManualClock) -> None:
    """Neither an idle timeout nor an instant may, and a refused one changes nothing."""
    node.put("s", "k", 1)
    end = now(clock) + ABSOLUTE
    stamp = last_stamp(node)
    with pytest.raises(SessionEndedError, match="until"):
        node.set_expiry("s", until=end + MICROSECOND)
    with pytest.raises(SessionEndedError, match="idle"):
        node.set_expiry("s", idle=ABSOLUTE + MICROSECOND)
    assert last_stamp(node) == stamp
    assert node.set_expiry("s", idle=ABSOLUTE, until=end)
    clock.advance(ABSOLUTE - MICROSECOND)
    assert not is_over(node)
    clock.advance(MICROSECOND)
    assert is_over(node)


def test_an_expiry_is_set_on_live_sessions_only(node: Canister, clock: ManualClock) -> None:
    """Unknown, expired and destroyed sessions answer False and are not made."""
    node.put("expired", "k", 1)
    clock.advance(IDLE + INTERVAL)
    node.put("destroyed", "k", 1)
    node.destroy("destroyed")
    stamp = last_stamp(node)
    for name in ("unknown", "expired", "destroyed"):
        assert not node.set_expiry(name, idle="1h")
    assert last_stamp(node) == stamp


def test_the_times_in_force_at_creation_are_facts_of_the_session(tmp_path: Path, clock: ManualClock) -> None:
    """Other settings after a restart change new sessions only."""
    with Canister(tmp_path / "node", clock=clock) as node:
        node.put("s", "k", 1)
    with Canister(tmp_path / "node", clock=clock, session_timeout="1m", absolute_lifetime="2m") as node:
        node.put("t", "k", 1)
        clock.advance(IDLE)
        assert not is_over(node)
        assert node.record_status("t").status is Status.EXPIRED


def test_sweeping_changes_nothing_visible(node: Canister, clock: ManualClock) -> None:
    """At every age a session looks alike before and after a sweep."""
    node.put("s", "k", 1)
    for _ in range(20):
        before = (is_over(node), node.record_status("s"), node.get_data("s"))
        node.clear_untouched_sessions()
        node.delete_deleted_sessions()
        assert (is_over(node), node.record_status("s"), node.get_data("s")) == before
        clock.advance(7 * MINUTE)
    assert list(node.node.store.scan()) == []


def test_a_clock_that_steps_back(node: Canister, clock: ManualClock) -> None:
    """Versions still grow, so that the later write wins, and nothing ends early (I11)."""
    node.put("s", "k", 1)
    first = last_stamp(node)
    clock.advance(-HOUR)
    node.put("s", "k", 2)
    assert last_stamp(node) > first
    assert node.get("s", "k") == 2
    node.clear("s")
    assert node.get_data("s") == {}
    node.put("s", "k", 3)
    assert node.get_data("s") == {"k": 3}
    node.destroy("s")
    assert node.get_data("s") == {}
