"""Which of two links to the same peer stays, and what is known of the clock at its other end."""

import pytest

from canister.clock import SECOND
from canister.record import NodeId, Version
from canister.replication.link import Link
from canister.replication.messages import Hello
from canister.store.base import Member

SILENCE = 2 * SECOND


def link(address: str, opened: float, *, dialed: bool, incarnation: bytes = b"12345678") -> Link:
    member = Member(address, Version(b"v"), False, Version(b"v"), NodeId(b"n"))
    hello = Hello(1, 1, "canister", member, incarnation, 0, [])
    return Link(1, hello, int(opened * SECOND), ahead=0, dialed=dialed)


@pytest.mark.parametrize("first_stays", [True, False])
def test_of_links_that_crossed_both_ends_keep_the_same(first_stays: bool) -> None:
    """The one that the smaller address dialed, whichever came up first at either end."""
    dialed = first_stays  # by a, as a sees it
    at_a = link("b", 100.0, dialed=dialed), link("b", 100.1, dialed=not dialed)
    at_b = link("a", 100.0, dialed=not dialed), link("a", 100.1, dialed=dialed)
    assert at_a[0].outlives(at_a[1], "a", SILENCE) is first_stays
    assert at_b[0].outlives(at_b[1], "b", SILENCE) is first_stays


@pytest.mark.parametrize("dialed", [True, False])
def test_a_link_yields_to_who_dials_beside_it(dialed: bool) -> None:
    """The peer finds it silent, even if it is heard here, and both ends let go of it."""
    old, new = link("b", 100, dialed=dialed), link("b", 110, dialed=not dialed)
    old.last_received = new.opened
    assert not old.outlives(new, "a", SILENCE)
    assert not old.outlives(new, "c", SILENCE)


def test_a_link_yields_to_a_new_process_and_to_a_second_dial() -> None:
    """Neither can have crossed it."""
    old = link("b", 100, dialed=True)
    assert old.outlives(link("b", 101, dialed=False), "a", SILENCE)
    assert not old.outlives(link("b", 101, dialed=False, incarnation=b"another!"), "a", SILENCE)
    assert not old.outlives(link("b", 101, dialed=True), "a", SILENCE)


def test_a_silent_link_yields() -> None:
    """Also if the other one comes up soon."""
    old = link("b", 100, dialed=True)
    assert not old.is_silent(102 * SECOND, SILENCE)
    assert old.is_silent(102 * SECOND + 1, SILENCE)
    assert not old.outlives(link("b", 102.1, dialed=False), "a", SILENCE)


@pytest.mark.parametrize(
    ("found", "told", "offset"),
    [
        (5, None, 5),
        (-5, None, -5),
        (5, -6, 5),
        (-6, 5, -5),
        (-90, 0, 0),
        (-90, -3, 0),
        (-90, -90, 0),
        (0, 70, 0),
    ],
    ids=[
        "ahead",
        "behind, or its heartbeat was late",
        "ahead, said by both",
        "behind, said by both",
        "late",
        "late the other way too, a little",
        "late both ways",
        "this clock was set right, which the peer has not noticed yet",
    ],
)
def test_what_is_certain_of_a_clock(found: int, told: int | None, offset: int) -> None:
    """A message that was on its way for long says nothing of a clock."""
    peer = link("b", 100, dialed=True)
    peer.ahead, peer.told_ahead = found, told
    assert peer.clock_offset == offset
