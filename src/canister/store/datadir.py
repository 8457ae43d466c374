"""The data directory: making it, checking it before anything is written, and naming its history."""

import os
import struct
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import apsw

from canister.config import Config
from canister.errors import (
    ConfigError,
    CorruptDatabaseError,
    ForeignDatabaseError,
    NewerFormatError,
    StoreError,
)
from canister.record import NodeId
from canister.store.cache import FILE_BYTES, make_counts, outdate
from canister.store.connections import connect, explain, retrying
from canister.store.history import Use, incarnate, set_meta
from canister.store.notes import Notes
from canister.store.peeking import in_use, peek
from canister.store.shared import make_room
from canister.store.turn import WriteTurn
from canister.store.wal import pages_in_log

FORMAT = 4
APPLICATION_ID = 0x43414E49  # "CANI"
_SETTINGS = "SELECT key, value FROM meta WHERE key IN ('cluster', 'durability')"
_MAGIC = b"SQLite format 3\x00"
_PAGE_SIZE_AT, _PAGES_AT, _FORMAT_AT, _APPLICATION_AT = 16, 28, 60, 68


class DataDir:
    """The files of one node."""

    def __init__(self, path: Path) -> None:
        self.path = _resolved(path)
        self.database = self.path / "canister.db"
        self.write_lock = self.path / "write.lock"
        self.turn_lock = self.path / "turn.lock"
        self.use = Use(self.path / "use.lock")
        self.counts = self.path / "writes.map"
        self.agent_lock = self.path / "agent.lock"
        self.control_socket = self.path / "agent.sock"
        self.wake_socket = self.path / "wake.sock"
        self.wake_flag = self.path / "wake.flag"

    def is_there(self) -> bool:
        """Tell whether a data directory has been made here.

        Raises:
            StoreError: it may not be looked into.
        """
        try:
            self.database.stat()
        except PermissionError as error:
            raise StoreError(
                f"the data directory {self.path} may not be entered; check its owner and permissions"
            ) from error
        except OSError:
            return False
        return True

    def stored_settings(self) -> dict[str, Any]:
        """Return the settings that a directory keeps; none if it is not ours, which `open` tells.

        Raises:
            StoreError: it cannot be read.
        """
        try:
            connection = apsw.Connection(str(self.database), flags=apsw.SQLITE_OPEN_READONLY)
            try:
                connection.set_busy_timeout(5000)
                rows: Any = connection.execute(_SETTINGS)
                return dict(rows)
            finally:
                connection.close()
        except (apsw.SQLError, apsw.NotADBError, apsw.CorruptError):
            return {}
        except apsw.Error as error:
            raise explain(error, self.database) from error

    def open(self, config: Config, draw: Callable[[], NodeId]) -> NodeId:
        """Make what is missing, refuse what is not ours, and return the node id.

        Args:
            config: the node's settings.
            draw: draws a node id where a new one is needed.

        Raises:
            StoreError: one of its kinds; nothing that was there has been changed.
            ConfigError: the directory belongs to another cluster.
        """
        self._make()
        turn = WriteTurn(self.write_lock, self.turn_lock, bytearray(2))

        def begin() -> NodeId:
            turn.begin(alone=True)
            return self._begin(config, draw)

        try:
            return turn.run(begin)
        finally:
            turn.close()

    def _begin(self, config: Config, draw: Callable[[], NodeId]) -> NodeId:
        """Begin to use the directory; nobody else begins, or writes."""
        if not self.database.exists():
            self._create(config)
        self._check_header()
        try:
            self.use.begin()
            if not self.use.is_first:
                self._check_shared()
            notes = Notes(self.write_lock)
            before = notes.node()
            with in_use(self.database):
                node = self._incarnate(config, draw, notes)
            if self.use.is_first:  # a backup may have been put back, and a power cut have taken commits
                make_counts(self.counts)
                make_room(self.turn_lock, 1)  # known by it from one that is made by whoever looks for it
            elif node != before:  # so it was, and a child that some process has left uses the directory still
                outdate(self.counts)
            self.use.share()
        except apsw.Error as error:
            self.use.end()
            raise explain(error, self.database) from error
        except OSError as error:
            self.use.end()
            raise StoreError(f"{error.filename or self.path} cannot be used: {error.strerror}") from error
        except BaseException:
            self.use.end()
            raise
        return node

    def _make(self) -> None:
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"the data directory {self.path} cannot be made: {error.strerror}") from error
        if not os.access(self.path, os.W_OK | os.X_OK):
            raise StoreError(
                f"the data directory {self.path} is not writable; check its owner and permissions"
            )

    def _create(self, config: Config) -> None:
        """Build the database beside its place and move it there, so that it is never seen half made."""
        if self.path.joinpath("canister.db-wal").exists():
            raise CorruptDatabaseError(
                f"{self.database} is missing, but its write-ahead log is there; put it back or move both away"
            )
        fresh = self.database.with_suffix(".new")
        try:
            for leftover in self.path.glob("canister.new*"):
                leftover.unlink()
            os.close(os.open(fresh, os.O_CREAT | os.O_EXCL, 0o600))
            handle = connect(fresh, full=True)
            handle.execute("PRAGMA page_size=4096")
            handle.execute("PRAGMA journal_mode=WAL")
            with handle.connection:
                handle.execute(files("canister.store").joinpath("schema.sql").read_text("utf-8"))
                handle.execute(f"PRAGMA application_id={APPLICATION_ID}")
                handle.execute(f"PRAGMA user_version={FORMAT}")
                set_meta(handle, "cluster", config.cluster)
            handle.connection.close()
            fresh.rename(self.database)
        except apsw.Error as error:
            raise explain(error, fresh) from error
        except OSError as error:
            raise StoreError(f"{self.database} cannot be made: {error.strerror}") from error

    def _check_header(self) -> None:
        """Look at the file's first bytes before SQLite does, which might write to it."""
        header = self._header()
        if len(header) < 100:
            raise CorruptDatabaseError(
                f"{self.database} is truncated, its header is missing; it was left untouched; "
                "move it away to begin anew"
            )
        (application,) = struct.unpack_from(">I", header, _APPLICATION_AT)
        (version,) = struct.unpack_from(">I", header, _FORMAT_AT)
        if not header.startswith(_MAGIC) or application != APPLICATION_ID:
            raise ForeignDatabaseError(
                f"{self.database} is not a Canister database; it was left untouched; choose another directory"
            )
        if version > FORMAT:
            raise NewerFormatError(
                f"{self.database} has format {version}, this release reads {FORMAT}; upgrade Canister"
            )
        if version < FORMAT:
            raise StoreError(
                f"{self.database} has format {version}, from before the first release; it was left "
                "untouched; move its directory away: the sessions come back from the other members"
            )
        # A checkpoint under way may have begun the log anew between two looks.
        if not retrying(self._is_whole, seconds=1.0):
            raise CorruptDatabaseError(
                f"{self.database} is shorter than its header says: truncated; it was left untouched; "
                "move the data directory away and start again: the sessions come back from the other members"
            )

    def _check_shared(self) -> None:
        """Refuse to go on without what all share who use the directory; an empty file has just been made."""
        shared = (self.counts, self.write_lock, self.turn_lock)
        if gone := [file.name for file in shared if not file.exists() or not file.stat().st_size]:
            raise StoreError(
                f"{' and '.join(gone)} in {self.path} was removed while it was in use; stop all processes of "
                "this node, then start them again"
            )
        if self.counts.stat().st_size != FILE_BYTES:
            raise StoreError(
                f"{self.path} is in use by another release of Canister; stop all processes of this node, "
                "then start them again"
            )

    def _header(self) -> bytes:
        try:
            return peek(self.database, "", 100)
        except OSError as error:
            raise StoreError(f"{self.database} cannot be read: {error.strerror}") from error

    def _is_whole(self) -> bool:
        """Tell whether all pages are there; the last ones are in the log where a checkpoint was cut short."""
        header = self._header()
        (size,) = struct.unpack_from(">H", header, _PAGE_SIZE_AT)
        (pages,) = struct.unpack_from(">I", header, _PAGES_AT)
        here = self.database.stat().st_size // (65536 if size == 1 else size)
        return here >= pages or pages_in_log(self.database).issuperset(range(here + 1, pages + 1))

    def _incarnate(self, config: Config, draw: Callable[[], NodeId], notes: Notes) -> NodeId:
        handle = connect(self.database, full=True)
        try:
            # Closing must not write: the database may be refused.
            handle.connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            if handle.connection.pragma("user_version") > FORMAT:  # still in the write-ahead log
                raise NewerFormatError(f"{self.database} was written by a newer release; upgrade Canister")
            found = handle.execute("SELECT value FROM meta WHERE key = 'cluster'").fetchone()
            cluster = found[0] if found else None
            if cluster != config.cluster:
                raise ConfigError(
                    f"{self.path} belongs to cluster {cluster!r}, not {config.cluster!r}; "
                    "set cluster to that name or choose another directory"
                )
            return incarnate(handle, self.database, config, draw, self.use, notes)
        finally:
            handle.connection.close()


def _resolved(path: Path) -> Path:
    """Return the path as it is without links, whatever the working directory will be.

    Raises:
        ConfigError: it can be the path of no database.
        StoreError: there is no working directory, or its links lead nowhere.
    """
    try:
        resolved = path.resolve()
        str(resolved).encode()  # SQLite takes no other names
    except ValueError as error:  # a NUL byte, or one that is no UTF-8
        raise ConfigError(f"the data directory {str(path)!r} has no valid name: {error}") from error
    except RuntimeError as error:  # a loop of symbolic links; from Python 3.13 on to make it says so
        raise StoreError(f"the data directory {path} cannot be used: {error}") from error
    except OSError as error:
        raise StoreError(f"the data directory {path} cannot be found: {error.strerror}") from error
    return resolved
