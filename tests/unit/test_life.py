from dataclasses import dataclass

import msgspec
import pytest
from tests.records import at, birth, cells, slot, touch

from canister.life import (
    NEVER,
    Status,
    accessed,
    deadline,
    hard_end,
    has_keys,
    interval_of,
    is_live,
    last_retention,
    retention,
    status,
    updated,
)
from canister.record import EMPTY, IDENTITY, META, Cell, Destroy, Expiry, Record, merge

# Born at 1000: idle 200, touch interval 10, absolute 10,000, grace 600.
SESSION = Record(birth=birth(1000), reach=210, touch=touch(1100), cells=cells(1050, k=b"1"))
TOMBSTONE = Record(destroy=Destroy(at(5), 9000))


def with_expiry(idle: int | None = None, until: int | None = None, reach: int = 210) -> Record:
    return msgspec.structs.replace(SESSION, expiry=Expiry(at(1060), idle, 30, until), reach=reach)


@dataclass
class Ends:
    """When a record ends, by each of the functions."""

    deadline: int
    retention: int
    hard_end: int = 11_000


@pytest.mark.parametrize(
    ("record", "ends"),
    [
        pytest.param(SESSION, Ends(1310, 1910), id="idle"),
        pytest.param(with_expiry(), Ends(1310, 1910), id="as at birth"),
        pytest.param(with_expiry(idle=20), Ends(1150, 1910), id="shorter idle keeps its data"),
        pytest.param(with_expiry(idle=500, reach=530), Ends(1630, 2230), id="longer idle"),
        pytest.param(with_expiry(until=1200), Ends(1200, 1910), id="until"),
        pytest.param(with_expiry(until=5000), Ends(1310, 1910), id="until after idle"),
        pytest.param(with_expiry(until=0), Ends(0, 1910), id="until long ago"),
        pytest.param(
            with_expiry(idle=50_000, reach=50_030),
            Ends(11_000, 11_600),
            id="never past the absolute lifetime",
        ),
        pytest.param(TOMBSTONE, Ends(0, 9000, 0), id="tombstone"),
        pytest.param(EMPTY, Ends(0, 0, 0), id="nothing"),
        pytest.param(Record(touch=touch(5)), Ends(0, 0, 0), id="unborn"),
    ],
)
def test_ends(record: Record, ends: Ends) -> None:
    """Deadline, retention and hard end follow from the facts alone."""
    assert Ends(deadline(record), retention(record), hard_end(record)) == ends


def test_times_in_force() -> None:
    """The touch interval comes from the session's own times, else from its birth."""
    assert (interval_of(SESSION), accessed(SESSION)) == (10, 1100)
    assert interval_of(with_expiry()) == 10
    assert interval_of(with_expiry(idle=5)) == 30
    assert interval_of(with_expiry(idle=0)) == 30
    assert (interval_of(EMPTY), accessed(EMPTY)) == (0, 0)


def test_last_retention() -> None:
    """Without a reconcile the data goes when no clock and no late touch can bring the session back."""
    assert last_retention(SESSION, drift=60) == 11_000 + 600 + 120
    assert last_retention(TOMBSTONE, drift=60) == 9000
    assert last_retention(EMPTY, drift=60) == 120


def test_last_retention_is_never_before_retention() -> None:
    """The hard end is not earlier than the retention, whatever the idle timeout."""
    record = with_expiry(idle=10**9, reach=10**9)
    assert last_retention(record, drift=0) == retention(record)


CLEARED = Record(birth=birth(1000), reach=210, touch=touch(1100), clear=at(1100))


@pytest.mark.parametrize(
    ("record", "now", "expected"),
    [
        (None, 0, Status.UNKNOWN),
        (EMPTY, 0, Status.UNKNOWN),
        (SESSION, 1309, Status.LIVE),
        (SESSION, 1310, Status.EXPIRED),
        (SESSION, 1909, Status.EXPIRED),
        (SESSION, 1910, Status.UNKNOWN),
        (CLEARED, 1309, Status.CLEARED),
        (CLEARED, 1310, Status.EXPIRED),
        (merge(CLEARED, Record(cells=cells(1200, k=b"1"))), 1309, Status.LIVE),
        (merge(CLEARED, Record(cells=cells(1200, k=None))), 1309, Status.CLEARED),
        (merge(CLEARED, Record(cells={slot("u", IDENTITY): Cell(at(1200), b"")})), 1309, Status.CLEARED),
        (TOMBSTONE, 8999, Status.DESTROYED),
        (TOMBSTONE, 9000, Status.UNKNOWN),
    ],
)
def test_status(record: Record | None, now: int, expected: Status) -> None:
    """The status changes exactly at deadline and retention."""
    assert status(record, now) is expected
    assert is_live(record, now) is (expected in (Status.LIVE, Status.CLEARED))


def test_has_keys() -> None:
    """Only the application's keys count, and removed ones do not."""
    assert has_keys(SESSION)
    assert not has_keys(Record(cells=cells(5, k=None)))
    assert not has_keys(Record(cells={slot("s", META): Cell(at(5), b"1")}))


def test_updated() -> None:
    """The last update is the newest write, removal or clear of keys; other cells do not count."""
    assert updated(EMPTY) == 0
    assert updated(SESSION) == 1050
    assert updated(CLEARED) == 1100
    assert updated(Record(cells=cells(70, a=b"") | cells(80, b=None))) == 80
    assert updated(Record(cells={slot("u", IDENTITY): Cell(at(99), b"1")})) == 0
    assert updated(Record(clear=at(60), cells=cells(70, a=b""))) == 70


def test_never() -> None:
    """No instant that a record may hold is later."""
    assert deadline(with_expiry(until=NEVER)) < NEVER
