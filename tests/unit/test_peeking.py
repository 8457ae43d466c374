"""Reading a database's files must not take SQLite's locks away."""

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from canister import Canister
from canister.config import Config
from canister.record import NodeId
from canister.store import datadir, history
from canister.store.connections import pending_frames
from canister.store.sqlite import SqliteStore
from canister.testing.contract import put

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def locked_files(directory: Path) -> set[str]:
    """Return the names of the files in *directory* on which this process holds a lock of SQLite."""
    names = {path.stat().st_ino: path.name for path in directory.iterdir()}
    rows = [line.split() for line in Path("/proc/locks").read_text("ascii").splitlines() if "->" not in line]
    mine = [int(row[5].split(":")[2]) for row in rows if row[1] == "POSIX" and int(row[4]) == os.getpid()]
    return {names[inode] for inode in mine if inode in names}


def test_a_second_handle_does_not_cost_the_first_its_locks(tmp_path: Path) -> None:
    """Opening the directory again, and looking at the log, leaves the locks of open connections alone."""
    with Canister(tmp_path, agent=False) as first:
        first.put("s", "k", 1)
        held = locked_files(tmp_path)
        assert held == {"canister.db", "canister.db-shm"}
        with Canister(tmp_path, agent=False) as second:
            second.put("s", "l", 2)
            pending_frames(second.node.store.files.database)
            assert locked_files(tmp_path) == held
        assert locked_files(tmp_path) == held


def test_the_last_handle_is_closed_while_another_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who is just being opened keeps its locks: others would take it for nobody."""
    first = SqliteStore(tmp_path, Config())
    put(first, b"s", k=b"1")
    assert first.pending_pages() > 0  # looks at the log
    held: list[set[str]] = []

    def incarnate_late(*args: Any) -> NodeId:
        first.close()
        held.append(locked_files(tmp_path))
        return history.incarnate(*args)

    monkeypatch.setattr(datadir, "incarnate", incarnate_late)
    SqliteStore(tmp_path, Config()).close()
    assert held == [{"canister.db", "canister.db-shm"}]


def test_descriptors_are_kept_no_longer_than_needed(tmp_path: Path) -> None:
    """Once the last handle is closed, none of the directory's files is open in this process."""
    with Canister(tmp_path, agent=False) as one, Canister(tmp_path, agent=False):
        one.put("s", "k", 1)
        pending_frames(one.node.store.files.database)
    paths = [Path("/proc/self/fd", name) for name in os.listdir("/proc/self/fd")]
    targets = [os.readlink(path) for path in paths if path.is_symlink()]
    assert not [target for target in targets if target.startswith(str(tmp_path))]
