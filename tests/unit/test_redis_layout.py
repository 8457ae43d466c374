"""How sessions are laid out in Redis: keys, fields and what a commit sends."""

import pytest
from tests.records import A, slot

from canister import edits
from canister.codec import user_record_id
from canister.config import Config, Policy
from canister.edits import Moment
from canister.errors import CorruptDatabaseError, NewerFormatError
from canister.record import Record, Version, make_version, merge
from canister.store.redis.layout import NOT_THERE, Layout, Versioned, Write, read_hash, versioned

POLICY = Policy.of(Config())
NOW = 1_800_000_000_000_000


def version(number: int) -> Version:
    return make_version(NOW + number, A)


def written(before: Record | None, number: int, **values: bytes | None) -> Record:
    moment = Moment(version(number), NOW + number)
    delta = edits.write(before, moment, POLICY, {slot(name): value for name, value in values.items()})
    return delta if before is None else merge(before, delta)


def sent(before: Record | None, after: Record, number: int) -> list[object]:
    """Return what a commit sends of one session, after the number of keys and the key."""
    write = Write(b"s", versioned(before), after, version(number), NOW + number)
    return list(Layout("c").commit([write])[5:])


def stored(before: dict[bytes, bytes], words: list[object]) -> dict[bytes, bytes]:
    """Do what the script does; return the hash."""
    _, _, _, _, drop, put, *rest = words
    assert isinstance(drop, int)
    assert isinstance(put, int)
    assert len(rest) == drop + put
    kept = {name: value for name, value in before.items() if name not in rest[:drop]}
    return kept | dict(zip(rest[drop::2], rest[drop + 1 :: 2], strict=True))  # type: ignore[dict-item]


def reply(fields: dict[bytes, bytes]) -> list[bytes]:
    return [part for pair in fields.items() for part in pair]


def test_what_is_written_is_read_back() -> None:
    """Over creation, change, removal, clear and destroy the hash is the record."""
    first = written(None, 1, a=b"1", b=b"")
    second = written(first, 2, a=None, c=b"=")
    cleared = merge(second, Record(clear=version(3)))
    moment = Moment(version(4), NOW + 4)
    ended = merge(cleared, edits.destroy(cleared, moment, POLICY))
    fields: dict[bytes, bytes] = {}
    before: Record | None = None
    for number, record in enumerate((first, second, cleared, ended), 1):
        fields = stored(fields, sent(before, record, number))
        assert read_hash(reply(fields)) == Versioned(record, version(number))
        assert versioned(record) == Versioned(record, version(number))
        before = record
    assert len(fields) == 2


def test_only_what_changed_is_sent() -> None:
    """A commit of one key sends the revision and that key's field."""
    first = written(None, 1, **{f"k{number}": b"x" * 100 for number in range(50)})
    words = sent(first, written(first, 2, k7=b"y"), 2)
    assert words[:2] == [version(1), version(2)]
    assert words[3:6] == [0, 0, 4]
    assert words[6::2] == [b"r", slot("k7")]


def test_the_time_to_live_is_the_retention() -> None:
    """In milliseconds from now, never cut short, and never nothing."""
    record = written(None, 0, a=b"1")
    assert sent(None, record, 0)[2] == (POLICY.idle + POLICY.interval + POLICY.grace) // 1000
    assert sent(None, record, 1)[2] == (POLICY.idle + POLICY.interval + POLICY.grace) // 1000
    late = Write(b"s", NOT_THERE, record, version(0), NOW + POLICY.absolute)
    assert Layout("c").commit([late])[7] == 1


def test_no_reply_is_no_session() -> None:
    """A key that is not there is an absence."""
    assert read_hash([]) == NOT_THERE


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({b"x": b"1"}, CorruptDatabaseError),
        ({b"r": b"0" * 16, b"f": b"\x01\xc1"}, CorruptDatabaseError),
        ({b"r": b"0" * 16, b"f": b"\x02"}, NewerFormatError),
    ],
)
def test_what_is_no_session(fields: dict[bytes, bytes], error: type[Exception]) -> None:
    """It is never taken for an absence."""
    with pytest.raises(error):
        read_hash(reply(fields))


@pytest.mark.parametrize("cell", [b"", b"0" * 15, b"0" * 16 + b"=", version(1) + b"x"])
def test_what_is_no_cell(cell: bytes) -> None:
    """A cell is a version, and a value behind its mark."""
    fields = stored({}, sent(None, written(None, 1, a=b"1"), 1)) | {slot("a"): cell}
    with pytest.raises(CorruptDatabaseError):
        read_hash(reply(fields))


@pytest.mark.parametrize("revision", [None, b"", b"x", b"0" * 16, version(1) + b"x"])
def test_what_is_no_revision(revision: bytes | None) -> None:
    """What is written next would have to be later than it."""
    fields = stored({}, sent(None, written(None, 1, a=b"1"), 1))
    if revision is None:
        del fields[b"r"]
    else:
        fields[b"r"] = revision
    with pytest.raises(CorruptDatabaseError):
        read_hash(reply(fields))


@pytest.mark.parametrize("session", [b"s", b"", b"}", b"{x}", b"\x00\xff"])
def test_keys(session: bytes) -> None:
    """A key names its session, and no other cluster's keys begin alike."""
    one, two = Layout("a"), Layout("a:{s")
    assert one.session(one.key(session)) == session
    assert not two.key(session).startswith(one.pattern[:-1])


def test_what_ends_is_told_and_nothing_else() -> None:
    """A destroy, an end that comes sooner and a user's record; no other write, no longer life."""

    def ends(before: Record | None, after: Record, session: bytes = b"s") -> bool:
        return Write(session, versioned(before), after, version(9), NOW + 9).ends

    first = written(None, 1, a=b"1")
    moment = Moment(version(2), NOW + 2)
    destroyed = merge(first, edits.destroy(first, moment, POLICY))
    sooner = merge(first, edits.set_expiry(first, moment, POLICY, None, NOW + 60_000_000) or Record())
    assert ends(first, destroyed)
    assert ends(None, edits.destroy(None, moment, POLICY))
    assert ends(first, sooner)
    assert ends(None, first, user_record_id(b"u"))
    assert not ends(None, first)
    assert not ends(first, written(first, 2, a=b"2"))
    assert not ends(sooner, first)
    assert not ends(destroyed, destroyed)
    assert sent(first, destroyed, 3)[3] == 1
