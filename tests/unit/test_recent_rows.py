"""What a process finds of what others have written last: what is stored, or nothing."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from msgspec import structs

from canister.config import Config
from canister.store.base import ABSENT, Stored
from canister.store.cache import SessionCache, stripe_of
from canister.store.kept import Kept
from canister.store.recent import STRIPES, RecentRows, draw_key, recent_bytes
from canister.store.sqlite import SqliteStore
from canister.testing.contract import put, values

SESSION = b"s"
STRIPE = stripe_of(SESSION)
RING = 2000


@pytest.fixture
def memory() -> memoryview:
    """Return the memory of a small ring."""
    return new_memory()


def new_memory() -> memoryview:
    memory = memoryview(bytearray(recent_bytes(RING)))
    draw_key(memory)
    return memory


def row_of(rows: RecentRows, count: int, session: bytes, record: bytes = b"record") -> bytes:
    """Return a row as it is left."""
    row = rows.make(session, kept(count, record))
    assert row is not None
    return row


def kept(count: int, record: bytes) -> Kept:
    """Return a session as it is kept when it has been written."""
    return Kept(count, Stored(None, held=False, encoded=record, end=5), None, 7, b"d" * 16, 1400, 3)


def test_a_row_is_found_at_its_count(memory: memoryview) -> None:
    """Any process finds it, at this count of its stripe and under this id only."""
    writer, rows = RecentRows(memory), RecentRows(memory)
    writer.add(STRIPE, row_of(writer, 4, SESSION))
    found = rows.find(STRIPE, 4, SESSION)
    assert found is not None
    assert structs.astuple(found.stored) == structs.astuple(kept(4, b"record").stored)
    assert structs.replace(found, stored=ABSENT) == structs.replace(kept(4, b"record"), stored=ABSENT)
    assert rows.find(STRIPE, 6, SESSION) is None
    assert rows.find(STRIPE, 4, b"t") is None


def test_nothing_is_found_at_first(memory: memoryview) -> None:
    """Memory that nobody has written to holds no row."""
    assert [stripe for stripe in range(STRIPES) if RecentRows(memory).find(stripe, 0, SESSION)] == []


def test_the_oldest_rows_go(memory: memoryview) -> None:
    """The latest ones are found, however large they are, and no more than there is room for."""
    rows = RecentRows(memory)
    for number in range(1000):
        rows.add(number, row_of(rows, 2, b"%d" % number, os.urandom(number % 300)))
        found = [rows.find(before, 2, b"%d" % before) is not None for before in range(number + 1)]
        assert all(found[-3:])
    assert sum(found) < RING / 44


def test_a_row_that_is_being_written_is_not_found(memory: memoryview) -> None:
    """A part of a row, over what was there before, is not taken for one, whichever part it is."""
    rows = RecentRows(memory)
    rows.add(STRIPE, row_of(rows, 2, SESSION, b"before"))
    row = row_of(rows, 4, SESSION, b"after!")
    begin = bytes(memory).index(row_of(rows, 2, SESSION, b"before"))
    for size in range(len(row)):
        torn = memoryview(bytearray(memory))
        torn[begin : begin + size] = row[:size]
        for count in (2, 4):
            found = RecentRows(torn).find(STRIPE, count, SESSION)
            assert found is None or (size == 0 and count == 2)


def test_what_only_looks_like_a_row_is_not_found(memory: memoryview) -> None:
    """A client forges no row, whatever it stores where the index still points."""
    rows = RecentRows(memory)
    rows.add(STRIPE, row_of(rows, 2, SESSION))
    forged = row_of(RecentRows(new_memory()), 2, SESSION, b"forged")
    begin = bytes(memory).index(row_of(rows, 2, SESSION))
    memory[begin : begin + len(forged)] = forged
    assert rows.find(STRIPE, 2, SESSION) is None


def test_a_large_row_is_not_left(memory: memoryview) -> None:
    """One session of a megabyte does not push out the thousands that others are about to read."""
    assert RecentRows(memory).make(SESSION, kept(2, bytes(100_000))) is None


@pytest.fixture
def opener(tmp_path: Path) -> Iterator[Callable[[], SqliteStore]]:
    """Return what opens the store of one more process."""
    stores: list[SqliteStore] = []

    def open_one() -> SqliteStore:
        stores.append(SqliteStore(tmp_path / "node", Config()))
        return stores[-1]

    yield open_one
    for store in stores:
        store.close()


def share(one: SqliteStore, two: SqliteStore) -> None:
    """Let a process find that another one writes: rows are left from then on."""
    for number in range(2):
        put(one, SESSION, k=b"%d" % number)
        assert values(two, SESSION) == {"k": b"%d" % number}


def refuse_to_ask(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let *store* fail when it has to look at its database."""

    def ask(*_: object) -> object:
        raise AssertionError("it looks at the database")

    monkeypatch.setattr(store, "_one", ask)


def test_what_another_process_wrote_is_read_from_memory(
    opener: Callable[[], SqliteStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither sessions that are changed nor new ones are looked up by a reader."""
    one, two = opener(), opener()
    share(one, two)
    refuse_to_ask(two, monkeypatch)
    for number in range(3):
        put(one, SESSION, k=b"-%d" % number)
        put(one, b"%d" % number, n=b"1")
        assert values(two, SESSION) == {"k": b"-%d" % number}
        assert values(two, b"%d" % number) == {"n": b"1"}


def test_a_process_alone_leaves_nothing(
    opener: Callable[[], SqliteStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though it misses what it has written beside, and another one, an agent, writes what is no session."""
    one, agent = opener(), opener()
    monkeypatch.setattr(RecentRows, "add", lambda *_: pytest.fail("a row is left"))
    neighbours = (b"s1", b"s336475")
    assert len({*map(stripe_of, neighbours)}) == 1
    for number in range(3):
        for session in (SESSION, *neighbours):
            put(one, session, k=b"%d" % number)
        for session in (SESSION, *neighbours):
            assert values(one, session) == {"k": b"%d" % number}
        agent.trim_log(0)
        agent.set_doubts(number)


def test_a_reader_that_writes_too(opener: Callable[[], SqliteStore]) -> None:
    """It gets the rows of others, though before each look it is the one who wrote last."""
    one, two = opener(), opener()
    for number in range(3):
        put(one, SESSION, k=b"%d" % number)
        put(two, b"own", n=b"%d" % number)
        assert values(two, SESSION) == {"k": b"%d" % number}
    assert two._cache._recent is not None
    assert two._cache._recent.are_wanted()


@pytest.mark.integration
def test_a_forked_child_is_another_process(opener: Callable[[], SqliteStore]) -> None:
    """What it writes is left for its parent as soon as that has missed something."""
    one = opener()
    put(one, SESSION, k=b"0")
    for number in range(2):
        child = os.fork()
        if not child:
            put(one, SESSION, k=b"%d" % number)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert values(one, SESSION) == {"k": b"%d" % number}
        assert one._cache._recent is not None
        assert one._cache._recent.are_wanted()


def test_a_writer_killed_when_it_has_left_a_row(
    opener: Callable[[], SqliteStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its row does not pass for what the next writer makes of the session, which leaves none."""
    one, two, three = opener(), opener(), opener()
    share(one, two)
    settle = SessionCache.settle

    def killed(cache: SessionCache) -> None:
        cache._marked, marked = {}, cache._marked
        settle(cache)
        cache._marked = marked

    monkeypatch.setattr(one._cache, "settle", lambda: killed(one._cache))
    put(one, SESSION, k=b"1")
    assert one._cache.counts[STRIPE] % 2
    put(two, SESSION, k=bytes(70_000))
    assert values(three, SESSION) == {"k": bytes(70_000)}


@pytest.mark.parametrize("still_used", [False, True])
def test_a_backup_that_was_put_back(
    opener: Callable[[], SqliteStore], tmp_path: Path, still_used: bool
) -> None:
    """What was left in memory before is not served in place of what the database holds now.

    Not even where somebody uses the directory still: a child that a process has forked and left.
    """
    database, backup = tmp_path / "node" / "canister.db", tmp_path / "backup"
    one = opener()
    put(one, SESSION, k=b"before")
    one.close()
    shutil.copy(database, backup)
    one, two = opener(), opener()
    share(one, two)
    put(one, SESSION, k=b"lost")
    if still_used:
        opener()
    one.close()
    two.close()
    shutil.copy(backup, database)
    assert values(opener(), SESSION) == {"k": b"before"}
