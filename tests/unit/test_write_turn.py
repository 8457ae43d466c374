"""Whose turn it is to write: kernel locks decide, memory tells when to ask them."""

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from canister.errors import StoreError
from canister.store import turn
from canister.store.turn import WriteTurn


@pytest.fixture
def busy() -> bytearray:
    """Return the memory that all writers share."""
    return bytearray(2)


@pytest.fixture
def one(tmp_path: Path, busy: bytearray) -> Iterator[WriteTurn]:
    """Return the turn of one process."""
    with closing(WriteTurn(tmp_path / "next", tmp_path / "turn", busy)) as one:
        yield one


@pytest.fixture
def two(tmp_path: Path, busy: bytearray) -> Iterator[WriteTurn]:
    """Return the turn of another process."""
    with closing(WriteTurn(tmp_path / "next", tmp_path / "turn", busy)) as two:
        yield two


def test_memory_says_who_is_busy(one: WriteTurn, busy: bytearray) -> None:
    """Who is next, who writes, and in the end nobody."""
    seen: list[bytes] = []

    def act() -> None:
        seen.append(bytes(busy))
        one.begin(alone=False)
        seen.append(bytes(busy))

    one.run(act)
    assert [*seen, bytes(busy)] == [b"\1\0", b"\0\1", b"\0\0"]
    one.run(lambda: one.begin(alone=True))
    assert bytes(busy) == b"\0\0"


def test_a_thread_amid_a_write_cannot_write_by_another_way(one: WriteTurn, two: WriteTurn) -> None:
    """Whoever opened the directory twice would wait for itself; another thread waits, and has its turn."""

    def nested() -> None:
        with pytest.raises(StoreError, match="in the middle of a write"):
            two.run(lambda: two.begin(alone=True))

    one.run(nested)
    with ThreadPoolExecutor(1) as executor:

        def beside() -> Future[None]:
            return executor.submit(two.run, lambda: two.begin(alone=True))

        one.run(beside).result(10)
    two.run(lambda: two.begin(alone=True))


def test_what_a_killed_writer_left_in_memory_keeps_nobody(one: WriteTurn, busy: bytearray) -> None:
    """Its locks are free: the next one looks some times, then asks for them and gets them."""
    busy[:] = b"\1\1"
    one.run(lambda: one.begin(alone=False))
    assert bytes(busy) == b"\0\0"


def test_who_only_was_next_does_not_speak_for_who_writes(
    one: WriteTurn, two: WriteTurn, busy: bytearray
) -> None:
    """A commit that has nothing to write ends while another one still writes."""

    def act() -> None:
        one.begin(alone=False)
        with ThreadPoolExecutor(1) as threads:
            threads.submit(two.run, lambda: None).result(10)
        assert bytes(busy) == b"\0\1"

    one.run(act)


def test_who_waits_looks_at_memory(one: WriteTurn, two: WriteTurn, monkeypatch: pytest.MonkeyPatch) -> None:
    """It asks for no lock that is held, and takes it once it is free, or is just being freed."""
    monkeypatch.setattr(turn, "_LOOKS", 10**9)
    looked = threading.Event()
    monkeypatch.setattr(turn.os, "sched_yield", looked.set)
    asked: list[int] = []
    try_lock = turn._try_lock

    def counted(handle: int) -> bool:
        asked.append(handle)
        return try_lock(handle)

    with ThreadPoolExecutor(1) as threads:

        def act() -> None:
            monkeypatch.setattr(turn, "_try_lock", counted)
            waiting.append(threads.submit(two.run, partial(two.begin, alone=False)))
            assert looked.wait(10)
            assert not asked

        waiting: list[object] = []
        one.run(act)
    assert len(asked) >= 2
