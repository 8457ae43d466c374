"""Records as Hypothesis makes them, from so few stamps, nodes and keys that they often collide."""

from hypothesis import strategies as st
from tests.records import A, B, C, slot

from canister.record import (
    IDENTITY,
    KEY,
    META,
    Birth,
    Cell,
    Destroy,
    Expiry,
    Record,
    Touch,
    Version,
    make_version,
)

small = st.integers(0, 6)
versions = st.sampled_from([make_version(stamp, node) for stamp in range(7) for node in (A, B, C)])
slots = st.sampled_from([slot(name, space) for name in "xy" for space in (KEY, IDENTITY, META)])
contents = st.none() | st.sampled_from([b"", b"1", b"2"])
births = st.builds(Birth, versions, small, st.integers(1, 6), small, small, small)


def undestroyed_of(
    versions: st.SearchStrategy[Version], small: st.SearchStrategy[int]
) -> st.SearchStrategy[Record]:
    """Return records without a tombstone whose facts have such versions and numbers."""
    return st.builds(
        Record,
        birth=st.none() | births,
        expiry=st.none() | st.builds(Expiry, versions, st.none() | small, small, st.none() | small),
        reach=small,
        touch=st.none() | st.builds(Touch, versions, small),
        clear=st.none() | versions,
        cells=st.dictionaries(slots, st.builds(Cell, versions, contents), max_size=3),
    )


undestroyed = undestroyed_of(versions, small)
destroyed = st.builds(
    lambda record, destroy: Record(destroy=destroy, touch=record.touch, cells=record.cells),
    undestroyed,
    st.builds(Destroy, versions, small, st.booleans()),
)
records = undestroyed | st.deferred(lambda: undestroyed) | destroyed
"""Any record at all, also such as no commit writes."""

conflicting = undestroyed_of(st.just(make_version(1, A)), st.integers(0, 1))
"""Records that only a node whose id was used twice can write: one version, several contents."""
