"""Reading a database's files must not take SQLite's locks away."""

import os
import sys
from pathlib import Path

import pytest

from canister import Canister
from canister.store.connections import pending_frames

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


def test_descriptors_are_kept_no_longer_than_needed(tmp_path: Path) -> None:
    """Once the last handle is closed, none of the directory's files is open in this process."""
    with Canister(tmp_path, agent=False) as one, Canister(tmp_path, agent=False):
        one.put("s", "k", 1)
        pending_frames(one.node.store.files.database)
    paths = [Path("/proc/self/fd", name) for name in os.listdir("/proc/self/fd")]
    targets = [os.readlink(path) for path in paths if path.is_symlink()]
    assert not [target for target in targets if target.startswith(str(tmp_path))]
