import errno
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import apsw
import pytest
from tests.integration.cluster import eventually

from canister import Canister
from canister.agent import thread
from canister.config import Config
from canister.errors import (
    CanisterError,
    ConfigError,
    CorruptDatabaseError,
    DiskFullError,
    ForeignDatabaseError,
    NewerFormatError,
    StoreBusyError,
    StoreError,
)
from canister.record import NodeId
from canister.store import datadir, history
from canister.store.cache import FILE_BYTES
from canister.store.connections import explain
from canister.store.datadir import FORMAT
from canister.store.sqlite import SqliteStore
from canister.testing.clock import ManualClock
from canister.testing.contract import PEER, put, values

NORMAL, FULL = Config(), Config(durability="full")


def used(directory: Path, config: Config = NORMAL) -> NodeId:
    """Open a data directory, write to it, close it, and return the node id it had."""
    store = SqliteStore(directory, config)
    put(store, b"s", k=b"1")
    store.merge([], {PEER: 5})
    store.close()
    return store.node


def node_of(directory: Path, config: Config = NORMAL) -> NodeId:
    store = SqliteStore(directory, config)
    store.close()
    return store.node


@pytest.fixture
def reboot(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Return what pretends that the machine was started anew."""
    boots = iter(f"boot-{number}" for number in range(100))

    def start_anew() -> None:
        boot = next(boots)
        monkeypatch.setattr(history, "boot_id", lambda: boot)

    start_anew()
    return start_anew


def test_boot_id() -> None:
    """The boot id is the machine's, the same at every call."""
    assert history.boot_id() == history.boot_id() != ""


def test_same_node(tmp_path: Path) -> None:
    """The node id stays as long as nothing happened to the history."""
    assert used(tmp_path) == used(tmp_path) == node_of(tmp_path, FULL)


def test_every_directory_is_a_node(tmp_path: Path) -> None:
    """Two directories are two nodes."""
    assert used(tmp_path / "a") != used(tmp_path / "b")


@pytest.mark.parametrize("config", [NORMAL, FULL], ids=["normal", "full"])
def test_copy_is_another_node(tmp_path: Path, config: Config) -> None:
    """R5: a copy of the directory has the data and a node id of its own; the original keeps its."""
    node = used(tmp_path / "a", config)
    shutil.copytree(tmp_path / "a", tmp_path / "b", copy_function=shutil.copy2)
    store = SqliteStore(tmp_path / "b", config)
    assert store.node != node
    assert values(store, b"s") == {"k": b"1"}
    store.close()
    assert node_of(tmp_path / "b", config) == store.node
    assert node_of(tmp_path / "a", config) == node


def test_copy_of_a_running_node(tmp_path: Path) -> None:
    """A copy made while the original is in use is another node as well, with the same data."""
    original = SqliteStore(tmp_path / "a", NORMAL)
    put(original, b"s", k=b"1")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    copy = SqliteStore(tmp_path / "b", NORMAL)
    assert copy.node != original.node
    assert values(copy, b"s") == {"k": b"1"}
    original.close()
    copy.close()


def number(file: Path) -> int:
    return file.stat().st_ino


@pytest.mark.parametrize("config", [NORMAL, FULL], ids=["normal", "full"])
def test_backup_copied_over_the_database(tmp_path: Path, config: Config) -> None:
    """R5: it is the same file in the same boot, and yet another history: commits are gone from it."""
    database, backup = tmp_path / "node" / "canister.db", tmp_path / "backup.db"
    node = used(tmp_path / "node", config)
    shutil.copy2(database, backup)
    before = number(database)
    assert used(tmp_path / "node", config) == node
    shutil.copy2(backup, database)
    assert number(database) == before
    store = SqliteStore(tmp_path / "node", config)
    assert store.node != node
    assert store.heard_of(node) == 0, "what the old history went on to write is not vouched for"
    assert values(store, b"s") == {"k": b"1"}
    store.close()
    assert node_of(tmp_path / "node", config) == store.node, "once is enough"


@pytest.mark.parametrize("config", [NORMAL, FULL], ids=["normal", "full"])
def test_backups_copied_over_the_database_one_after_the_other(tmp_path: Path, config: Config) -> None:
    """R5: the id in a backup was given up with the first one, however the next one ends."""
    database = tmp_path / "node" / "canister.db"
    node = used(tmp_path / "node", config)
    shutil.copy2(database, tmp_path / "early.db")
    used(tmp_path / "node", config)
    shutil.copy2(database, tmp_path / "late.db")
    used(tmp_path / "node", config)
    ids = {node}
    for backup in ("early.db", "early.db", "late.db"):
        database.with_name("canister.db-wal").unlink(missing_ok=True)
        shutil.copy2(tmp_path / backup, database)
        ids.add(node_of(tmp_path / "node", config))
    assert len(ids) == 4


def test_backup_copied_over_what_a_kill_left(tmp_path: Path) -> None:
    """R5: so it is when the last process was killed, with the write-ahead log put back as well."""
    killed = SqliteStore(tmp_path / "node", NORMAL)
    put(killed, b"s", k=b"1")
    shutil.copytree(tmp_path / "node", tmp_path / "backup")
    put(killed, b"s", k=b"2")
    shutil.copytree(tmp_path / "node", tmp_path / "left")  # a kill ends no connection
    for backup, keeps in (("left", True), ("backup", False)):
        killed.close()
        for name in ("canister.db", "canister.db-wal"):
            shutil.copyfile(tmp_path / backup / name, tmp_path / "node" / name)
        again = SqliteStore(tmp_path / "node", NORMAL)
        assert (again.node == killed.node) is keeps
        assert values(again, b"s") == {"k": b"2" if keeps else b"1"}
        again.close()


def test_the_present_state_copied_over_the_database(tmp_path: Path) -> None:
    """Where no commit is lost it is the same history."""
    node = used(tmp_path)
    shutil.copy2(tmp_path / "canister.db", tmp_path / "backup")
    shutil.copy2(tmp_path / "backup", tmp_path / "canister.db")
    assert node_of(tmp_path) == node


def test_directory_copied_over_itself(tmp_path: Path) -> None:
    """R5: a backup of the whole directory brings all files back, also those that note how far it got."""
    node = used(tmp_path / "node")
    shutil.copytree(tmp_path / "node", tmp_path / "backup", copy_function=shutil.copy2)
    kept = [file for file in (tmp_path / "node").iterdir() if file.name != "writes.map"]  # that is new
    numbers = [number(file) for file in kept]
    assert used(tmp_path / "node") == node
    for file in (tmp_path / "backup").iterdir():
        shutil.copy2(file, tmp_path / "node")
    assert [number(file) for file in kept] == numbers
    assert node_of(tmp_path / "node") != node


def test_a_node_that_renounced_its_history_begins_another_one(tmp_path: Path) -> None:
    """R5: peers showed that the directory was put back, which nothing in it does; not while it is used."""
    node = used(tmp_path)
    with closing(SqliteStore(tmp_path, NORMAL)) as one:
        one.renounce(1)
        put(one, b"s", k=b"not sent yet")
        for _ in range(2):
            with closing(SqliteStore(tmp_path, NORMAL)) as other, other.snapshot() as view:
                assert other.node == node
                assert view.log(0)[-1].changes
    assert node_of(tmp_path) != node


def test_directory_put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """R5: the files that were put in the place of deleted ones may have been given their numbers."""
    monkeypatch.setattr(history, "_file_of", lambda database: "the same")
    node = used(tmp_path / "node")
    shutil.copytree(tmp_path / "node", tmp_path / "backup", copy_function=shutil.copy2)
    shutil.rmtree(tmp_path / "node")
    shutil.copytree(tmp_path / "backup", tmp_path / "node", copy_function=shutil.copy2)
    assert node_of(tmp_path / "node") != node


def test_nobody_becomes_another_node_beside_one_that_runs(tmp_path: Path) -> None:
    """A directory whose owner is set anew is looked at when nobody uses it any more."""
    first = SqliteStore(tmp_path, NORMAL)
    tmp_path.joinpath("use.lock").chmod(0o640)
    tmp_path.joinpath("use.lock").chmod(0o600)
    second = SqliteStore(tmp_path, NORMAL)
    assert second.node == first.node
    first.close()
    assert node_of(tmp_path) == second.node
    second.close()
    third = node_of(tmp_path)
    assert third != first.node
    assert node_of(tmp_path) == third


def test_database_replaced_while_it_is_in_use(tmp_path: Path) -> None:
    """A process does not write to two files: a new connection would be one to another history."""
    used(tmp_path / "a")
    used(tmp_path / "b")
    store = SqliteStore(tmp_path / "a", NORMAL)
    tmp_path.joinpath("b", "canister.db").rename(tmp_path / "a" / "canister.db")
    with pytest.raises(StoreError, match=r"replaced while it was in use; stop all processes"):
        put(store, b"s", k=b"2")
    store.close()


@pytest.mark.parametrize("anew", [False, True])
def test_directory_deleted_while_it_is_in_use(tmp_path: Path, anew: bool) -> None:
    """A process with open connections does not go on writing to what nobody will find."""
    directory = tmp_path / "a"
    store = SqliteStore(directory, NORMAL)
    put(store, b"s", k=b"1")
    store.check_file()
    with store.snapshot():
        shutil.rmtree(directory)
        if anew:
            used(directory)
        with pytest.raises(StoreError, match=r"removed or replaced while it was in use"):
            store.check_file()
    with pytest.raises(StoreError, match=r"removed or replaced while it was in use"):
        put(store, b"s", k=b"2")
    store.close()
    if anew:
        assert values(SqliteStore(directory, NORMAL), b"s") == {"k": b"1"}


def test_the_agent_sees_that_the_directory_was_deleted(tmp_path: Path) -> None:
    """It looks all the time, so that no process it runs in writes for long to what is gone."""
    with Canister(tmp_path / "a") as canister:
        canister.put("s", "k", 1)
        shutil.rmtree(tmp_path / "a")

        def is_refused() -> bool:
            try:
                canister.put("s", "k", 2)
            except StoreError as error:
                return "removed or replaced" in str(error)
            return False

        eventually(is_refused, 5)
    assert not (tmp_path / "a").exists()


def test_closed_amid_a_sweep(tmp_path: Path) -> None:
    """Whoever looks for what is due just then gets no error but those of a closed store."""

    class ClosingClock(ManualClock):
        def now(self) -> int:
            if closes:
                store.close()
            return super().now()

    closes = False
    store = SqliteStore(tmp_path, NORMAL, ClosingClock())
    closes = True
    assert store.sweep(0, 10, destroyed=False) == 0
    with pytest.raises(StoreError, match="is closed"):
        store.sweep(0, 10, destroyed=False)


def test_path_that_cannot_be_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is wrong with a path, the error names it."""
    tmp_path.joinpath("loop").symlink_to(tmp_path / "loop")
    for name in ("nul\0", os.fsdecode(b"\xff")):
        with pytest.raises(ConfigError, match="has no valid name"):
            SqliteStore(tmp_path / name, NORMAL)
    with pytest.raises(StoreError, match=r"the data directory .*loop"):
        SqliteStore(tmp_path / "loop", NORMAL)
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(StoreError, match="the data directory relative cannot be found"):
        SqliteStore(Path("relative"), NORMAL)


def test_no_descriptor_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the agent's sockets cannot be made, the error names the directory."""

    def none_left() -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(thread, "_loop_factory", none_left)
    with pytest.raises(StoreError, match=f"{tmp_path} cannot be used: Too many open files"):
        Canister(tmp_path)


@pytest.mark.parametrize("name", ["writes.map", "write.lock", "turn.lock"])
def test_shared_file_removed_while_it_is_in_use(tmp_path: Path, name: str) -> None:
    """Nobody joins those who still use the file that was there; once all have ended it is made anew."""
    store = SqliteStore(tmp_path, NORMAL)
    put(store, b"s", k=b"1")
    tmp_path.joinpath(name).unlink()
    for _ in range(2):
        with pytest.raises(StoreError, match=rf"{name} in .* was removed .* stop all processes of this node"):
            SqliteStore(tmp_path, NORMAL)
    put(store, b"s", k=b"2")
    store.close()
    again = SqliteStore(tmp_path, NORMAL)
    assert values(again, b"s") == {"k": b"2"}
    SqliteStore(tmp_path, NORMAL).close()
    again.close()


def test_directory_in_use_by_another_release(tmp_path: Path) -> None:
    """Who lays out differently what all processes share does not join them."""
    store = SqliteStore(tmp_path, NORMAL)
    os.truncate(tmp_path / "writes.map", FILE_BYTES + 1)
    for _ in range(2):
        with pytest.raises(StoreError, match=r"in use by another release of Canister; stop all processes"):
            SqliteStore(tmp_path, NORMAL)
    store.close()
    SqliteStore(tmp_path, NORMAL).close()


def test_power_cut_in_normal(tmp_path: Path, reboot: Callable[[], None]) -> None:
    """R5: after a restart of the machine the last commits may be lost, so a new history begins."""
    node = used(tmp_path)
    reboot()
    store = SqliteStore(tmp_path, NORMAL)
    assert store.node != node
    assert values(store, b"s") == {"k": b"1"}
    assert store.heard_of(node) == 0
    assert store.heard_of(PEER) == 5
    store.close()
    assert node_of(tmp_path) == store.node


def test_power_cut_in_full(tmp_path: Path, reboot: Callable[[], None]) -> None:
    """In full durability nothing is lost by a power cut, so the history goes on."""
    node = used(tmp_path, FULL)
    reboot()
    assert node_of(tmp_path, FULL) == node
    reboot()
    assert node_of(tmp_path, NORMAL) == node
    reboot()
    assert node_of(tmp_path, NORMAL) != node


def test_power_cut_after_both(tmp_path: Path, reboot: Callable[[], None]) -> None:
    """Commits in normal may be unsynced until the machine starts anew, whoever opened since."""
    node = used(tmp_path, NORMAL)
    assert node_of(tmp_path, FULL) == node
    reboot()
    assert node_of(tmp_path, FULL) != node


def test_normal_after_full(tmp_path: Path, reboot: Callable[[], None]) -> None:
    """One process in normal durability is enough to end the history with a power cut."""
    node = used(tmp_path, FULL)
    assert used(tmp_path, NORMAL) == node
    reboot()
    assert node_of(tmp_path, FULL) != node


def test_new_history(tmp_path: Path, reboot: Callable[[], None]) -> None:
    """A new node id has nothing in its log to be sent as its own, and goes on in time."""
    store = SqliteStore(tmp_path, NORMAL)
    versions = [put(store, b"s", k=b"%d" % number) for number in range(3)]
    store.close()
    reboot()
    again = SqliteStore(tmp_path, NORMAL)
    with again.snapshot() as view:
        assert [entry.changes for entry in view.log(0)] == [[]]
        assert view.last_stamp() == int.from_bytes(versions[-1][:8], "big")
    assert put(again, b"s", k=b"4") > versions[-1]
    again.close()


def make_foreign_file(directory: Path) -> None:
    directory.joinpath("canister.db").write_bytes(b"my precious notes\n" * 100)


def make_short_file(directory: Path) -> None:
    directory.joinpath("canister.db").write_bytes(b"SQLite format 3\x00")


def make_empty_file(directory: Path) -> None:
    directory.joinpath("canister.db").touch()


def make_foreign_database(directory: Path) -> None:
    connection = sqlite3.connect(directory / "canister.db")
    connection.execute("CREATE TABLE sessions (id)")
    connection.commit()
    connection.close()


def make_truncated(directory: Path) -> None:
    used(directory)
    path = directory / "canister.db"
    os.truncate(path, path.stat().st_size // 2)


def make_damaged(directory: Path) -> None:
    used(directory)
    with directory.joinpath("canister.db").open("r+b") as file:
        file.seek(100)
        file.write(b"\xff" * 500)


def make_newer(directory: Path) -> None:
    used(directory)
    connection = apsw.Connection(str(directory / "canister.db"))
    connection.execute(f"PRAGMA user_version={FORMAT + 1}")
    connection.close()


def make_older(directory: Path) -> None:
    used(directory)
    connection = apsw.Connection(str(directory / "canister.db"))
    connection.execute(f"PRAGMA user_version={FORMAT - 1}")
    connection.close()


def make_newer_not_checkpointed(directory: Path) -> None:
    """Leave the newer format in the write-ahead log, as a kill of the newer release does."""
    used(directory / "live")
    connection = apsw.Connection(str(directory / "live/canister.db"))
    connection.execute("PRAGMA wal_autocheckpoint=0")
    connection.execute(f"PRAGMA user_version={FORMAT + 1}")
    for name in ("canister.db", "canister.db-wal"):
        shutil.copy(directory / "live" / name, directory / name)
    connection.close()


def make_log_without_database(directory: Path) -> None:
    store = SqliteStore(directory / "live", NORMAL)
    put(store, b"s", k=b"1")
    shutil.copy(directory / "live/canister.db-wal", directory / "canister.db-wal")
    store.close()


def make_other_cluster(directory: Path) -> None:
    used(directory, Config(cluster="shop"))


def make_other_cluster_not_checkpointed(directory: Path) -> None:
    store = SqliteStore(directory / "live", Config(cluster="shop"))
    put(store, b"s", k=b"1")
    for name in ("canister.db", "canister.db-wal"):
        shutil.copy(directory / "live" / name, directory / name)
    store.close()


def cut_checkpoint_short(directory: Path, *, sessions: int = 300) -> None:
    """Leave what a checkpoint does that is cut short: the first page, which counts more than there are."""
    live = SqliteStore(directory / "live", NORMAL)
    for name in ("canister.db", "canister.db-wal"):
        shutil.copy(directory / "live" / name, directory / name)
    for number in range(sessions):
        put(live, b"%d" % number, k=b"1")
    shutil.copy(directory / "live/canister.db-wal", directory / "canister.db-wal")
    live.checkpoint()
    header = directory.joinpath("live/canister.db").read_bytes()[:4096]
    live.close()
    with directory.joinpath("canister.db").open("r+b") as file:
        file.write(header)
        assert file.seek(0, os.SEEK_END) < 4096 * int.from_bytes(header[28:32], "big")


def test_a_checkpoint_that_was_cut_short(tmp_path: Path) -> None:
    """A kill amid a checkpoint, or a full disk, leaves the database short; the rest is in the log."""
    cut_checkpoint_short(tmp_path)
    with closing(SqliteStore(tmp_path, NORMAL)) as store:
        assert len(list(store.scan())) == 300
        put(store, b"new", k=b"1")
    with closing(SqliteStore(tmp_path, NORMAL)) as store:
        assert len(list(store.scan())) == 301


def make_short_with_a_log_that_lacks_pages(directory: Path) -> None:
    cut_checkpoint_short(directory)
    log = directory / "canister.db-wal"
    os.truncate(log, log.stat().st_size // 2)


@pytest.mark.parametrize(
    ("make", "kind", "why"),
    [
        (make_foreign_file, ForeignDatabaseError, "is not a Canister database"),
        (make_short_file, CorruptDatabaseError, "its header is missing"),
        (make_empty_file, CorruptDatabaseError, "its header is missing"),
        (make_foreign_database, ForeignDatabaseError, "is not a Canister database"),
        (make_truncated, CorruptDatabaseError, "shorter than its header says"),
        (make_short_with_a_log_that_lacks_pages, CorruptDatabaseError, "shorter than its header says"),
        (make_damaged, CorruptDatabaseError, "is damaged"),
        (make_newer, NewerFormatError, f"has format {FORMAT + 1}, this release reads {FORMAT}"),
        (make_older, StoreError, f"has format {FORMAT - 1}, from before the first release"),
        (make_newer_not_checkpointed, NewerFormatError, "newer release"),
        (make_log_without_database, CorruptDatabaseError, "write-ahead log is there"),
        (make_other_cluster, ConfigError, "belongs to cluster 'shop', not 'canister'"),
        (make_other_cluster_not_checkpointed, ConfigError, "set cluster to that name"),
    ],
)
def test_refused_and_left_untouched(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make: Callable[[Path], None],
    kind: type[CanisterError],
    why: str,
) -> None:
    """What cannot be used is refused with the reason, and not a byte of it changes."""
    monkeypatch.setattr(datadir, "retrying", lambda act, *, seconds: act())
    make(tmp_path)
    before = contents(tmp_path)
    for _ in range(2):
        with pytest.raises(kind, match=why) as caught:
            SqliteStore(tmp_path, NORMAL)
        assert str(tmp_path) in str(caught.value)
    after = contents(tmp_path)
    assert {name: after.get(name) for name in before} == before


def contents(directory: Path) -> dict[str, bytes]:
    """Return what is in the files of a directory, SQLite's index of the log left out."""
    return {
        path.name: path.read_bytes()
        for path in directory.iterdir()
        if path.is_file() and not path.name.endswith("-shm")
    }


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_file_in_place_of_a_directory(tmp_path: Path, place: str) -> None:
    """A file where the directory should be is refused and kept."""
    tmp_path.joinpath("file").write_bytes(b"mine")
    with pytest.raises(StoreError, match=r"cannot be made: (File exists|Not a directory)"):
        SqliteStore(tmp_path / place, NORMAL)
    assert contents(tmp_path) == {"file": b"mine"}


def test_directory_in_place_of_the_database(tmp_path: Path) -> None:
    """A directory where the database should be is refused."""
    tmp_path.joinpath("canister.db").mkdir()
    with pytest.raises(StoreError, match=r"canister\.db"):
        SqliteStore(tmp_path, NORMAL)


def test_directory_in_place_of_the_lock(tmp_path: Path) -> None:
    """A directory where the lock file should be is refused."""
    tmp_path.joinpath("write.lock").mkdir()
    with pytest.raises(StoreError, match=r"write\.lock cannot be locked: Is a directory"):
        SqliteStore(tmp_path, NORMAL)


def test_directory_that_is_not_writable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory that may not be written is refused before anything is tried."""
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(StoreError, match="is not writable; check its owner and permissions"):
        SqliteStore(tmp_path, NORMAL)
    assert contents(tmp_path) == {}


@pytest.mark.parametrize(
    ("error", "kind", "advice"),
    [
        (apsw.FullError("x"), DiskFullError, "free some space"),
        (apsw.NotADBError("x"), ForeignDatabaseError, "left untouched"),
        (apsw.CorruptError("x"), CorruptDatabaseError, "come back from the other members"),
        (apsw.BusyError("x"), StoreBusyError, "another program holds"),
        (apsw.LockedError("x"), StoreBusyError, "another program holds"),
        (apsw.ReadOnlyError("x"), StoreError, "check its owner and permissions"),
        (apsw.CantOpenError("x"), StoreError, "check its owner and permissions"),
        (apsw.PermissionsError("x"), StoreError, "check its owner and permissions"),
        (apsw.IOError("some reason"), StoreError, "some reason"),
    ],
)
def test_errors_say_what_to_do(error: apsw.Error, kind: type[CanisterError], advice: str) -> None:
    """Every error of SQLite becomes the kind that says who has to act, and names the file."""
    explained = explain(error, Path("/data/canister.db"))
    assert type(explained) is kind
    assert advice in str(explained)
    assert "/data/canister.db" in str(explained)
