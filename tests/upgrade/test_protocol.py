"""Messages of every protocol that a release has spoken, and who may speak with whom."""

import socket
from pathlib import Path
from types import UnionType
from typing import get_args

import msgspec
import pytest
from tests.fuzz.victim import Victim
from tests.integration.cluster import free_port
from tests.integration.test_cluster_links import MAGIC, frame, messages, read_to_end
from tests.upgrade.contents import MEMBERS, MESSAGES, RECORD, ROWS, TOMBSTONE

from canister import Canister
from canister.clock import SystemClock
from canister.errors import ProtocolError
from canister.record import merge
from canister.replication import admission
from canister.replication import messages as m
from canister.replication.messages import (
    AnyMessage,
    Hello,
    Message,
    decode_message,
    decode_row,
    encode_message,
)

FRAMES: list[tuple[str, bytes]] = msgspec.msgpack.decode(
    Path(__file__).with_name("protocol-1.msgpack").read_bytes(), type=list[tuple[str, bytes]]
)

ADDED: dict[type[Message], list[object]] = {
    Hello: [[]],
    m.MemberList: [[]],
    m.Heartbeat: [None],
    m.AskRoot: [b""],
    m.Root: [[], [], True],
}
"""What messages of protocol 1 have gained: the fingerprints of the sender's keys; by what the other clock is
ahead; the digests of who asks, and what is listed at once where they differ."""


@pytest.mark.parametrize(("payload", "expected"), [(f[1], e) for f, e in zip(FRAMES, MESSAGES, strict=True)])
def test_messages_of_protocol_1(payload: bytes, expected: Message) -> None:
    """Read as they were meant, and written alike: nodes of both releases understand each other.

    What has been added since stands behind it, where the older release does not look.
    """
    assert decode_message(payload) == expected
    before, now = (msgspec.msgpack.decode(data) for data in (payload, encode_message(expected)))
    added = ADDED.get(type(expected), [])
    assert msgspec.msgpack.encode(now[: len(now) - len(added)]) == payload
    assert now == [*before, *added]


def test_every_kind_is_in_the_fixture() -> None:
    """A kind of message that is added belongs to a newer protocol, or into the fixture."""
    assert isinstance(AnyMessage, UnionType)
    assert [name for name, _ in FRAMES] == [type(message).__name__ for message in MESSAGES]
    assert sorted(name for name, _ in FRAMES) == sorted(kind.__name__ for kind in get_args(AnyMessage))
    tags = [msgspec.msgpack.decode(payload)[0] for _, payload in FRAMES]
    assert len(set(tags)) == len(tags)


def test_rows_of_protocol_1() -> None:
    """The records in them are possible ones, and merge."""
    live = decode_message(dict(FRAMES)["Live"])
    (session, record), (other, tombstone) = (decode_row(row) for row in live.commits[0])
    assert (session, other) == (ROWS[0][0], ROWS[1][0])
    assert (record, tombstone) == (RECORD, TOMBSTONE)
    assert merge(record, tombstone) == tombstone


def hello(oldest: int, newest: int) -> Hello:
    return Hello(oldest, newest, "canister", MEMBERS[0], b"12345678", 1, [])


@pytest.mark.parametrize(
    ("mine", "theirs", "accepted"),
    [
        ((1, 1), (1, 1), True),
        ((1, 1), (1, 4), True),  # a newer release that still speaks ours
        ((1, 1), (2, 4), False),  # one that does not any more
        ((1, 1), (0, 0), False),
        ((2, 4), (1, 1), False),  # this is the newer release, and the other one too old
        ((2, 4), (1, 2), True),
        ((2, 4), (2, 4), True),
        ((2, 4), (3, 3), True),
        ((2, 4), (4, 9), True),
        ((2, 4), (1, 9), True),
        ((2, 4), (5, 9), False),
        ((1, 1), (2**63, 2**63), False),
        ((1, 1), (-5, -1), False),
    ],
)
def test_ranges(
    monkeypatch: pytest.MonkeyPatch, mine: tuple[int, int], theirs: tuple[int, int], accepted: bool
) -> None:
    """Two ranges that overlap go together, others do not; both sides decide alike."""
    for own, other in ((mine, theirs), (theirs, mine)):
        monkeypatch.setattr(admission, "OLDEST", own[0])
        monkeypatch.setattr(admission, "PROTOCOL", own[1])
        said = decode_message(encode_message(hello(*other)))
        reason = Victim.refusal_of(said)
        assert (reason is None) == accepted
        if not accepted:
            assert reason == f"speaks protocol {other[0]} to {other[1]}, this node {own[0]} to {own[1]}"


def test_what_a_newer_release_adds_is_passed_over() -> None:
    """Fields after ours are not read; a kind we do not know ends the link, it is never guessed at."""
    for _, payload in FRAMES:
        message = decode_message(payload)
        parts = msgspec.msgpack.decode(encode_message(message))
        longer = msgspec.msgpack.encode([*parts, {"new": [1, 2]}, b"more"])
        assert decode_message(longer) == message
    with pytest.raises(ProtocolError):
        decode_message(msgspec.msgpack.encode([99, 1, 2]))


def test_a_peer_of_before_says_nothing_of_its_keys() -> None:
    for name in ("Hello", "MemberList"):
        message = decode_message(dict(FRAMES)[name])
        assert message.fingerprints == []


@pytest.mark.parametrize(
    "fingerprints",
    [[["zz"]], [[""]], [["ab\n"]], [["a" * 33]], [["ab"] * 101], [[]] * 17, ["ab"], "ab", [[b"ab"]], None],
)
def test_odd_fingerprints_are_refused(fingerprints: object) -> None:
    for said in (hello(1, 1), m.MemberList([])):
        parts = msgspec.msgpack.decode(encode_message(said))
        with pytest.raises(ProtocolError):
            decode_message(msgspec.msgpack.encode([*parts[:-1], fingerprints]))


def test_a_newer_only_peer_is_refused_without_harm(tmp_path: Path) -> None:
    """It is told why in words it can read, and nothing of what it says is kept."""
    port = free_port()
    with Canister(tmp_path / "node", listen=f"127.0.0.1:{port}") as store:
        store.put("s", "k", 1)
        before = store.node.status(SystemClock().now())
        said = msgspec.msgpack.decode(encode_message(hello(2, 7)))
        newer = msgspec.msgpack.encode([*said, {"compression": "zstd"}])
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(MAGIC + frame(newer))
            answers = messages(read_to_end(connection))
        assert isinstance(answers[0], Hello)
        assert (answers[0].oldest, answers[0].newest) == (m.OLDEST, m.PROTOCOL)
        assert answers[-1] == m.Refused("127.0.0.1:7400 speaks protocol 2 to 7, this node 1 to 1")
        after = store.node.status(SystemClock().now())
        assert (after.members, after.digest) == (before.members, before.digest)
        assert len(store.members()) == 1
        assert store.get_data("s") == {"k": 1}
