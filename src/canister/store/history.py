"""Whether a data directory still holds the one history that its node id stands for.

A version names a commit for ever, so a node id must not be used again for another history: not after a
power cut that may have lost the last commits, not in a copy of the directory, and not on a backup that
was put in its place. What a backup brings back cannot tell; these witnesses stay outside it:

- the boot id of the machine, as noted in the database;
- the number of the database's file, and number and change time of ``use.lock``, which nobody ever
  writes: files that were copied, or copied over, have others, even where a number is given out again;
- the last stamp, which every commit notes: a database that ends before it was put back;
- the node id, noted beside it: a backup of an earlier id may well end after what has taken its place.
"""

import fcntl
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from canister.config import Config
from canister.record import NodeId
from canister.store.connections import Handle
from canister.store.notes import Notes


class Use:
    """What tells those who open a data directory whether anybody uses it, and keeps its identity.

    Args:
        path: a file that is never written; a shared lock on it is held by each store that is open.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handle: int | None = None
        self.is_first = False
        """Whether nobody else used the directory when this use of it began."""

    def begin(self) -> None:
        """Take part; until `share` nobody else can.

        Raises:
            OSError: the file cannot be opened.
        """
        self._handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.is_first = True
        except BlockingIOError:
            self.is_first = False

    def share(self) -> None:
        """Let others take part as well."""
        assert self._handle is not None, "begin() comes first"
        fcntl.flock(self._handle, fcntl.LOCK_SH)

    def end(self) -> None:
        """Take part no more. A forked child that inherited the use still does, until it ends."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def identity(self) -> str:
        """Return what a copy of the directory has otherwise, also one put back in the same place."""
        status = self._path.stat()
        return f"{status.st_dev}:{status.st_ino}:{status.st_ctime_ns}"


def incarnate(
    handle: Handle, database: Path, config: Config, draw: Callable[[], NodeId], use: Use, notes: Notes
) -> NodeId:
    """Return the node id; a new one where the history may not be the one this id began.

    Args:
        handle: a connection to the database.
        database: its file.
        config: the node's settings.
        draw: draws a node id.
        use: the use of the directory that begins.
        notes: what is noted outside the database; the caller has the turn to write.
    """
    known: dict[str, Any] = dict(handle.execute("SELECT key, value FROM meta").fetchall())
    now = _witnesses(database, config)
    if use.is_first or "use" not in known:
        now["use"] = use.identity()
    if not use.is_first and "node" in known and "file" not in known:
        del now["file"]  # given up, but in use: to begin another history is for the next who is first
    same_boot = known.get("boot") == now["boot"]
    if known.get("file") == now.get("file") and same_boot and known["durability"] == "normal":
        now["durability"] = "normal"  # commits of this boot may be unsynced, whoever opens next
    node = known.get("node")
    last = _last_stamp(handle)
    is_noted = notes.node() in (b"", node) and notes.committed() <= last
    if node is None or not is_noted or not _goes_on(known, now):
        node = draw()
        with handle.connection:
            set_meta(handle, "node", node)
            handle.execute("DELETE FROM log WHERE stamp < (SELECT max(stamp) FROM log)")
            handle.execute("UPDATE log SET changes = x'90'")
        notes.note_committed(last)
    if notes.node() != node:
        notes.note_node(node)
    notes.note_drawn(last)
    if any(known.get(key) != value for key, value in now.items()):
        with handle.connection:
            for key, value in now.items():
                set_meta(handle, key, value)
    return NodeId(node)


def break_history(handle: Handle) -> None:
    """Make the next who opens the directory while nobody uses it take it for another history."""
    handle.execute("DELETE FROM meta WHERE key = 'file'")


def boot_id() -> str:
    """Return what changes whenever the machine starts."""
    if sys.platform == "darwin":
        command = ["/usr/sbin/sysctl", "-n", "kern.bootsessionuuid"]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()


def _witnesses(database: Path, config: Config) -> dict[str, str]:
    return {"file": _file_of(database), "boot": boot_id(), "durability": config.durability}


def _file_of(database: Path) -> str:
    status = database.stat()
    return f"{status.st_dev}:{status.st_ino}"


def _goes_on(known: dict[str, Any], now: dict[str, str]) -> bool:
    """Tell whether by its witnesses the database is still the one that its node id began."""
    if known.get("file") != now.get("file"):
        return False
    # A directory that others use has been looked at by the first of them.
    if "use" in known and known["use"] != now.get("use", known["use"]):
        return False
    return known.get("boot") == now["boot"] or known["durability"] == "full"


def set_meta(handle: Handle, key: str, value: Any) -> None:
    """Write one fact of the database about itself."""
    handle.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", (key, value))


def _last_stamp(handle: Handle) -> int:
    (last,) = handle.execute("SELECT max(stamp) FROM log").fetchone()
    return last or 0
