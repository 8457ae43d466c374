"""What nodes say to each other. Every message is one MessagePack frame, tagged by its first element."""

from typing import Any

import msgspec

from canister.codec import MAX_ID_BYTES
from canister.errors import ProtocolError
from canister.record import NodeId, Record, check_record, decode_record
from canister.store.base import Member

PROTOCOL = 1
"""The newest protocol this release speaks; `OLDEST` to this is the range it offers."""
OLDEST = 1

MAX_FRAME = 32 * 1024 * 1024
"""Greatest size of a frame in bytes: a session merged from several sides fits many times over."""
MAX_HELLO = 64 * 1024
"""Greatest size of the first frame, before anything is known of who is calling."""

Row = tuple[bytes, bytes]
"""A session id and an encoded record."""


class Message(msgspec.Struct, array_like=True, frozen=True, tag=True):
    """Base of all messages."""


class Hello(Message, frozen=True, tag=1):
    """The first message on a link, from both sides."""

    oldest: int
    newest: int
    cluster: str
    member: Member
    incarnation: bytes
    now: int
    members: list[Member]


class Refused(Message, frozen=True, tag=2):
    """Why the sender closes the link."""

    reason: str


class Live(Message, frozen=True, tag=3):
    """Commits of the sender in stamp order, as written; all up to *upto* have now been sent."""

    commits: list[list[Row]]
    upto: int


class Heartbeat(Message, frozen=True, tag=15):
    """The sender is there at *now*.

    It has sent all its commits up to *upto*, and heard all of the receiver's up to *held*.
    """

    upto: int
    held: int
    now: int


class MemberList(Message, frozen=True, tag=4):
    """The sender's member list, after a change."""

    members: list[Member]


class AskRoot(Message, frozen=True, tag=5):
    """Begin a comparison: what do you hold as of the later of our clocks?"""

    round: int
    now: int


class Root(Message, frozen=True, tag=6):
    """The root digest as of *at*, and what the sender had heard before it was taken."""

    round: int
    at: int
    claims: dict[NodeId, int]
    members: list[Member]
    digest: bytes


class AskDigests(Message, frozen=True, tag=7):
    """Ask for the digests one level below the given nodes of the tree."""

    round: int
    at: int
    level: int
    nodes: list[int]


class Digests(Message, frozen=True, tag=8):
    """The digests asked for, in order, each shortened to 8 bytes, joined."""

    round: int
    digests: bytes


class AskListing(Message, frozen=True, tag=9):
    """Ask for the session digests in the given buckets."""

    round: int
    at: int
    buckets: list[int]


class Listing(Message, frozen=True, tag=10):
    """For each bucket asked for its session digests, each shortened to 8 bytes, joined."""

    round: int
    buckets: list[bytes]


class AskRows(Message, frozen=True, tag=11):
    """Ask for the sessions with the given digests, by bucket."""

    round: int
    at: int
    wanted: list[tuple[int, list[bytes]]]


class Rows(Message, frozen=True, tag=12):
    """Whole sessions; *more* tells that another frame follows."""

    round: int
    rows: list[Row]
    more: bool


class Fetch(Message, frozen=True, tag=13):
    """Ask for one session by its id."""

    number: int
    session: bytes


class Fetched(Message, frozen=True, tag=14):
    """One session as it is here, with what the sender has heard and whom it knows."""

    number: int
    record: bytes | None
    heard: dict[NodeId, int]
    members: list[Member]


class AskHeld(Message, frozen=True, tag=16):
    """Ask to be told once the receiver holds all of the sender's commits up to *stamp*, durably."""

    stamp: int


class Held(Message, frozen=True, tag=17):
    """The sender holds all of the receiver's commits up to *stamp*, durably."""

    stamp: int


class StartOver(Message, frozen=True, tag=18):
    """What the sender told of its own commits on this link holds no more: compare anew."""


AnyMessage = (
    Hello | Refused | Live | Heartbeat | MemberList | AskRoot | Root | AskDigests | Digests
    | AskListing | Listing | AskRows | Rows | Fetch | Fetched | AskHeld | Held | StartOver
)  # fmt: skip

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(AnyMessage)


def encode_message(message: Message) -> bytes:
    """Return a message as the payload of a frame."""
    return _encoder.encode(message)


def decode_message(payload: bytes | bytearray | memoryview) -> Any:
    """Return the message in a frame's payload.

    Raises:
        ProtocolError: the payload is no message.
    """
    try:
        return _decoder.decode(payload)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ProtocolError(f"not a message: {error}") from error


def decode_row(row: Row) -> tuple[bytes, Record]:
    """Return the session id and the record of a row.

    Raises:
        ProtocolError: no correct node can have sent it.
    """
    session, encoded = row
    if not 1 < len(session) <= MAX_ID_BYTES + 1:
        raise ProtocolError(f"a session id of {len(session)} bytes")
    record = decode_record(encoded)
    check_record(record)
    return session, record
