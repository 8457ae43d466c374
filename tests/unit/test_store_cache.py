"""What a process keeps of what it has read: never old, never too much."""

import errno
import fcntl
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta
from functools import partial
from pathlib import Path

import apsw
import pytest
from msgspec import structs
from tests.records import slot

from canister import edits
from canister.codec import encode_user, encode_value, key_slot, user_record_id
from canister.config import Config, Policy
from canister.edits import Moment
from canister.errors import ClockError, DiskFullError, StoreError
from canister.life import deadline
from canister.record import Record, Version
from canister.store import shared
from canister.store.base import Member, Stored, bucket_of
from canister.store.cache import SessionCache, make_counts, stripe_of
from canister.store.connections import Cursor
from canister.store.kept import Kept, absence
from canister.store.notes import Notes
from canister.store.sqlite import SqliteStore
from canister.testing.clock import ManualClock
from canister.testing.contract import put, told, values
from canister.views import data_of

SESSION = b"s"
STRIPE = stripe_of(SESSION)


@pytest.fixture
def one(tmp_path: Path) -> Iterator[SqliteStore]:
    """Return the store of one process."""
    store = SqliteStore(tmp_path, Config())
    yield store
    store.close()


@pytest.fixture
def two(tmp_path: Path, one: SqliteStore) -> Iterator[SqliteStore]:
    """Return the store of another process of the same node: it shares nothing with *one* but files."""
    store = SqliteStore(tmp_path, Config())
    yield store
    store.close()


def count_queries(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that grows by each look of *store* at the database."""
    asked: list[str] = []
    ask = store._one

    def counted(sql: str, parameters: tuple[object, ...]) -> object:
        asked.append(sql)
        return ask(sql, parameters)

    monkeypatch.setattr(store, "_one", counted)
    return asked


def test_a_session_is_read_once(one: SqliteStore, two: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is read again while nobody writes, nor what this process has written itself."""
    put(one, SESSION, k=b"1")
    here, there = count_queries(one, monkeypatch), count_queries(two, monkeypatch)
    for _ in range(3):
        assert values(one, SESSION) == values(two, SESSION) == {"k": b"1"}
    assert (len(here), len(there)) == (0, 1)


def test_a_write_to_another_session(
    one: SqliteStore, two: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It makes nobody read what he has, not even of the same bucket; what shares a stripe is read again."""
    bucket, stripe = (b"s1", b"s175556"), (b"s1", b"s336475")
    assert len({*map(bucket_of, bucket)}) == len({*map(stripe_of, stripe)}) == 1
    for session in (*bucket, *stripe):
        put(one, session, k=b"1")
    for session in (*bucket, *stripe):
        assert values(two, session) == {"k": b"1"}
    asked = count_queries(two, monkeypatch)
    put(one, b"s175556", k=b"2")
    assert values(two, b"s1") == {"k": b"1"}
    assert not asked
    put(one, b"s336475", k=b"2")
    assert values(two, b"s1") == {"k": b"1"}
    assert len(asked) == 1


def test_that_a_user_has_no_record_is_read_once(
    one: SqliteStore, two: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each request of the user asks for it."""
    user = user_record_id(encode_user("ann"))
    asked = count_queries(one, monkeypatch)
    for _ in range(3):
        assert told(one, user) == (None, False)
    assert len(asked) == 1
    put(two, user, k=b"1")
    assert values(one, user) == {"k": b"1"}


def test_what_another_process_writes_is_seen(one: SqliteStore, two: SqliteStore) -> None:
    """Each write of any process is seen by all from the moment on at which it returns."""
    for number in range(5):
        put(one, SESSION, k=b"%d" % number)
        assert values(two, SESSION) == values(one, SESSION) == {"k": b"%d" % number}
        put(two, SESSION, k=b"-%d" % number)
        assert values(two, SESSION) == values(one, SESSION) == {"k": b"-%d" % number}
    one.forget(SESSION)
    assert told(two, SESSION) == (None, False)


def before_commit(store: SqliteStore, act: Callable[[], object]) -> None:
    """Let *act* run just before the next commit of *store* is made."""
    handle = store._pool.take()
    write = handle.write

    def writing(sql: str, *arguments: object) -> object:
        if sql == "COMMIT":
            handle.write = write
            act()
        return write(sql, *arguments)

    handle.write = writing
    store._pool.give(handle)


def test_a_commit_that_failed_is_not_kept(one: SqliteStore) -> None:
    """Where the commit itself fails, for lack of room for example, what was there before is served."""

    def fail() -> None:
        raise apsw.FullError

    put(one, SESSION, k=b"1")
    before_commit(one, fail)
    with pytest.raises(DiskFullError):
        put(one, SESSION, k=b"2")
    assert values(one, SESSION) == {"k": b"1"}


def test_a_read_between_a_mark_and_a_commit_whose_writer_is_killed(
    one: SqliteStore, two: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was read while a write was under way is not kept: the writer may be killed later."""
    put(one, SESSION, k=b"1")
    before_commit(one, lambda: values(two, SESSION))
    monkeypatch.setattr(one._cache, "settle", lambda: None)
    put(one, SESSION, k=b"2")
    assert values(two, SESSION) == {"k": b"2"}


def test_a_writer_killed_after_its_commit(
    one: SqliteStore, two: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit is seen though its writer was killed before it could say so, until the next and after it."""
    put(one, SESSION, k=b"1")
    assert values(two, SESSION) == {"k": b"1"}
    monkeypatch.setattr(one._cache, "settle", lambda: None)
    put(one, SESSION, k=b"2")
    assert one._cache.counts[STRIPE] % 2
    for _ in range(2):
        assert values(two, SESSION) == {"k": b"2"}
    put(two, SESSION, k=b"3")
    assert not one._cache.counts[STRIPE] % 2
    assert values(two, SESSION) == {"k": b"3"}
    asked = count_queries(two, monkeypatch)
    assert values(two, SESSION) == {"k": b"3"}
    assert not asked


def test_a_write_that_failed_is_not_kept(one: SqliteStore) -> None:
    """What was rolled back is not seen, in the process that wrote it either."""
    put(one, SESSION, k=b"1")
    policy = Policy.of(Config())

    def write(record: Record | None, moment: Moment) -> Record:
        return edits.write(record, moment, policy, {slot("k"): b"2"})

    def fail(record: Record | None, moment: Moment) -> Record:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        one.commit([(SESSION, write), (b"other", fail)])
    assert values(one, SESSION) == {"k": b"1"}
    assert not one._cache.counts[STRIPE] % 2


def test_a_read_under_way_while_somebody_writes(
    one: SqliteStore, two: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was read just before a commit is not served after it."""
    put(one, SESSION, k=b"1")
    ask = two._one

    def slow(sql: str, parameters: tuple[object, ...]) -> object:
        found = ask(sql, parameters)
        put(one, SESSION, k=b"2")
        return found

    monkeypatch.setattr(two, "_one", slow)
    assert values(two, SESSION) == {"k": b"1"}
    monkeypatch.setattr(two, "_one", ask)
    assert values(two, SESSION) == {"k": b"2"}


def test_doubts_and_members_of_another_process(one: SqliteStore, two: SqliteStore) -> None:
    """What is kept besides sessions is as new as what was written."""
    assert (two.peers().doubts, two.members()) == (0, [])
    member = Member("a:1", put(one, SESSION), False, put(one, SESSION), one.node)
    one.set_doubts(2)
    one.save_members([member])
    assert (two.peers().doubts, two.members()) == (2, [member])
    two.members().clear()
    assert two.members() == [member]


def count_looks(store: SqliteStore) -> list[str]:
    """Return a list that grows by each row that a transaction of *store* reads. There is one connection."""
    looks: list[str] = []
    handle = store._pool.take()
    execute = handle.execute

    def executing(sql: str, *arguments: object) -> Cursor:
        looks.append(sql)
        return execute(sql, *arguments)

    handle.execute = executing
    store._pool.give(handle)
    return looks


def test_a_write_reads_nothing_that_is_kept(one: SqliteStore) -> None:
    """Neither the session nor the clock is looked up while nobody else writes."""
    put(one, SESSION, k=b"1")
    looks = count_looks(one)
    for number in range(3):
        put(one, SESSION, k=b"%d" % number)
    assert not looks


def test_a_write_in_the_place_of_another_session(one: SqliteStore) -> None:
    """Whatever memory says of its place, a session is never written over another one."""
    put(one, SESSION, k=b"1")
    put(one, b"other", k=b"1")
    kept, other = (
        one._cache.find(s, stripe_of(s), one._cache.counts[stripe_of(s)]) for s in (SESSION, b"other")
    )
    assert kept is not None
    assert other is not None
    one._cache.keep(SESSION, structs.replace(kept, place=other.place))
    with pytest.raises(StoreError, match="is not in its place"):
        put(one, SESSION, k=b"2")
    assert values(one, b"other") == values(one, SESSION) == {"k": b"1"}
    put(one, SESSION, k=b"2")
    assert values(one, SESSION) == {"k": b"2"}


def test_writes_of_two_processes_are_merged(one: SqliteStore, two: SqliteStore) -> None:
    """What a write is merged with is what is stored, not what this process has seen last."""
    for number in range(3):
        put(one, SESSION, **{f"one-{number}": b"1"})
        put(two, SESSION, **{f"two-{number}": b"2"})
    expected = {
        f"{name}-{number}": value for number in range(3) for name, value in (("one", b"1"), ("two", b"2"))
    }
    assert values(one, SESSION) == values(two, SESSION) == expected


def test_a_write_after_a_writer_was_killed(
    one: SqliteStore, two: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was committed by a writer that was killed before it could say so is merged with."""
    put(two, SESSION, two=b"1")
    monkeypatch.setattr(one._cache, "settle", lambda: None)
    monkeypatch.setattr(Notes, "note_committed", lambda self, stamp: None)
    put(one, SESSION, one=b"1")
    put(two, SESSION, two=b"2")
    assert values(two, SESSION) == {"one": b"1", "two": b"2"}


def test_stamps_of_two_processes_whose_clock_steps_back(tmp_path: Path) -> None:
    """I11: the stamp follows all that were drawn on the node, by whom and however its writer ended."""
    clock = ManualClock()
    stores = [SqliteStore(tmp_path, Config(), clock) for _ in range(2)]
    versions = []
    for number in range(6):
        versions.append(put(stores[number % 2], SESSION, k=b"%d" % number))
        clock.advance(timedelta(seconds=-5))
    for store in stores:
        store.close()
    again = SqliteStore(tmp_path, Config(), clock)
    versions.append(put(again, SESSION, k=b"again"))
    again.close()
    assert versions == sorted(set(versions))


def test_a_clock_that_is_off_is_known_to_all(one: SqliteStore, two: SqliteStore) -> None:
    """Each process refuses to write while the node's clock is off, and writes again when it is right."""
    put(two, SESSION, k=b"1")
    one.set_clock_off(True)
    with pytest.raises(ClockError):
        put(two, SESSION, k=b"2")
    one.set_clock_off(False)
    put(two, SESSION, k=b"3")


def test_absence_is_kept_until_somebody_writes(
    one: SqliteStore, two: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An id that is not here is looked for once, and found as soon as it is here."""
    asked = count_queries(two, monkeypatch)
    for _ in range(3):
        assert told(two, SESSION) == (None, False)
    assert len(asked) == 1
    put(one, SESSION, k=b"1")
    assert values(two, SESSION) == {"k": b"1"}
    assert told(two, b"other") == (None, False)
    put(one, b"other", one=b"1")
    put(two, b"other", two=b"2")
    assert values(one, b"other") == {"one": b"1", "two": b"2"}


def test_absence_of_what_was_here(
    one: SqliteStore, two: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has gone is looked for once, too, though it is still in memory."""
    put(two, SESSION, k=b"1")
    one.forget(SESSION)
    asked = count_queries(two, monkeypatch)
    for _ in range(3):
        assert told(two, SESSION) == (None, False)
    assert len(asked) == 1


def test_absence_that_is_kept_is_bounded(tmp_path: Path) -> None:
    """Whoever asks for many unknown ids fills no memory, and drives no session out of it."""
    make_counts(tmp_path / "counts")
    cache = SessionCache(tmp_path / "counts", size=20_000)
    record = Record()
    kept = Kept(0, Stored(record, held=False), None, 0, None, 2400, 0)
    cache.keep(SESSION, kept)
    for number in range(20_000):
        cache.keep_absent(b"%d" % number, absence(0, number))
        assert cache.find(b"%d" % number, 0, 0) is not None
    assert sum(cache.find(b"%d" % number, 0, 0) is not None for number in range(20_000)) < 10_000
    assert cache.find(SESSION, 0, 0) is kept
    cache.keep_absent(b"odd", absence(1, 0))
    assert cache.find(b"odd", 0, 1) is None


@pytest.mark.parametrize("ask", [lambda s: s.load(SESSION), SqliteStore.peers, SqliteStore.members])
def test_a_closed_store_serves_nothing(one: SqliteStore, ask: Callable[[SqliteStore], object]) -> None:
    """What was kept is not served after the end."""
    put(one, SESSION, k=b"1")
    ask(one)
    one.close()
    with pytest.raises(StoreError, match="is closed"):
        ask(one)


@pytest.mark.integration
def test_over_a_fork(one: SqliteStore) -> None:
    """Parent and child see each other's writes, though both kept the session before."""
    put(one, SESSION, k=b"1")
    assert values(one, SESSION) == {"k": b"1"}
    child = os.fork()
    if not child:
        put(one, SESSION, k=b"child")
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert values(one, SESSION) == {"k": b"child"}


def test_memory_is_bounded(tmp_path: Path) -> None:
    """Of many sessions the ones used last are kept, however many there are."""
    make_counts(tmp_path / "counts")
    cache = SessionCache(tmp_path / "counts", size=240_000)
    record = Record()
    kept = Kept(0, Stored(record, held=False), None, 0, None, 2400, 0)
    for number in range(10_000):
        cache.keep(b"%d" % number, kept)
        assert cache.find(b"0", 0, 0) is kept  # used all the time
    found = [number for number in range(10_000) if cache.find(b"%d" % number, 0, 0) is not None]
    assert len(found) < 110
    assert 9_999 in found
    cache.close()
    cache.keep(b"1", kept)
    assert cache.find(b"1", 0, cache.counts[0]) is None


def test_a_session_that_is_written_again_takes_no_more_room(tmp_path: Path) -> None:
    """A few sessions that are written all the time do not push out those that are read."""
    make_counts(tmp_path / "counts")
    cache = SessionCache(tmp_path / "counts", size=240_000)
    stored = Stored(Record(), held=False)
    kept = Kept(0, stored, None, 0, None, 2400, 0)
    for number in range(45):
        cache.keep(b"%d" % number, kept)
    for size in range(1000):
        cache.keep(b"0", Kept(0, stored, None, 0, None, 1400 + size, 0))
    assert not cache._old
    assert len(cache._young) == 45


@pytest.mark.parametrize(("size", "queries"), [(32 * 1024 * 1024, 1), (0, 4)])
def test_size_is_a_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, queries: int) -> None:
    """Without room for them all reads go to the database."""
    with closing(SqliteStore(tmp_path, Config(cache_size=size))) as store:
        with closing(SqliteStore(tmp_path, Config())) as writer:
            put(writer, SESSION, k=b"1")
        asked = count_queries(store, monkeypatch)
        for _ in range(4):
            assert values(store, SESSION) == {"k": b"1"}
        assert len(asked) == queries


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without room for the counts the store is not opened: writing to them later would kill the process."""

    def no_room(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(shared.os, "pwrite", no_room)
    with pytest.raises(DiskFullError, match="free some space"):
        make_counts(tmp_path / "counts")


def at_begin(store: SqliteStore, act: Callable[[], object]) -> None:
    """Let *act* run when the turn of *store* has come, before it writes. There is one connection."""
    handle = store._pool.take()
    write = handle.write

    def writing(sql: str, *arguments: object) -> object:
        if sql.startswith("BEGIN"):
            handle.write = write
            act()
        return write(sql, *arguments)

    handle.write = writing
    store._pool.give(handle)


def test_a_commit_is_worked_out_while_the_one_before_is_written(one: SqliteStore, two: SqliteStore) -> None:
    """It is worked out anew where that one has changed the session, and not where it has changed others."""
    policy = Policy.of(Config())
    runs: list[Record | None] = []
    drafted = threading.Event()

    def write(record: Record | None, moment: Moment) -> Record:
        runs.append(record)
        drafted.set()
        return edits.write(record, moment, policy, {slot("two"): b"%d" % len(runs)})

    for session, times in ((SESSION, 2), (b"other", 1)):
        runs.clear()
        drafted.clear()
        first = put(one, session, k=b"0")
        assert values(two, session) == {"k": b"0"}
        with ThreadPoolExecutor(1) as executor:
            later: list[Future[Version | None]] = []

            def meanwhile(later: list[Future[Version | None]] = later, session: bytes = session) -> None:
                later.append(executor.submit(two.commit, [(session, write)]))
                assert drafted.wait(10)

            at_begin(one, meanwhile)
            second = put(one, SESSION, k=b"1")
            third = later[0].result(10)
        assert third is not None
        assert first < second < third
        assert len(runs) == times
        expected = {"k": b"1", "two": b"2"} if session == SESSION else {"k": b"0", "two": b"1"}
        assert values(one, session) == values(two, session) == expected


def test_nothing_is_written_while_somebody_is_next_and_writes_alone(
    one: SqliteStore, two: SqliteStore
) -> None:
    """What draws its stamp while it writes keeps others from drawing theirs before it is through."""
    put(one, SESSION, k=b"0")
    policy = Policy.of(Config())
    runs: list[int] = []

    def write(record: Record | None, moment: Moment) -> Record:
        runs.append(moment.now)
        return edits.write(record, moment, policy, {slot("two"): b"1"})

    with ThreadPoolExecutor(1) as executor:
        later: list[Future[Version | None]] = []

        def meanwhile() -> None:
            later.append(executor.submit(two.commit, [(SESSION, write)]))
            with two.files.write_lock.open() as file, pytest.raises(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            assert not runs

        at_begin(one, meanwhile)
        assert one.forget(SESSION)
        assert later[0].result(10) is not None
    assert values(one, SESSION) == {"two": b"1"}


def write_value(store: SqliteStore, value: object) -> None:
    """Write a value as the application's key "k"."""
    writes = {key_slot("k"): encode_value(value)}
    store.commit([(SESSION, partial(edits.write, policy=Policy.of(Config()), writes=writes))])


def test_a_record_is_decoded_when_it_is_asked_for(one: SqliteStore, two: SqliteStore) -> None:
    """Not to tell whether the session lives or what its values are, whoever wrote it; then only once."""
    for number in range(3):
        write_value(one, number)
        stored = [one.load(SESSION), two.load(SESSION)]
        for each in stored:
            assert each.is_live(each.end - 1)
            assert data_of(each) == {"k": number}
    here, there = stored
    assert (here.decoded, there.decoded) == (None, None)
    assert here.record == there.record
    assert here.record is here.record
    assert here.record is not None
    assert deadline(here.record) == here.end == there.end


def test_a_process_alone_decodes_nothing_that_it_has_written(one: SqliteStore) -> None:
    """It is the one who reads and writes it next."""
    write_value(one, 1)
    assert one.load(SESSION).decoded is not None


def test_values_that_can_change_are_not_kept_but_their_record_is(one: SqliteStore, two: SqliteStore) -> None:
    """Whoever gets them may change them; to get them again is to decode them, not the whole session."""
    for number in range(3):
        write_value(one, [number])
        there = two.load(SESSION)
        assert (there.decoded is None) == (number == 2)
        data_of(there)["k"].append("changed")
        assert there.decoded is not None
        assert data_of(there) == {"k": [number]}
