"""The write-ahead log: syncing it, and moving it into the database."""

import os
import struct
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import apsw

from canister.errors import StoreError
from canister.store.connections import Pool
from canister.store.peeking import sync
from canister.store.turn import WriteTurn

_LARGE_LOG = 8192
"""Pages of a write-ahead log, 32 MB, from which it is begun anew though writers have to wait."""
_PASSES = 3
"""How often pages are moved before writers wait: each time only those written during the time before."""
_HEADER = struct.Struct(">8xI4x8s8x")
"""Of the log: the size of its pages, and the salts of its frames."""
_FRAME = struct.Struct(">II8s8x")
"""Of a page in the log: its number, how many pages there are after the commit that it ends, and its salts."""
_LOOKS, _BETWEEN_LOOKS = 10, 0.001
"""How often a log is looked at that is being written to, and seconds between two looks."""


def checkpoint(database: Path, pool: Pool, turn: WriteTurn) -> bool:
    """Move the write-ahead log into the database; return whether that could be begun.

    Under writers without a pause it would never be empty, and so never begin anew: once it has grown
    large they wait for the last pages, those written while the others were moved. SQLite then syncs the
    database, so all that can be on the disk before is: they wait for a few pages, not for thousands.
    """

    def finish() -> None:
        turn.begin(alone=True)
        _move_log(pool)

    in_log = _move_log(pool)
    if in_log > _LARGE_LOG:
        for _ in range(_PASSES):
            with _syncing(database):
                sync(database)
            _move_log(pool)
        turn.run(finish)
    return in_log >= 0


def sync_log(database: Path) -> None:
    """Wait until what was committed is on the disk."""
    log = database.with_name("canister.db-wal")
    with _syncing(log):
        try:
            handle = os.open(log, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            database.stat()
            return  # the last connection has moved all into the database, synced it and taken the log away
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def pages_in_log(database: Path) -> set[int]:
    """Return the numbers of the pages that the write-ahead log holds (sqlite.org/fileformat2.html, 4.1).

    Raises:
        OSError: it cannot be read.
    """
    committed: set[int] = set()
    written: set[int] = set()
    log = database.with_name("canister.db-wal")
    if not log.exists():
        return committed
    with log.open("rb") as file:
        header = file.read(_HEADER.size)
        if len(header) < _HEADER.size:
            return committed
        size, salts = _HEADER.unpack(header)
        while len(frame := file.read(_FRAME.size + size)) == _FRAME.size + size:
            page, ends, own_salts = _FRAME.unpack_from(frame)
            if own_salts != salts:  # of the log before it was begun anew
                break
            written.add(page)
            if ends:
                committed |= written
                written = set()
    return committed


@contextmanager
def _syncing(path: Path) -> Generator[None, None, None]:
    """Explain why a file cannot be synced."""
    try:
        yield
    except OSError as error:
        raise StoreError(f"{path} cannot be synced: {error.strerror}") from error


def _move_log(pool: Pool) -> int:
    """Move what is committed into the database; return how many pages the write-ahead log has.

    SQLite calls the database locked where it looks at the header of the log just while a writer changes that,
    and waits for nobody. So it is asked again some times; after that -1 is returned.
    """
    # Lent for this only: a writer has its turn before it has a connection, and a fork waits for both.
    with pool.lend() as handle:
        for _ in range(_LOOKS):
            try:
                in_log, _ = handle.connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
            except apsw.BusyError:
                time.sleep(_BETWEEN_LOOKS)
            else:
                return in_log
    return -1
