import fcntl
import json
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from pathlib import Path
from typing import Any

import apsw
import pytest

from canister.config import Config
from canister.edits import Moment
from canister.errors import DiskFullError, StoreBusyError, StoreError
from canister.record import Record, decode_record, encode_record, stamp_of
from canister.store import rows, wal
from canister.store.base import BUCKETS
from canister.store.connections import pending_frames
from canister.store.peeking import sync
from canister.store.sqlite import SqliteStore
from canister.testing.contract import put, values, visible

ROOT = Path(__file__).parents[2]
NORMAL, FULL = Config(), Config(durability="full")

Opener = Callable[..., SqliteStore]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Return where the data is."""
    return tmp_path / "data"


@pytest.fixture
def opener(directory: Path) -> Iterator[Opener]:
    """Return what opens the data directory, or another, and closes it in the end."""
    stores: list[SqliteStore] = []

    def open_store(path: Path = directory, config: Config = NORMAL) -> SqliteStore:
        stores.append(SqliteStore(path, config))
        return stores[-1]

    yield open_store
    for store in stores:
        store.close()


@pytest.fixture
def store(opener: Opener) -> SqliteStore:
    """Return a store on the data directory."""
    return opener()


def start(program: str, directory: Path, *arguments: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "tests.unit.store_programs", program, str(directory), *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: "subprocess.Popen[str]") -> Any:
    """Return what a program answers; one that hangs or fails fails the test."""
    try:
        output, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0, errors
    return json.loads(output)


def run(program: str, directory: Path, *arguments: str) -> Any:
    return finish(start(program, directory, *arguments))


@pytest.mark.integration
def test_many_processes_write(directory: Path, opener: Opener) -> None:
    """I11: of many processes and threads no write is lost, and stamps are drawn in order, each once."""
    running = [start("write", directory, f"p{number}", "100") for number in range(4)]
    stamps = [stamp for process in running for stamp in finish(process)]
    assert len(set(stamps)) == len(stamps) == 800
    store = opener()
    with store.snapshot() as view:
        log = view.log(0)
    assert [entry.stamp for entry in log] == sorted(stamps)
    assert all(entry.changes[0].delta is not None for entry in log)
    assert all(newest_stamp(entry.changes[0].delta) == entry.stamp for entry in log)
    names = {f"p{p}-{t}-{n}".encode() for p in range(4) for t in range(2) for n in range(100)}
    assert {session for session, _ in store.scan()} == names


def newest_stamp(delta: bytes | None) -> int:
    record = decode_record(delta or b"")
    (version,) = {cell.version for cell in record.cells.values()}
    return stamp_of(version)


@pytest.mark.integration
def test_fork(directory: Path) -> None:
    """A store that was opened before a fork works after it, in the parent and in the child."""
    run("fork", directory)
    assert run("read", directory, "before", "child", "after", "last") == ["1", "1", "1", "1"]


@pytest.mark.integration
def test_fork_shares_no_connection(directory: Path) -> None:
    """A child does not go on with the parent's connections, whose locks it does not have."""
    assert run("fork_locks", directory)


@pytest.mark.integration
def test_fork_in_c(directory: Path) -> None:
    """Children that C code forks, as uWSGI does, share neither locks nor connections: nothing is lost."""
    assert run("fork_untold", directory) == [0] * 4


@pytest.mark.integration
def test_fork_in_c_shares_no_connection(directory: Path) -> None:
    """Nor does a child of such a fork go on without locks of its own."""
    assert run("fork_untold_locks", directory)


@pytest.mark.integration
def test_fork_in_c_while_the_store_is_in_use(directory: Path) -> None:
    """What another thread was in the middle of cannot be undone in the child: the error says what can be."""
    run("fork_untold_stuck", directory)
    assert run("read", directory, "s") == ["3"]


@pytest.mark.integration
def test_fork_while_threads_write(directory: Path) -> None:
    """A fork amid writes of other threads neither hangs nor loses one of them."""
    assert run("fork_busy", directory) > 0


@pytest.mark.integration
def test_fork_while_the_store_is_in_use(directory: Path) -> None:
    """A fork that could not wait any longer gives the child a clear error; the parent goes on."""
    run("fork_stuck", directory)
    assert run("read", directory, "s") == ["3"]


@pytest.mark.integration
def test_forks_of_two_threads(directory: Path) -> None:
    """Threads that fork at the same time wait for each other; so does one that opens a store."""
    run("fork_together", directory)


@pytest.mark.integration
def test_fork_that_is_interrupted(directory: Path) -> None:
    """Where a signal handler ends the wait, the child gets a clear error as well; the parent goes on."""
    run("fork_interrupted", directory)
    assert run("read", directory, "s") == ["3"]


@pytest.mark.integration
@pytest.mark.parametrize("failing", ["nobody", "d"])
def test_fork_order(directory: Path, failing: str) -> None:
    """The last comer rests first and wakes last, so that nobody waits for one who rests already.

    All are told, whoever of them fails.
    """
    order = [f"rest {name}" for name in "hgfedcba"] + [f"parent {name}" for name in "abcdefgh"]
    assert run("fork_told", directory, failing) == order


@pytest.mark.integration
def test_kill(directory: Path, opener: Opener) -> None:
    """I2: what was put before a kill -9 is there, and later stamps are greater."""
    process = start("die", directory)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    store = opener()
    assert values(store, b"s") == {"k": b"1"}
    assert stamp_of(put(store, b"s", k=b"2")) > int(output)


@pytest.mark.integration
def test_opening_twice_in_one_process(store: SqliteStore, opener: Opener, directory: Path) -> None:
    """Opening the directory once more does not drop the locks by which others know of this process.

    Without them the next process to close the database removes the write-ahead log from under it.
    """
    put(store, b"s", k=b"1")
    assert run("locked", directory)
    opener().close()
    assert run("locked", directory)
    assert run("read", directory, "s") == ["1"]
    put(store, b"t", k=b"2")
    assert run("read", directory, "s", "t") == ["1", "2"]


def test_reopened(opener: Opener) -> None:
    """A store that is opened again has its data, its node id and its clock."""
    first = opener()
    version = put(first, b"s", k=b"1")
    first.set_doubts(2)
    first.close()
    again = opener()
    assert again.node == first.node
    assert visible(again, b"s").cells[b"kk"].version == version  # type: ignore[index]
    assert again.peers().doubts == 2
    with again.snapshot() as view:
        assert view.last_stamp() == stamp_of(version)
        assert len(view.log(0)) == 1


def test_files_are_private(store: SqliteStore, directory: Path) -> None:
    """Only the owner can read the data directory and what is in it."""
    put(store, b"s", k=b"1")
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()}
    database = ["canister.db", "canister.db-shm", "canister.db-wal"]
    others = ["turn.lock", "use.lock", "write.lock", "writes.map"]
    assert modes == dict.fromkeys([*database, *others], 0o600)


def test_opened_by_many_at_once(directory: Path, opener: Opener) -> None:
    """A new directory that many open at the same time becomes one node."""
    with ThreadPoolExecutor(8) as executor:
        stores = list(executor.map(lambda _: opener(), range(8)))
    assert len({store.node for store in stores}) == 1
    for number, store in enumerate(stores):
        put(store, b"s", **{f"k{number}": b"1"})
    assert len(values(stores[0], b"s")) == 8


def test_half_made_database(directory: Path, opener: Opener) -> None:
    """What a making that was broken off left behind is in nobody's way."""
    directory.mkdir()
    directory.joinpath("canister.new").write_bytes(b"half")
    directory.joinpath("canister.new-wal").write_bytes(b"half")
    put(opener(), b"s", k=b"1")
    assert not list(directory.glob("canister.new*"))


def test_snapshot_stands_still(store: SqliteStore) -> None:
    """A snapshot shows one instant, neither blocked by writers nor blocking them."""
    put(store, b"s", k=b"1")
    with store.snapshot() as view:
        before = view.whole(b"s")
        last = view.last_stamp()
        put(store, b"s", k=b"2")
        store.forget(b"s")
        assert store.load(b"s").record is None
        assert view.whole(b"s") == before
        assert (view.last_stamp(), len(view.log(0))) == (last, 1)
        assert len(view.listing(range(BUCKETS), 0)) == 1
    with store.snapshot() as view:
        assert view.whole(b"s") is None


def test_checkpoint(store: SqliteStore, directory: Path) -> None:
    """Commits stay in the write-ahead log until a checkpoint moves them into the database."""
    size = directory.joinpath("canister.db").stat().st_size
    for number in range(50):
        put(store, b"%d" % number, k=b"x" * 4000)
    assert directory.joinpath("canister.db").stat().st_size == size
    store.checkpoint()
    assert directory.joinpath("canister.db").stat().st_size > size + 50 * 4000
    assert values(store, b"7") == {"k": b"x" * 4000}


@pytest.mark.parametrize(("times", "left"), [(3, False), (100, True)])
def test_a_checkpoint_that_meets_a_writer(store: SqliteStore, times: int, left: bool) -> None:
    """SQLite then calls the database locked, which must not end the agent. What is left comes next."""
    put(store, b"s", k=b"1")
    busy = iter(range(times))

    class Connection:
        def __init__(self, connection: apsw.Connection) -> None:
            self.real = connection

        def wal_checkpoint(self, mode: int) -> tuple[int, int]:
            if next(busy, None) is not None:
                raise apsw.BusyError("database is locked")
            return self.real.wal_checkpoint(mode=mode)

    with store._pool.lend() as handle:
        real = handle.connection
        handle.connection = Connection(real)  # type: ignore[assignment]
    assert store.checkpoint() != left
    assert (pending_frames(store.files.database) > 0) == left
    with store._pool.lend() as handle:
        handle.connection = real
    assert store.checkpoint()
    assert pending_frames(store.files.database) == 0


def test_writers_do_not_wait_for_the_disk(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before writers wait for the last pages of a large log, all that was moved before is on the disk."""
    monkeypatch.setattr(wal, "_LARGE_LOG", 10)
    synced: list[int] = []

    def write_and_sync(database: Path) -> None:
        put(store, b"s", k=b"%d" % len(synced))  # would wait for ever where writers have to
        sync(database)
        synced.append(pending_frames(database))

    monkeypatch.setattr(wal, "sync", write_and_sync)
    for number in range(20):
        put(store, b"%d" % number, k=b"1")
    store.checkpoint()
    assert synced
    assert max(synced) < 10
    assert pending_frames(store.files.database) == 0


def test_a_checkpoint_waits_without_a_connection(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Like every writer it has its turn first: a fork keeps all from writing, then waits for connections."""
    monkeypatch.setattr(wal, "_LARGE_LOG", 0)
    lent: list[int] = []
    run_in_turn = store._turn.run

    def running(act: Callable[..., Any], *args: Any) -> Any:
        lent.append(len(store._pool._handles) - len(store._pool._idle))
        return run_in_turn(act, *args)

    monkeypatch.setattr(store._turn, "run", running)
    put(store, b"s", k=b"1")
    store.checkpoint()
    assert lent == [0, 0]


def test_a_long_log_is_trimmed_in_steps(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a long time without an agent writers do not wait until all of it is gone."""
    monkeypatch.setattr(rows, "_TRIMMED", 10)
    stamps = [stamp_of(put(store, b"s", k=b"%d" % number)) for number in range(35)]

    def kept() -> list[int]:
        with store.snapshot() as view:
            return [entry.stamp for entry in view.log(0)]

    for count in (10, 20):
        assert store.trim_log(stamps[30])
        assert kept() == stamps[count:]
    assert not store.trim_log(stamps[30])
    assert kept() == stamps[30:]
    assert not store.trim_log(2**62)
    assert kept() == stamps[-1:]


def test_writers_queue(store: SqliteStore, directory: Path) -> None:
    """Writers of all processes take turns by a kernel lock, so that none of them starves."""

    def look(record: Record | None, moment: Moment) -> None:
        with directory.joinpath("write.lock").open() as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    store.commit([(b"s", look)])
    with directory.joinpath("write.lock").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.mark.parametrize(
    "use", [lambda store: put(store, b"t", k=b"1"), lambda store: store.set_doubts(1), SqliteStore.close]
)
def test_a_write_in_the_middle_of_a_write(store: SqliteStore, use: Callable[[SqliteStore], object]) -> None:
    """A function that a write calls, or a signal handler amid it, is told so; it may read."""
    put(store, b"s", k=b"1")

    def edit(record: Record | None, moment: Moment) -> None:
        assert values(store, b"s") == {"k": b"1"}
        assert store.load(b"not kept in memory").record is None
        with pytest.raises(StoreError, match="in the middle of a write"):
            use(store)

    store.commit([(b"s", edit)])
    put(store, b"s", k=b"2")
    assert values(store, b"s") == {"k": b"2"}


def limit(store: SqliteStore, pages: int) -> None:
    """Let the database grow by *pages* only; 0 lifts the limit. There is one idle connection."""
    with store._pool.lend() as handle:
        count = handle.connection.pragma("page_count")
        handle.connection.pragma("max_page_count", count + pages if pages else 2**30)


@pytest.mark.integration
def test_pages_in_the_log_are_counted_until_a_checkpoint_has_moved_them(store: SqliteStore) -> None:
    """It is what tells the agent that a checkpoint is worth its while."""
    store.checkpoint()
    assert store.pending_pages() == 0
    put(store, b"s", k=b"1")
    first = store.pending_pages()
    assert first > 0
    for number in range(20):
        put(store, b"%d" % number, k=b"1")
    assert store.pending_pages() >= first + 20
    store.checkpoint()
    assert store.pending_pages() == 0
    assert run("locked", store.files.path)


def test_sync(store: SqliteStore, directory: Path) -> None:
    """Syncing succeeds where there is a log to sync, and says so where it cannot."""
    put(store, b"s", k=b"1")
    store.sync()
    store._pool._close_idle()  # as before a fork: the last connection takes the log away
    store.sync()
    shutil.rmtree(directory)
    with pytest.raises(StoreError, match=r"canister\.db-wal cannot be synced"):
        store.sync()


def test_close_while_in_use(store: SqliteStore, directory: Path) -> None:
    """A connection in use when the store is closed serves to its end, and is closed then."""
    put(store, b"s", k=b"1")
    with store.snapshot() as view:
        store.close()
        assert view.whole(b"s") is not None
        assert directory.joinpath("canister.db-wal").exists()
    assert not directory.joinpath("canister.db-wal").exists()
    with pytest.raises(StoreError, match="closed"):
        store.load(b"s")


def test_a_late_writer(store: SqliteStore) -> None:
    """Who writes after the end is told so, and opens nothing again."""
    put(store, b"s", k=b"1")
    store.close()
    with pytest.raises(StoreError, match="is closed"):
        store.merge([], {})
    assert store._turn._files is None


def fill(store: SqliteStore) -> None:
    for number in range(100):
        put(store, b"filler-%d" % number, k=b"x" * 4000)


def test_full_disk(store: SqliteStore) -> None:
    """A full disk raises DiskFullError, harms nothing that was there, and later writes work."""
    put(store, b"s", k=b"before")
    limit(store, 5)
    before = visible(store, b"s")
    with pytest.raises(DiskFullError, match=r"disk holding .* is full; nothing was written"):
        fill(store)
    written = len(list(store.scan())) - 1
    assert 0 < written < 10
    assert visible(store, b"s") == before
    limit(store, 0)
    version = put(store, b"s", k=b"after", more=b"x" * 40_000)
    with store.snapshot() as view:
        assert view.last_stamp() == stamp_of(version)
        assert len(view.log(0)) == 2 + written
        assert view.whole(b"s") == encode_record(visible(store, b"s"))


def test_busy(store: SqliteStore, directory: Path) -> None:
    """A program that holds the database locked is named as what it is; afterwards all goes on."""
    put(store, b"s", k=b"1")
    with store._pool.lend() as handle:
        handle.connection.set_busy_timeout(1)
    intruder = apsw.Connection(str(directory / "canister.db"))
    intruder.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreBusyError, match="another program holds"):
        put(store, b"s", k=b"2")
    assert values(store, b"s") == {"k": b"1"}
    intruder.close()
    put(store, b"s", k=b"3")
    assert values(store, b"s") == {"k": b"3"}


def test_directory_removed_while_open(store: SqliteStore, directory: Path) -> None:
    """A data directory that vanished is an error of the store, not an absence."""
    shutil.rmtree(directory)
    with pytest.raises(StoreError, match=r"write\.lock cannot be locked: No such file"):
        store.merge([], {})
    with pytest.raises(StoreError, match=r"canister\.db cannot be written"):
        put(store, b"s", k=b"1")
    with pytest.raises(StoreError, match=r"canister\.db cannot be written"):
        store.load(b"s")


def test_a_session_whose_place_was_taken_and_is_free_again(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of three ids with the same hash, those that are left are each stored once, whoever goes."""
    monkeypatch.setattr(rows, "blake2b", lambda _, digest_size: blake2b(digest_size=digest_size))
    ids = [b"s1", b"s148182", b"s175556"]
    for gone in ids:
        for session in ids:
            put(store, session, k=b"1")
        store.forget(gone)
        for session in ids:
            if session != gone:
                store.merge([(session, visible(store, session))], {})
                put(store, session, k=b"2")
                store.merge([(session, visible(store, session))], {})
        assert sorted(session for session, _ in store.scan()) == [id for id in ids if id != gone]
        for session in ids:
            store.forget(session)
    assert list(store.scan()) == []
