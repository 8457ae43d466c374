"""Bad input of every kind to the API: refused with the reason, and nothing is written or lost."""

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from canister import Canister, InputError
from canister.clock import to_datetime
from canister.errors import ConfigError, InvalidIdError, InvalidKeyError, InvalidValueError, TooLargeError
from canister.store.base import LogEntry
from canister.testing.clock import ManualClock

MICROSECOND = timedelta(microseconds=1)
MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)


@pytest.fixture
def node(tmp_path: Path, clock: ManualClock) -> Iterator[Canister]:
    """Yield a node of its own with the default settings; nothing here needs its agent."""
    with Canister(tmp_path / "node", agent=False, clock=clock) as node:
        yield node


def log_of(node: Canister) -> list[LogEntry]:
    """Return what the node has committed."""
    with node.node.store.snapshot() as snapshot:
        return snapshot.log(0)


def last_stamp(node: Canister) -> int:
    with node.node.store.snapshot() as snapshot:
        return snapshot.last_stamp()


Call = Callable[[Canister, Any], object]

TAKES_ID: list[Call] = [
    lambda node, id: node.put(id, "k", 1),
    lambda node, id: node.update(id, {"k": 1}),
    lambda node, id: node.update(id, {}),
    lambda node, id: node.remove(id, "k"),
    lambda node, id: node.get(id, "k"),
    lambda node, id: node.get(id, "k", local=True),
    lambda node, id: node.peek(id, "k"),
    lambda node, id: node.get_data(id),
    lambda node, id: node.session_info(id),
    lambda node, id: node.set_expiry(id, idle="1m"),
    lambda node, id: node.version(id),
    lambda node, id: node.clear(id),
    lambda node, id: node.destroy(id),
    lambda node, id: node.forget(id),
    lambda node, id: node.touch(id),
    lambda node, id: node.last_access_time(id),
    lambda node, id: node.last_update_time(id),
    lambda node, id: node.deleted_time(id),
    lambda node, id: node.record_status(id),
    lambda node, id: node.resync([id]),
]


def test_wrong_ids_are_refused_by_every_function(node: Canister) -> None:
    """No function takes an id that is not text or bytes of 1 to 512 bytes, and nothing is written."""
    wrong: list[Any] = [None, 1, 1.5, True, ["s"], ("s",), UUID(int=1), "", b"", "x" * 513, b"x" * 513]
    wrong += ["é" * 257, "\ud800"]
    for call in TAKES_ID:
        for id in wrong:
            with pytest.raises(InvalidIdError):
                call(node, id)
    assert log_of(node) == []


@pytest.mark.parametrize("settings", [{"path_or_url": ""}, {"path_or_url": "data", "migrate_to": ""}])
def test_an_empty_path_makes_no_directory(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="path of the data directory is empty"):
        Canister(agent=False, **settings)
    assert list(tmp_path.iterdir()) == []


def test_ids_and_keys_of_the_greatest_length(node: Canister) -> None:
    """What the limits allow can be stored."""
    for id in ("x" * 512, b"\x00" * 512, "é" * 256):
        assert node.put(id, "k" * 1000, 1) is None
        assert node.get(id, "k" * 1000) == 1


def test_wrong_keys_are_refused(node: Canister) -> None:
    """A key of another type, or one that is too long, is refused before anything is written."""
    node.put("s", "k", 1)
    stamp = last_stamp(node)
    nested: Any = ()
    for _ in range(100):
        nested = (nested,)
    wrong = [None, True, 1.5, ["k"], {"k"}, ("a", None), ("a", True), "k" * 1025, "\ud800" * 400, nested]
    for key in wrong:
        calls: list[Callable[[], object]] = [
            lambda key=key: node.put("s", key, 2),
            lambda key=key: node.get("s", key),
            lambda key=key: node.peek("s", key),
            lambda key=key: node.remove("s", key),
        ]
        for call in calls:
            with pytest.raises(InvalidKeyError):
                call()
    assert node.get_data("s") == {"k": 1}
    assert last_stamp(node) == stamp


class Text(str):
    """A subclass: it would not come back as what it was."""

    __slots__ = ()


def test_wrong_values_are_refused_by_name(node: Canister) -> None:
    """The message names key and type, also of what is nested, and the old value stays."""
    node.put("s", "cart", 1)
    stamp = last_stamp(node)
    for value in (object(), print, Text("x"), 1j, bytearray(b"x"), range(3), ValueError()):
        for nested in (value, [value], {"a": (1, value)}):
            with pytest.raises(InvalidValueError, match=f"'cart'.*{type(value).__name__}"):
                node.put("s", "cart", nested)
    deep: list[Any] = []
    for _ in range(100):
        deep = [deep]
    with pytest.raises(InvalidValueError, match="nests deeper"):
        node.put("s", "cart", deep)
    assert node.get_data("s") == {"cart": 1}
    assert last_stamp(node) == stamp


def test_too_large_values_and_sessions_are_refused(tmp_path: Path) -> None:
    """Neither a value nor a session grows past its limit, and what was there stays."""
    with Canister(tmp_path, max_value=1000, max_session=3000) as node:
        node.put("s", "k", b"x" * 990)
        with pytest.raises(TooLargeError, match="max_value is 1000"):
            node.put("s", "k", b"x" * 1000)
        node.put("s", "l", b"x" * 990)
        stamp = last_stamp(node)
        with pytest.raises(TooLargeError, match="max_session is 3000"):
            node.put("s", "m", b"x" * 990)
        with pytest.raises(TooLargeError, match="max_session is 3000"):
            node.update("s", {"a": 1, "m": b"x" * 990})
        assert {*node.get_data("s")} == {"k", "l"}
        assert last_stamp(node) == stamp
        # A full session can still be emptied.
        assert node.remove("s", "k") == b"x" * 990
        node.clear("s")
        node.put("s", "m", b"x" * 990)


def test_a_session_that_a_merge_made_too_large_can_be_made_smaller(tmp_path: Path) -> None:
    """Both sides of a split may have filled it: what makes it smaller is no reason to refuse."""
    with Canister(tmp_path / "one", agent=False, max_value=2500, max_session=3000) as node:
        with Canister(tmp_path / "two", agent=False, max_value=2500, max_session=3000) as other:
            node.put("s", "k", b"x" * 2000)
            other.put("s", "l", b"x" * 2000)
            node.node.take(list(other.node.store.scan()))
        with pytest.raises(TooLargeError):
            node.put("s", "m", 1)
        with pytest.raises(TooLargeError):
            node.put("s", "k", b"y" * 2000)
        node.put("s", "k", b"y" * 1900)
        assert node.remove("s", "l") == b"x" * 2000
        node.put("s", "m", 1)
        assert node.get_data("s") == {"k": b"y" * 1900, "m": 1}


def test_false_versions_are_refused(node: Canister) -> None:
    """What version() cannot have returned is refused; it does not count as seen."""
    node.put("s", "k", 1)
    version = node.version("s")
    assert version is not None
    wrong: list[Any] = ["x", "é", version[:-2], version * 4, "=" * 8]
    for after in wrong:
        with pytest.raises(InputError, match="version"):
            node.get("s", "k", after=after)
        with pytest.raises(InputError, match="version"):
            node.get_data("s", after=after)


@pytest.mark.parametrize("when", [datetime(2026, 1, 1), "2026-01-01", 5, DAY])
def test_times_that_are_no_instants_are_refused(node: Canister, when: Any) -> None:
    """A naive time, or what is no time at all, is refused by whoever takes one."""
    node.put("s", "k", 1)
    stamp = last_stamp(node)
    with pytest.raises(InputError, match="when"):
        node.touch("s", when)
    with pytest.raises(InputError, match="until"):
        node.set_expiry("s", until=when)
    assert last_stamp(node) == stamp


@pytest.mark.parametrize("idle", ["0s", "20", "soon", -MINUTE, 5, True, b"1m"])
def test_idle_timeouts_that_are_no_durations_are_refused(node: Canister, idle: Any) -> None:
    """An idle timeout is a timedelta or a text with a unit, and more than zero."""
    node.put("s", "k", 1)
    stamp = last_stamp(node)
    with pytest.raises(InputError, match="idle"):
        node.set_expiry("s", idle=idle)
    assert last_stamp(node) == stamp


@pytest.mark.parametrize("bad", [{"a": 9, "b": object()}, {"a": 9, True: 1}, {"a": 9, "b": b"x" * 300_000}])
def test_update_is_all_or_nothing(node: Canister, bad: dict[Any, Any]) -> None:
    """One item that cannot be stored keeps the others from being stored."""
    node.put("s", "a", 1)
    stamp = last_stamp(node)
    with pytest.raises(InputError):
        node.update("s", bad)
    assert node.get_data("s") == {"a": 1}
    assert last_stamp(node) == stamp


def test_a_resync_takes_ids_and_not_one_id(node: Canister) -> None:
    """An id in place of a list of ids is refused rather than taken apart."""
    for wrong in ("session", b"session"):
        with pytest.raises(InputError, match="ids"):
            node.resync(wrong)  # pyright: ignore[reportArgumentType]
    with pytest.raises(InvalidIdError):
        node.resync(["s", ""])


@pytest.mark.parametrize("late", [MICROSECOND, 75 * 365 * DAY])
def test_touch_in_the_future_is_refused(node: Canister, clock: ManualClock, late: timedelta) -> None:
    """No session is made immortal by a false time."""
    node.put("s", "k", 1)
    clock.advance(MINUTE)
    stamp = last_stamp(node)
    with pytest.raises(ValueError, match="in the future"):
        node.touch("s", to_datetime(clock.now()) + late)
    assert last_stamp(node) == stamp


def test_urls_and_unknown_settings_are_refused(tmp_path: Path) -> None:
    """What cannot be opened is said at once, and nothing is made."""
    with pytest.raises(ConfigError, match="the forms of a URL of Redis are"):
        Canister("postgres://host")
    with pytest.raises(ConfigError, match="unknown setting 'timeout'"):
        Canister(tmp_path / "new", timeout=1)
    assert not (tmp_path / "new").exists()


def test_acks_are_checked_where_nothing_is_written(node: Canister) -> None:
    """A wrong argument does not show only now and then."""
    wrong: Any = "x"
    with pytest.raises(InputError, match="acks is a number"):
        node.update("s", {}, acks=wrong)
    node.update("s", {})
    assert not log_of(node)
