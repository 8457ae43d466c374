"""An exception of a signal handler may come after any call: it must leave a store as whole as a kill does."""

import contextlib
import fcntl
import sys
from collections.abc import Callable
from contextlib import closing
from functools import partial
from itertools import count
from pathlib import Path
from types import FrameType

import pytest

import canister.store
from canister.config import Config
from canister.record import decode_record
from canister.store import wal
from canister.store.rows import GET, place_of
from canister.store.sqlite import SqliteStore
from canister.testing.contract import put, values, visible

SESSION = b"s"
TRACED = (str(Path(canister.store.__file__).parent), contextlib.__file__)


class InterruptError(BaseException):
    """What the signal handler raises."""


def interrupted(act: Callable[[], object], at: int) -> bool:
    """Run *act* and interrupt it when a function of the store begins or a call ends the *at*-th time.

    There Python looks for signals. Returns whether it came to that.
    """
    left = at

    def look(frame: FrameType, event: str, argument: object) -> None:
        nonlocal left
        if event in ("call", "return", "c_return") and frame.f_code.co_filename.startswith(TRACED):
            left -= 1
            if left < 0:
                raise InterruptError

    sys.setprofile(look)
    try:
        act()
    except InterruptError:
        return True
    finally:
        sys.setprofile(None)
    return False


def is_free(path: Path) -> bool:
    """Tell whether a process could lock a file now."""
    with path.open() as file, contextlib.suppress(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def stored(store: SqliteStore) -> dict[bytes, bytes | None]:
    """Return what the database holds of the session."""
    found = store._one(GET, (place_of(SESSION), SESSION))
    cells = decode_record(found[1]).cells if found else {}
    return {slot[1:].decode(): cell.value for slot, cell in cells.items()}


def merge(store: SqliteStore, number: int) -> None:
    """Write what does not come from edits."""
    store.merge([(SESSION, visible(store, SESSION)), (b"other", visible(store, SESSION))], {})
    store.set_doubts(number)


def checkpoint(store: SqliteStore, number: int) -> None:
    """Move the log while writers wait."""
    store.checkpoint()


def write(store: SqliteStore, number: int) -> None:
    """Commit."""
    put(store, SESSION, k=b"%d" % number)


@pytest.mark.parametrize("act", [write, merge, checkpoint])
def test_interrupted_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, act: Callable[[SqliteStore, int], None]
) -> None:
    """All goes on: no lock is held, no connection lost, no write lost, and nothing old is read."""
    monkeypatch.setattr(wal, "_LARGE_LOG", 0)
    with closing(SqliteStore(tmp_path, Config())) as one, closing(SqliteStore(tmp_path, Config())) as two:
        for number in range(3):
            put(one, SESSION, k=b"%d" % number)
            assert values(two, SESSION) == {"k": b"%d" % number}
        one._pool._close_idle()  # to connect may be interrupted as well
        for at in count():
            goes_on = interrupted(partial(act, one, at), at)
            assert not one._turn._mutex.locked()
            assert is_free(one.files.write_lock)
            assert is_free(one.files.turn_lock)
            assert len(one._pool._handles) == len(one._pool._idle)
            for store in (two, one, two):
                before = values(store, SESSION)
                assert before == stored(store)
                put(store, SESSION, k=b"%d" % at, n=b"%d" % (int(before.get("n", 0)) + 1))
            assert values(one, SESSION)["n"] == b"%d" % (3 * at + 3)
            if not goes_on:
                break
    assert at > 50
