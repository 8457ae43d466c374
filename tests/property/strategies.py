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
    make_version,
)

small = st.integers(0, 6)
versions = st.sampled_from([make_version(stamp, node) for stamp in range(7) for node in (A, B, C)])
births = st.builds(Birth, versions, small, st.integers(1, 6), small, small, small)
expiries = st.builds(Expiry, versions, st.none() | small, small, st.none() | small)
touches = st.builds(Touch, versions, small)
destroys = st.builds(Destroy, versions, small)

slots = st.sampled_from([slot(name, space) for name in "xy" for space in (KEY, IDENTITY, META)])
cells = st.dictionaries(
    slots, st.builds(Cell, versions, st.none() | st.sampled_from([b"", b"1", b"2"])), max_size=3
)

undestroyed = st.builds(
    Record,
    birth=st.none() | births,
    expiry=st.none() | expiries,
    reach=small,
    touch=st.none() | touches,
    clear=st.none() | versions,
    cells=cells,
)
destroyed = st.builds(
    lambda record, destroy: Record(destroy=destroy, touch=record.touch, cells=record.cells),
    undestroyed,
    destroys,
)
records = undestroyed | destroyed
"""Any record at all, also such as no commit writes."""
