from dataclasses import replace

import msgspec
import pytest
from tests.records import POLICY, at, birth, cells, slot, touch

from canister import edits
from canister.edits import LONGEST, Moment
from canister.errors import SessionDestroyedError, SessionEndedError
from canister.life import Status, deadline, is_live, retention, status
from canister.record import Birth, Destroy, Expiry, Record, Touch, merge

# Born at 1000: idle 200, touch interval 10, absolute 10,000, grace 600.
# Accessed at 1100: deadline 1310, retention 1910, hard end 11,000.
SESSION = Record(birth=birth(1000), reach=210, touch=touch(1100), cells=cells(1050, k=b"1"))
TOMBSTONE = Record(destroy=Destroy(at(1200), 9000))


def moment(now: int) -> Moment:
    return Moment(at(now), now)


def test_first_write_creates() -> None:
    """The first write brings birth, touch and reach with it, all under the commit's version."""
    made = edits.write(None, moment(1000), POLICY, {slot("b"): b"2", slot("a"): b"1"})
    assert made == Record(birth=birth(1000), reach=210, touch=touch(1000), cells=cells(1000, a=b"1", b=b"2"))
    assert list(made.cells) == [slot("a"), slot("b")]


def test_first_clear_creates() -> None:
    """A clear of an unknown session creates it, so that it covers what has not arrived yet."""
    made = edits.write(None, moment(1000), POLICY, {}, clear=True)
    assert (made.birth, made.clear) == (birth(1000), at(1000))


def test_write_on_a_live_session() -> None:
    """A write within the touch interval writes its keys and nothing else."""
    delta = edits.write(SESSION, moment(1109), POLICY, {slot("k"): b"2", slot("gone"): None})
    assert delta == Record(cells=cells(1109, gone=None, k=b"2"))


def test_write_counts_as_access() -> None:
    """A write touches where the touch interval has passed."""
    delta = edits.write(SESSION, moment(1110), POLICY, {slot("k"): b"2"})
    assert delta == Record(touch=touch(1110), cells=cells(1110, k=b"2"))


def test_write_by_the_sessions_own_interval() -> None:
    """The touch interval is the session's, not the node's."""
    own = msgspec.structs.replace(SESSION, expiry=Expiry(at(1000), 400, 90, None))
    assert edits.write(own, moment(1189), POLICY, {}).touch is None
    assert edits.write(own, moment(1190), POLICY, {}).touch == touch(1190)


def test_clear_of_a_live_session() -> None:
    """A clear hides what was there; keys written with it stay."""
    delta = edits.write(SESSION, moment(1105), POLICY, {slot("n"): b"2"}, clear=True)
    assert delta == Record(clear=at(1105), cells=cells(1105, n=b"2"))
    assert merge(SESSION, delta).cells == cells(1105, n=b"2")


@pytest.mark.parametrize("now", [1310, 1909])
def test_write_on_an_expired_session_starts_afresh(now: int) -> None:
    """Within the grace period a write hides the old keys and gives the session its times anew."""
    old = msgspec.structs.replace(SESSION, expiry=Expiry(at(1060), 200, 30, 1310))
    delta = edits.write(old, moment(now), POLICY, {slot("n"): b"2"})
    assert delta.birth is None
    whole = merge(old, delta)
    assert whole.birth == SESSION.birth
    assert whole.cells == cells(now, n=b"2")
    assert deadline(whole) == now + 210


def test_afresh_never_passes_the_hard_end() -> None:
    """Starting afresh again and again does not move the absolute end, and fails once that is over."""
    late = msgspec.structs.replace(SESSION, touch=touch(10_700))
    whole = merge(late, edits.write(late, moment(10_950), POLICY, {}))
    assert deadline(whole) == 11_000
    with pytest.raises(SessionEndedError, match="absolute lifetime"):
        edits.write(whole, moment(11_000), POLICY, {})


@pytest.mark.parametrize("clear", [False, True])
def test_write_on_a_destroyed_session(clear: bool) -> None:
    """A destroyed id takes no writes while the tombstone lives."""
    with pytest.raises(SessionDestroyedError, match="cannot be used again"):
        edits.write(TOMBSTONE, moment(8999), POLICY, {slot("k"): b"1"}, clear=clear)


@pytest.mark.parametrize("until", [None, 1200])
def test_write_over_a_leftover(until: int | None) -> None:
    """Past its retention a session is gone, swept or not: nothing of the former life is seen."""
    leftover = msgspec.structs.replace(SESSION, expiry=Expiry(at(1060), 50, 30, until))
    delta = edits.write(leftover, moment(1910), POLICY, {slot("n"): b"2"})
    whole = merge(leftover, delta)
    assert whole.birth == birth(1910)
    assert whole.cells == cells(1910, n=b"2")
    assert status(whole, 1910) is Status.LIVE
    assert deadline(whole) == 1910 + 210


def test_touch() -> None:
    """A touch records an access once the touch interval has passed since the last one."""
    assert edits.touch(SESSION, moment(1110), 1110) == Record(touch=touch(1110))
    assert edits.touch(SESSION, moment(1115), 1110) == Record(touch=Touch(at(1115), 1110))


@pytest.mark.parametrize(
    ("record", "now", "when"),
    [
        (None, 1100, 1100),
        (SESSION, 1109, 1109),
        (SESSION, 1200, 1050),
        (SESSION, 1310, 1310),
        (SESSION, 1310, 1200),
        (TOMBSTONE, 1250, 1250),
        (Record(), 1250, 1250),
    ],
)
def test_touch_of_nothing(record: Record | None, now: int, when: int) -> None:
    """A touch that comes too soon, lies in the past or finds no live session writes nothing."""
    assert edits.touch(record, moment(now), when) is None


def test_touch_without_an_interval() -> None:
    """With an interval of zero every later access counts, the same one again does not."""
    eager = msgspec.structs.replace(SESSION, birth=Birth(at(1000), 1000, 10_000, 200, 0, 600))
    assert edits.touch(eager, moment(1100), 1100) is None
    assert edits.touch(eager, moment(1101), 1101) == Record(touch=touch(1101))


def test_destroy() -> None:
    """The tombstone is kept for as long as any copy of the session could live, clocks apart."""
    assert edits.destroy(SESSION, moment(1200), POLICY) == Record(
        destroy=Destroy(at(1200), 11_000 + 600 + 2 * 60)
    )


def test_destroy_keeps_by_the_sessions_own_grace() -> None:
    """How long the tombstone lives is decided by the session's birth, not by this node's settings."""
    other = replace(POLICY, grace=1, absolute=1)
    made = edits.destroy(SESSION, moment(1200), other).destroy
    assert made is not None
    assert made.keep == 11_000 + 600 + 2 * 60


@pytest.mark.parametrize("record", [None, Record(cells=cells(1, k=b"1")), SESSION])
def test_destroy_of_an_unknown_session(record: Record | None) -> None:
    """Of what is not here, or past its retention, the tombstone lives as long as any session could."""
    made = edits.destroy(record, moment(1910), POLICY)
    assert made == Record(destroy=Destroy(at(1910), 1910 + LONGEST + 600 + 60))


def test_destroy_of_a_destroyed_session() -> None:
    """Destroying again does not shorten or lengthen the tombstone's life."""
    assert edits.destroy(TOMBSTONE, moment(1300), POLICY) == Record(destroy=Destroy(at(1300), 9000))


def test_destroy_outlives_the_session() -> None:
    """Whatever times a session was given, its tombstone stays longer than its data could."""
    longest = edits.set_expiry(SESSION, moment(1200), POLICY, 10_000, 11_000)
    assert longest is not None
    whole = merge(SESSION, longest)
    made = edits.destroy(whole, moment(1200), POLICY).destroy
    assert made is not None
    assert made.keep > retention(whole)


def test_revoke_outlives_what_it_covers() -> None:
    """Sessions as long as any, born where a clock is ahead; and it may be forgotten where one is ahead."""
    mark = edits.revoke(None, moment(1000), POLICY)
    last = 1000 + POLICY.drift
    covered = Record(
        birth=Birth(at(last), last, LONGEST, LONGEST, 0, POLICY.grace), reach=LONGEST, touch=touch(last)
    )
    assert retention(mark) - POLICY.drift >= retention(covered)


def test_set_expiry() -> None:
    """Own times replace the defaults; a longer idle timeout lengthens the reach."""
    delta = edits.set_expiry(SESSION, moment(1105), POLICY, 400, 5000)
    assert delta == Record(expiry=Expiry(at(1105), 400, 20, 5000), reach=420)
    whole = merge(SESSION, delta)
    assert deadline(whole) == 1100 + 420


def test_set_expiry_counts_as_access() -> None:
    """Giving a session times is an access of it."""
    delta = edits.set_expiry(SESSION, moment(1110), POLICY, None, None)
    assert delta is not None
    assert delta.touch == touch(1110)


def test_set_expiry_back_to_the_defaults() -> None:
    """None puts the session's own defaults back, whatever the node's settings are now."""
    own = merge(SESSION, Record(expiry=Expiry(at(1050), 20, 1, 1100), reach=21))
    delta = edits.set_expiry(
        msgspec.structs.replace(own, expiry=Expiry(at(1050), 20, 90, None)),
        moment(1101),
        replace(POLICY, idle=999, interval=99),
        None,
        None,
    )
    assert delta is not None
    assert delta.expiry == Expiry(at(1101), None, 10, None)
    assert deadline(merge(own, delta)) == 1310


def test_set_expiry_with_a_fixed_interval() -> None:
    """A touch interval that is set goes with every idle timeout."""
    delta = edits.set_expiry(SESSION, moment(1105), replace(POLICY, fixed_interval=True), 400, None)
    assert delta == Record(expiry=Expiry(at(1105), 400, 10, None), reach=410)


def test_shorter_expiry_keeps_the_data() -> None:
    """A shorter idle timeout ends the session sooner and keeps its data as long as before."""
    delta = edits.set_expiry(SESSION, moment(1105), POLICY, 20, None)
    assert delta is not None
    whole = merge(SESSION, delta)
    assert deadline(whole) == 1126, "it is an access"
    assert retention(whole) == retention(SESSION) + 5


@pytest.mark.parametrize("idle", [20, None])
def test_shorter_expiry_ends_no_session_in_use(idle: int | None) -> None:
    """The last access recorded may be older than the new times allow: the old ones asked for it seldom."""
    long = merge(SESSION, Record(expiry=Expiry(at(1050), 9_000, 450, None), reach=9_450))
    delta = edits.set_expiry(long, moment(1500), POLICY, idle, None)
    assert delta is not None
    assert deadline(merge(long, delta)) >= 1500 + (idle or 200)


@pytest.mark.parametrize(
    ("record", "now"),
    [(None, 1100), (Record(), 1100), (SESSION, 1310), (TOMBSTONE, 1300), (Record(touch=touch(1)), 1)],
)
def test_set_expiry_of_nothing(record: Record | None, now: int) -> None:
    """Only a live session can be given times."""
    assert edits.set_expiry(record, moment(now), POLICY, 50, None) is None


def test_set_expiry_within_the_absolute_lifetime() -> None:
    """Neither time may pass the absolute lifetime; its very end may be named."""
    assert edits.set_expiry(SESSION, moment(1105), POLICY, 10_000, 11_000) is not None
    with pytest.raises(SessionEndedError, match="until is past"):
        edits.set_expiry(SESSION, moment(1105), POLICY, None, 11_001)
    with pytest.raises(SessionEndedError, match="idle is longer"):
        edits.set_expiry(SESSION, moment(1105), POLICY, 10_001, None)


def test_until_in_the_past_ends_the_session() -> None:
    """An ``until`` that has passed ends the session at once."""
    delta = edits.set_expiry(SESSION, moment(1105), POLICY, None, 1105)
    assert delta is not None
    assert not is_live(merge(SESSION, delta), 1105)


def test_a_leftover_lends_a_new_session_none_of_its_times() -> None:
    """Swept or not: of two births the later end wins, which may be that of the former life."""
    leftover = msgspec.structs.replace(SESSION, birth=birth(1000))
    policy = replace(POLICY, absolute=500, idle=300, interval=15)
    whole = merge(leftover, edits.write(leftover, moment(2000), policy, {slot("n"): b"2"}))
    assert whole.birth == leftover.birth, "its end is later"
    assert deadline(whole) == 2000 + 300 + 15
