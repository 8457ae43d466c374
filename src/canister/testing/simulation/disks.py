"""Where a simulated node's data is, and older states of it: in memory, or in real SQLite files.

Both draw node ids and read time alike, so that a run goes the same way on either.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import apsw

from canister.clock import Clock
from canister.config import Config
from canister.record import NodeId
from canister.store.base import ReplicatedStore
from canister.store.connections import Handle, connect
from canister.store.memory import MemoryStore
from canister.store.sqlite import SqliteStore

Draw = Callable[[], NodeId]


class Disk(Protocol):
    """A node's data and states of it that were saved, by name."""

    @property
    def store(self) -> ReplicatedStore:
        """The open store."""
        ...

    def kill(self) -> None:
        """End the node's process; what is committed stays."""
        ...

    def save(self, name: str) -> None:
        """Keep a copy of the present state."""
        ...

    def saved(self, name: str) -> int | None:
        """Return the last stamp of a saved state, None if there is none of that name."""
        ...

    def keeps(self, session: bytes, whole: bytes) -> bool:
        """Tell whether every saved state holds a session as *whole*."""
        ...

    def restore(self, name: str) -> None:
        """Put a saved state in place; where commits are lost by it, the node must not keep its id."""
        ...

    def erase(self) -> None:
        """Begin anew, empty; nothing that was saved is left."""
        ...

    def tidy(self) -> None:
        """Do what an agent does for the files now and then."""
        ...

    def close(self) -> None:
        """Release everything."""
        ...


class MemoryDisk:
    """Data in dictionaries.

    Args:
        config: the node's settings.
        clock: the node's clock.
        draw: draws node ids.
    """

    def __init__(self, config: Config, clock: Clock, draw: Draw) -> None:
        self._config = config
        self._clock = clock
        self._draw = draw
        self._saved: dict[str, MemoryStore] = {}
        self.store = MemoryStore(config, clock, draw())

    def kill(self) -> None:
        """Leave everything as it is."""

    def save(self, name: str) -> None:
        """Keep a copy of the store."""
        self._saved[name] = self.store.copy()

    def saved(self, name: str) -> int | None:
        """Return the last stamp of a copy."""
        found = self._saved.get(name)
        return None if found is None else found.last_stamp()

    def keeps(self, session: bytes, whole: bytes) -> bool:
        """Tell whether every copy holds a session as *whole*."""
        return all(store.whole(session) == whole for store in self._saved.values())

    def restore(self, name: str) -> None:
        """Go on with a copy of a copy, under a new node id if commits are lost by it."""
        saved = self._saved[name]
        goes_on = saved.node == self.store.node and saved.last_stamp() >= self.store.last_stamp()
        self.store = saved.copy(node=None if goes_on else self._draw())

    def erase(self) -> None:
        """Go on with an empty store under a new node id."""
        self._saved.clear()
        self.store = MemoryStore(self._config, self._clock, self._draw())

    def tidy(self) -> None:
        """There are no files."""

    def close(self) -> None:
        """There is nothing to release."""


class SqliteDisk:
    """Data in a data directory. It is the product that tells another history by its files.

    A saved state is copied over the files in place. Whoever begins anew gets another directory, and none
    is deleted before the end: the number of a deleted file may be given to the next one.

    Args:
        directory: where the data directories go.
        config: the node's settings.
        clock: the node's clock.
        draw: draws node ids.
    """

    store: SqliteStore

    def __init__(self, directory: Path, config: Config, clock: Clock, draw: Draw) -> None:
        self._directory = directory
        self._config = config
        self._clock = clock
        self._draw = draw
        self._saved: dict[str, tuple[Path, int]] = {}
        self._count = 0
        self._open(self._fresh())

    def kill(self) -> None:
        """Close the store without what a clean end does, and open it on the files as they were left."""
        self.close()
        self._open(self.store.files.path)

    def save(self, name: str) -> None:
        """Sync, and copy the files of the database."""
        self.store.sync()
        copy = self._fresh()
        copy.mkdir(parents=True)
        for file in ("canister.db", "canister.db-wal"):
            shutil.copyfile(self.store.files.path / file, copy / file)
        with self.store.snapshot() as snapshot:
            self._saved[name] = (copy, snapshot.last_stamp())

    def saved(self, name: str) -> int | None:
        """Return the last stamp in a copy."""
        found = self._saved.get(name)
        return None if found is None else found[1]

    def keeps(self, session: bytes, whole: bytes) -> bool:
        """Tell whether every copy holds a session as *whole*."""
        sql = "SELECT 1 FROM sessions WHERE id = ? AND record = ? AND held IS NULL"
        for copy, _ in self._saved.values():
            connection = apsw.Connection(str(copy / "canister.db"))
            found = connection.execute(sql, (session, whole)).fetchone()
            connection.close()
            if found is None:
                return False
        return True

    def restore(self, name: str) -> None:
        """Copy a copy over the files of the database, which stay the same files."""
        copy, _ = self._saved[name]
        path = self.store.files.path
        self.close()
        for log in ("canister.db-wal", "canister.db-shm"):
            path.joinpath(log).unlink(missing_ok=True)
        for file in copy.iterdir():  # whoever looked into the copy may have left it without a log
            shutil.copyfile(file, path / file.name)
        self._open(path)

    def erase(self) -> None:
        """Go on with an empty directory."""
        self._saved.clear()
        self.close()
        self._open(self._fresh())

    def tidy(self) -> None:
        """Move the write-ahead log into the database."""
        self.store.checkpoint()

    def close(self) -> None:
        """Close the store as if its process had been killed."""
        self.store.close()
        self._keeper.connection.close()

    def _open(self, path: Path) -> None:
        self.store = SqliteStore(path, self._config, self._clock, self._draw)
        self._keeper = _keep(self.store.files.database)

    def _fresh(self) -> Path:
        self._count += 1
        return self._directory / str(self._count)


def _keep(database: Path) -> Handle:
    """Return a connection that, closed last, leaves the write-ahead log behind as a killed process does."""
    handle = connect(database, full=False)
    handle.connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    handle.execute("SELECT count(*) FROM meta").fetchone()  # only now does it use the log
    return handle
