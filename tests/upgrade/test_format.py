"""Data directories of every format that a release has written, opened by this one."""

import shutil
import sqlite3
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from tests.upgrade.contents import BEGIN, END, HEARD, MEMBERS, META_SLOT, MINUTE, VALUES
from tests.upgrade.make_fixtures import digest

from canister import Canister, CanisterError
from canister.clock import DAY, instant, to_datetime
from canister.codec import encode_id
from canister.config import Config
from canister.errors import NewerFormatError
from canister.life import Status
from canister.record import IDENTITY, Slot, decode_record, encode_record
from canister.store.base import BUCKETS
from canister.store.datadir import FORMAT
from canister.store.sqlite import SqliteStore
from canister.testing.clock import ManualClock

FIXTURE = Path(__file__).parent / "format-4"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Return a data directory with the database of format 4."""
    path = tmp_path / "node"
    path.mkdir(mode=0o700)
    shutil.copyfile(FIXTURE / "canister.db", path / "canister.db")
    return path


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(END)


@pytest.fixture
def canister(directory: Path, clock: ManualClock) -> Iterator[Canister]:
    with Canister(directory, agent=False, clock=clock) as canister:
        yield canister


def contents(directory: Path) -> dict[str, bytes]:
    """Return all files but the locks, which hold no sessions."""
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.suffix != ".lock"}


def test_values_of_every_type(canister: Canister) -> None:
    """Equal and of the same type, under keys of every type."""
    data = canister.get_data("values", local=True)
    assert data == VALUES
    assert list(map(type, data.values())) == [type(VALUES[key]) for key in data]
    assert data["zone"].fold == 1
    assert str(data["decimal"]) == "-1.50E+3"


@pytest.mark.parametrize(
    ("session", "data"),
    [
        (b"\x00bytes id\xff", {"k": "bytes"}),
        ("0123456789abcdef" * 2, {"k": "hex digits"}),
        ("changed", {"k": 2, "l": [1]}),
        ("refilled", {"new": 2}),
        ("expiry", {"k": 1}),
        ("metadata", {"k": 5}),
        ("touched", {"k": 1}),
        ("from peer", {"k": "peer"}),
        ("partly held", {"k": "now"}),
        *((name, {}) for name in ("expired", "purgeable", "cleared", "destroyed", "never here", "held")),
    ],
)
def test_sessions_of_every_kind(canister: Canister, session: str | bytes, data: dict[str, object]) -> None:
    """What is live is here; what was removed, cleared, destroyed, over or is held back is not."""
    assert canister.get_data(session, local=True) == data


def test_states_and_times(canister: Canister) -> None:
    """Each state is what it was, with its times."""
    states = {
        "values": Status.LIVE,
        "expired": Status.EXPIRED,
        "purgeable": Status.EXPIRED,
        "cleared": Status.CLEARED,
        "destroyed": Status.DESTROYED,
        "never here": Status.DESTROYED,
        "destroyed by peer": Status.DESTROYED,
        "held": Status.UNKNOWN,
        "nobody": Status.UNKNOWN,
    }
    assert {name: canister.record_status(name).status for name in states} == states
    touched = canister.session_info("touched")
    assert touched is not None
    assert (touched.created, touched.accessed) == (
        to_datetime(END - 10 * MINUTE),
        to_datetime(END - 5 * MINUTE),
    )
    expiry = canister.session_info("expiry")
    assert expiry is not None
    assert expiry.ends - expiry.created == timedelta(hours=2, minutes=6)
    assert instant(expiry.created) == BEGIN + 45 * MINUTE


def test_metadata(canister: Canister) -> None:
    """Hashes and the user's name are beside the keys, out of `get_data`."""
    record = canister.node.store.load(encode_id("metadata")).record
    assert record is not None
    assert record.cells[META_SLOT].value == b"\x01"
    assert record.cells[Slot(IDENTITY + b"user")].value == b"\xa3eva"


def test_what_was_held_is_shown_when_its_time_has_come(canister: Canister, clock: ManualClock) -> None:
    """Rows from a fast clock: held then, released by this release."""
    store = canister.node.store
    assert [store.load(encode_id(name)).held for name in ("held", "partly held", "values")] == [
        True,
        True,
        False,
    ]
    assert store.release() == 0
    clock.set(END + 10 * MINUTE)
    assert store.release() == 2
    assert (
        canister.get_data("held", local=True)
        == canister.get_data("partly held", local=True)
        == {"k": "later"}
    )


def test_what_was_heard_and_who_is_known(canister: Canister) -> None:
    """A node that comes up with a new release still knows what it may vouch for, and its members."""
    store = canister.node.store
    assert {node: store.heard_of(node) for node in HEARD} == HEARD
    assert store.members() == MEMBERS


def test_the_digest_is_what_it_was(canister: Canister) -> None:
    """While releases are mixed, equal nodes must find themselves equal."""
    assert digest(canister.node.store, END).hex() == (FIXTURE / "digest.txt").read_text().strip()


def test_records_are_made_as_they_were(canister: Canister) -> None:
    """What is read and written again has the same bytes, and so the same digest."""
    with canister.node.store.snapshot() as snapshot:
        found = [whole for _, whole in snapshot.all(range(BUCKETS), 0)]
    assert [encode_record(decode_record(whole)) for whole in found] == found
    assert len(found) == 17


def test_life_goes_on(canister: Canister, clock: ManualClock) -> None:
    """It is written to, swept and opened again; stamps go on from where they were."""
    store = canister.node.store
    with store.snapshot() as snapshot:
        before = snapshot.last_stamp()
    assert END - 5 * MINUTE <= before <= END
    canister.put("values", "int", 43)
    canister.destroy("changed")
    with pytest.raises(CanisterError):
        canister.put("destroyed", "k", 1)
    clock.advance(40 * DAY)
    assert store.sweep(clock.now(), 100, destroyed=False) > 5
    assert canister.record_status("never here").status is Status.DESTROYED
    with store.snapshot() as snapshot:
        assert snapshot.last_stamp() > before


@pytest.mark.parametrize("in_log", [False, True], ids=["header", "write-ahead-log"])
def test_a_newer_format_is_refused_without_harm(directory: Path, in_log: bool) -> None:
    """A newer release's database is named as such, and no byte of it changes."""
    database = directory / "canister.db"
    connection = sqlite3.connect(database)
    connection.execute(f"PRAGMA user_version = {FORMAT + 1}")
    connection.execute("CREATE TABLE newer (it TEXT)")
    connection.commit()
    if not in_log:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()
    before = contents(directory)
    assert ("canister.db-wal" in before) == in_log
    for _ in range(2):
        with pytest.raises(NewerFormatError, match="newer release" if in_log else f"has format {FORMAT + 1}"):
            SqliteStore(directory, Config())
    after = contents(directory)
    connection.close()
    for name in before.keys() - {"canister.db-shm"}:  # whose locks and marks are no data
        assert after[name] == before[name], name
