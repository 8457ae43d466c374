from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.records import A, B, C, at, birth, cells, slot, touch

from canister.errors import ProtocolError
from canister.record import (
    EMPTY,
    IDENTITY,
    LATEST,
    META,
    Birth,
    Cell,
    Destroy,
    Expiry,
    Record,
    Slot,
    Touch,
    Version,
    check_record,
    decode_record,
    digest_of,
    encode_record,
    merge,
    newest,
    node_of,
    stamp_of,
    versions,
)

FULL = Record(
    birth=birth(1000),
    expiry=Expiry(at(1200, B), None, 10, 5000),
    reach=210,
    touch=touch(1300, C),
    clear=at(1100),
    cells=cells(1400, B, a=b"1", b=None) | {slot("h", META): Cell(at(1), b"hash")},
)


def test_versions_compare_like_their_stamps_and_nodes() -> None:
    """Versions are ordered by stamp first and by node id where stamps are equal."""
    shuffled = [at(256, A), at(2, B), at(2**40, A), at(1, C), at(255, A), at(2, A)]
    assert sorted(shuffled) == [at(1, C), at(2, A), at(2, B), at(255, A), at(256, A), at(2**40, A)]
    assert (stamp_of(at(2**40, B)), node_of(at(2**40, B))) == (2**40, B)


@pytest.mark.parametrize("record", [EMPTY, FULL, Record(destroy=Destroy(at(5), 9))])
def test_encoding_round_trip(record: Record) -> None:
    """A record comes back equal, and its bytes are canonical."""
    data = encode_record(record)
    assert decode_record(data) == record
    assert encode_record(decode_record(data)) == data


@pytest.mark.parametrize("data", [b"", b"\x01", b"\x91\x01", encode_record(FULL)[:-1], b"\x91" * 50_000])
def test_bytes_that_are_no_record(data: bytes) -> None:
    """Anything but a record's encoding is the sender's mistake."""
    with pytest.raises(ProtocolError, match="not a record"):
        decode_record(data)


@given(st.binary(max_size=60))
def test_arbitrary_bytes_are_no_record(data: bytes) -> None:
    """Arbitrary bytes raise ProtocolError or give a record."""
    with suppress(ProtocolError):
        decode_record(data)


def test_versions_and_newest() -> None:
    """Every fact counts: facts, clear and cells."""
    stamps = sorted(stamp_of(version) for version in versions(FULL))
    assert stamps == [1, 1000, 1100, 1200, 1300, 1400, 1400]
    assert newest(FULL) == 1400
    assert newest(Record(destroy=Destroy(at(5), 9))) == 5
    assert (newest(EMPTY), versions(EMPTY)) == (0, [])


def test_digest_depends_on_everything() -> None:
    """Another id, another content, another key, or a shifted boundary give another digest."""
    digests = {
        digest_of(b"s", b"record", b"k"),
        digest_of(b"t", b"record", b"k"),
        digest_of(b"s", b"recorD", b"k"),
        digest_of(b"s", b"record", b"K"),
        digest_of(b"sr", b"ecord", b"k"),
    }
    assert len(digests) == 5
    assert {len(digest) for digest in digests} == {16}


LATE = 2**63


@pytest.mark.parametrize(
    ("record", "why"),
    [
        (Record(clear=Version(b"short")), "length >= 16"),
        (Record(touch=Touch(Version(b""), 0)), "length >= 16"),
        (Record(cells={slot("a"): Cell(Version(b"x" * 17), b"")}), "length <= 16"),
        (Record(touch=Touch(at(5), 6)), "later than its own stamp"),
        (Record(birth=Birth(at(1), 1, 0, 1, 1, 1)), "int` >= 1"),
        (Record(birth=Birth(at(1), 1, 1, 0, 1, 1)), "int` >= 1"),
        (Record(birth=Birth(at(1), 1, 1, 1, -1, 1)), "int` >= 0"),
        (Record(birth=Birth(at(1), 1, 1, 1, 1, -1)), "int` >= 0"),
        (Record(birth=Birth(at(1), LATE, 1, 1, 1, 1)), "int` <="),
        (Record(birth=Birth(at(1), -9, 1, 1, 1, 1)), "int` >= 0"),
        (Record(birth=Birth(at(1), 1, 1, 1, 1, LATE)), "int` <="),
        (Record(birth=Birth(at(1), 1, 1, 1, 1, LATEST - 2)), "ends out of range"),
        (Record(destroy=Destroy(at(1), LATE)), "int` <="),
        (Record(touch=Touch(at(1), -1)), "int` >= 0"),
        (Record(reach=LATE), "int` <="),
        (Record(reach=-1), "int` >= 0"),
        (Record(cells={Slot(b""): Cell(at(1), b"")}), "length >= 1"),
        (Record(cells={Slot(b"zoo"): Cell(at(1), b"")}), "unknown name space"),
    ],
)
def test_impossible_records(record: Record, why: str) -> None:
    """A record that no correct node writes is refused with the reason."""
    with pytest.raises(ProtocolError, match=why):
        check_record(decode_record(encode_record(record)))


@pytest.mark.parametrize(
    "record",
    [
        EMPTY,
        FULL,
        Record(touch=Touch(at(5), 5)),
        Record(birth=Birth(at(1), 1, 1, 1, 0, 0)),
        Record(destroy=Destroy(at(5), 9)),
        Record(cells={slot("u", IDENTITY): Cell(at(1), None)}),
    ],
)
def test_possible_records(record: Record) -> None:
    """What nodes do write passes."""
    check_record(decode_record(encode_record(record)))


def test_merge_keeps_each_key() -> None:
    """Keys written on two sides all survive; on the same key the greatest version wins."""
    one = Record(cells=cells(5, A, x=b"1", same=b"old"))
    two = Record(cells=cells(5, B, y=b"2", same=b"new"))
    merged = merge(one, two)
    assert merged.cells == cells(5, A, x=b"1") | cells(5, B, same=b"new", y=b"2")


def test_merge_by_clear() -> None:
    """A clear hides strictly older keys and identity, and nothing else."""
    older = cells(4, k=b"old") | {slot("u", IDENTITY): Cell(at(4), b"me")}
    secret = {slot("s", META): Cell(at(1), b"hash")}
    same = cells(5, n=b"new")
    have = Record(birth=birth(1), touch=touch(4), cells=older | secret | same)
    merged = merge(have, Record(clear=at(5)))
    assert merged.cells == secret | same
    assert (merged.birth, merged.touch) == (have.birth, have.touch)


def test_merge_of_births_keeps_the_later_end() -> None:
    """Of two births the one that ends later counts, with the longer grace of both."""
    short = Birth(at(9, B), 1000, 50, 7, 1, 600)
    long = Birth(at(2, A), 900, 151, 5, 1, 10)
    assert merge(Record(birth=short), Record(birth=long)).birth == Birth(at(2, A), 900, 151, 5, 1, 600)
