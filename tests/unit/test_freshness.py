from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.records import A, B, C, at, birth, cells, touch

from canister.errors import InputError
from canister.freshness import (
    MOST_ENTRIES,
    Fetched,
    decode_seen,
    encode_seen,
    missing,
    seen_in,
)
from canister.record import EMPTY, Destroy, NodeId, Record, Version

D = NodeId(b"node-D..")


def heard(**stamps: int) -> Any:
    known = {NodeId(f"node-{name}..".encode()): stamp for name, stamp in stamps.items()}
    return lambda node: known.get(node, 0)


def test_stamp_names_the_newest_version_of_each_node() -> None:
    """Of each node that wrote, the stamp names its newest version, newest first."""
    record = Record(birth=birth(1, A), touch=touch(9, B), cells=cells(5, A, k=b"1") | cells(3, B, j=b"1"))
    assert seen_in(record) == (at(9, B), at(5, A))


def test_stamp_has_three_entries_at_most() -> None:
    """Where more than three nodes wrote, the oldest are left out."""
    record = Record(clear=at(1, C), touch=touch(2, A), birth=birth(3, D), cells=cells(4, B, k=b"1"))
    assert seen_in(record) == (at(4, B), at(3, D), at(2, A))


def test_stamp_of_little() -> None:
    """Nothing has an empty stamp, a tombstone its own."""
    assert seen_in(EMPTY) == ()
    assert seen_in(Record(destroy=Destroy(at(7), 9))) == (at(7),)


def test_missing() -> None:
    """A version is missing unless all its node's commits up to it were heard."""
    stamp = (at(9, B), at(5, A), at(3, C))
    assert missing(stamp, heard(A=5, B=8)) == [at(9, B), at(3, C)]
    assert missing(stamp, heard(A=5, B=9, C=4)) == []
    assert missing((), heard()) == []


@pytest.mark.parametrize(
    ("fetched", "covered"),
    [
        pytest.param(Fetched([], everyone=False), False, id="nobody"),
        pytest.param(Fetched([], everyone=True), True, id="all members, though none knew"),
        pytest.param(Fetched([{A: 7}], everyone=False), False, id="only one origin"),
        pytest.param(Fetched([{A: 7}, {B: 9}], everyone=False), True, id="both origins"),
        pytest.param(Fetched([{A: 7, B: 9}], everyone=False), True, id="origin and one who heard"),
        pytest.param(Fetched([{A: 7, B: 8}], everyone=False), False, id="one who heard too little"),
        pytest.param(
            Fetched([{A: 7}, {B: 0}], everyone=False), False, id="an origin that has forgotten some"
        ),
        pytest.param(Fetched([{A: 5, B: 9}], everyone=False), True, id="a third who heard all"),
    ],
)
def test_covers(fetched: Fetched, covered: bool) -> None:
    """Answers suffice if for each version its origin or one who heard it answered, or all did."""
    assert fetched.covers([at(9, B), at(5, A)]) is covered


def test_nothing_missing_is_covered() -> None:
    """Where nothing is missing, no answer is needed."""
    assert Fetched([], everyone=False).covers([])


versions = st.binary(min_size=16, max_size=16).map(Version)


@given(st.lists(versions, max_size=MOST_ENTRIES).map(tuple))
def test_stamps_round_trip_as_text(stamp: tuple[Version, ...]) -> None:
    """A stamp travels as text that is safe in a cookie and a URL."""
    text = encode_seen(stamp)
    assert set(text) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
    assert decode_seen(text) == stamp


FOUR = encode_seen((at(1), at(2), at(3), at(4)))


@pytest.mark.parametrize("text", ["A", "AAAA", "AA AA", "ü", "=" * 4, "AAAA" * 5, "\ud800", FOUR])
def test_texts_that_are_no_stamps(text: str) -> None:
    """Anything but the text of a stamp is refused with the text."""
    with pytest.raises(InputError, match="is not a version") as caught:
        decode_seen(text)
    assert repr(text) in str(caught.value)


@given(st.text())
def test_arbitrary_text(text: str) -> None:
    """Arbitrary text is a stamp of at most three versions, or is refused."""
    with suppress(InputError):
        assert len(decode_seen(text)) <= MOST_ENTRIES
