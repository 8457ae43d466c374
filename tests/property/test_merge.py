from functools import reduce

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.property.strategies import births, conflicting, destroyed, records, undestroyed, versions
from tests.records import POLICY, A, at

import canister.record
from canister.edits import Moment, destroy
from canister.life import accessed, deadline, hard_end, last_retention, retention
from canister.record import (
    EMPTY,
    META,
    Cell,
    Expiry,
    Record,
    Slot,
    Version,
    encode_record,
    make_version,
    merge,
)

laws = settings(deadline=None, max_examples=60)

parts = st.lists(undestroyed, min_size=1, max_size=4)
born = st.builds(lambda record, birth: msgspec.structs.replace(record, birth=birth), undestroyed, births)


def merged(several: list[Record]) -> Record:
    return reduce(merge, several, EMPTY)


@given(records, records)
@laws
def test_merge_is_commutative(a: Record, b: Record) -> None:
    """It does not matter which of two copies is merged into which."""
    assert merge(a, b) == merge(b, a)


@given(conflicting, conflicting, conflicting)
@example(
    Record(expiry=Expiry(at(1), None, 1, None)),
    Record(expiry=Expiry(at(1), 0, 1, None)),
    Record(expiry=Expiry(at(1), 0, 1, 0)),
)
@laws
def test_one_version_with_two_contents(a: Record, b: Record, c: Record) -> None:
    """R5: even where a version was drawn twice, all nodes decide alike."""
    assert merge(a, b) == merge(b, a)
    assert merge(merge(a, b), c) == merge(a, merge(b, c))


commits = st.builds(lambda record: Record(touch=record.touch, cells=record.cells), records)


@given(records, commits | records)
@laws
def test_the_short_way_is_no_other_way(a: Record, b: Record) -> None:
    """The commits that are merged by a short cut come out byte for byte as by the whole rule."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(canister.record, "_only_writes", lambda a, b: False)
        whole = merge(a, b)
    assert encode_record(merge(a, b)) == encode_record(whole)


@given(records, records, records)
@laws
def test_merge_is_associative(a: Record, b: Record, c: Record) -> None:
    """It does not matter in which groups copies are merged."""
    assert merge(merge(a, b), c) == merge(a, merge(b, c))


@given(records, records)
@laws
def test_merge_is_idempotent(a: Record, b: Record) -> None:
    """Merging again what was merged before changes nothing."""
    once = merge(a, b)
    assert merge(once, once) == once
    assert merge(once, a) == merge(once, b) == once


@given(records)
@laws
def test_nothing_is_neutral(a: Record) -> None:
    """Merging with nothing only brings a record into its normal form."""
    assert merge(merge(a, EMPTY), EMPTY) == merge(a, EMPTY)
    assert merge(a, EMPTY) == merge(a, a)


@given(parts, st.data())
@laws
def test_encoding_is_canonical(several: list[Record], data: st.DataObject) -> None:
    """Whatever way it came about, equal state has equal bytes."""
    again = data.draw(st.permutations(several + several[:2]))
    assert encode_record(merged(list(again))) == encode_record(merged(several))


@given(st.lists(records, max_size=4), destroyed, st.data())
@laws
def test_destroy_absorbs_everything(several: list[Record], tombstone: Record, data: st.DataObject) -> None:
    """I4: with a destroy among the parts, whatever their stamps, nothing but a tombstone is left."""
    together = [*several, tombstone]
    result = merged(list(data.draw(st.permutations(together))))
    tombstones = [record.destroy for record in together if record.destroy is not None]
    assert result.destroy is not None
    assert result == Record(destroy=result.destroy)
    assert result.destroy.version == max(one.version for one in tombstones)
    assert result.destroy.keep == max(one.keep for one in tombstones)


@given(parts, versions, st.data())
@laws
def test_clear_hides_what_is_older(several: list[Record], clear: Version, data: st.DataObject) -> None:
    """I5: a clear hides strictly older keys and identity, also when it arrives before them."""
    together = [*several, Record(clear=clear)]
    result = merged(list(data.draw(st.permutations(together))))
    clears = [record.clear for record in together if record.clear is not None]
    assert result.clear == max(clears)
    hideable = [cell for slot, cell in result.cells.items() if slot[:1] != META]
    assert all(cell.version >= max(clears) for cell in hideable)


@given(parts, st.data())
@laws
def test_each_slot_is_merged_by_itself(several: list[Record], data: st.DataObject) -> None:
    """I3: of each slot the greatest version survives, unless a newer clear hides it."""
    result = merged(list(data.draw(st.permutations(several))))
    clear = max((record.clear for record in several if record.clear is not None), default=b"")
    expected: dict[Slot, list[Cell]] = {}
    for slot in {slot for record in several for slot in record.cells}:
        written = [record.cells[slot] for record in several if slot in record.cells]
        greatest = max(cell.version for cell in written)
        if greatest >= clear or slot[:1] == META:
            expected[slot] = [cell for cell in written if cell.version == greatest]
    assert result.cells.keys() == expected.keys()
    assert all(result.cells[slot] in candidates for slot, candidates in expected.items())


@given(undestroyed, undestroyed)
@laws
def test_touch_never_goes_back(a: Record, b: Record) -> None:
    """The last access is the latest that anyone recorded."""
    assert accessed(merge(a, b)) == max(accessed(a), accessed(b))


@given(born, undestroyed)
@laws
def test_retention_is_never_lowered(a: Record, b: Record) -> None:
    """An older copy of a session past its retention is past it as well: merging only raises it."""
    both = merge(a, b)
    assert retention(both) >= max(retention(a), retention(b))
    assert hard_end(both) >= max(hard_end(a), hard_end(b))
    assert last_retention(both, 1) >= max(last_retention(a, 1), last_retention(b, 1))


@given(born)
@laws
def test_data_outlives_the_deadline(a: Record) -> None:
    """Data is kept at least until readers see the session end, if its reach covers its times."""
    idle = max(a.reach, *(x.idle + x.interval for x in (a.birth,) if x))
    if a.expiry is not None and a.expiry.idle is not None:
        idle = max(idle, a.expiry.idle + a.expiry.interval)
    record = msgspec.structs.replace(a, reach=idle)
    assert deadline(record) <= retention(record) <= last_retention(record, 0)


@given(born, undestroyed, st.integers(0, 20))
@laws
def test_tombstone_outlives_every_copy(a: Record, b: Record, now: int) -> None:
    """I9: a tombstone lives longer than any copy of the session that there can be."""
    copy = msgspec.structs.replace(b, birth=a.birth)
    tombstone = destroy(a, Moment(make_version(now, A), now), POLICY)
    assert retention(tombstone) >= retention(merge(a, copy))
    assert retention(merge(copy, tombstone)) == retention(tombstone)
