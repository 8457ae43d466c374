"""What nodes say to each other. Every message is one MessagePack frame, tagged by its first element."""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from canister.addresses import MAX_ADDRESS
from canister.codec import is_encoded_id
from canister.errors import ProtocolError
from canister.record import LATEST, NodeId, Record, check_record, decode_record
from canister.store.base import Member

PROTOCOL = 1
"""The newest protocol this release speaks; `OLDEST` to this is the range it offers."""
OLDEST = 1

MAX_FRAME = 32 * 1024 * 1024
"""Greatest size of a frame in bytes: a session merged from several sides fits many times over."""
MAX_HELLO = 64 * 1024
"""Greatest size of the first frame, before anything is known of who is calling."""
MOST_MEMBERS = 300
"""Members and tombstones in a list, ten times a large cluster: a hello that names them all still fits."""
_MAX_NAME = 24
"""Bytes of a member's versions and node id."""
_MOST = 65_536
"""Things in a frame: more than the senders put there, and few enough to decode in little memory."""

Row = tuple[Annotated[bytes, Meta(min_length=2)], Annotated[bytes, Meta(min_length=8)]]
"""A session id and an encoded record."""

# What is refused while it is decoded, so that a frame cannot grow many times its size in memory.
_Instant = Annotated[int, Meta(ge=0, lt=LATEST)]
_Offset = Annotated[int, Meta(gt=-LATEST, lt=LATEST)]
_Node = Annotated[NodeId, Meta(max_length=16)]
_Address = Annotated[str, Meta(max_length=MAX_ADDRESS)]
_Heard = Annotated[dict[_Node, _Instant], Meta(max_length=_MOST)]
_Rows = Annotated[list[Row], Meta(max_length=_MOST)]
_Numbers = Annotated[list[int], Meta(max_length=1024)]
_Wanted = tuple[int, Annotated[list[bytes], Meta(max_length=_MOST)]]
_Fingerprint = Annotated[str, Meta(max_length=32, pattern=r"\A[0-9a-f]+\Z")]
_Ring = Annotated[list[_Fingerprint], Meta(max_length=100)]
_Fingerprints = Annotated[list[_Ring], Meta(max_length=16)]
_Members = Annotated[list[Member], Meta(max_length=MOST_MEMBERS)]


class Message(msgspec.Struct, array_like=True, frozen=True, tag=True):
    """Base of all messages."""


class Hello(Message, frozen=True, tag=1):
    """The first message on a link, from both sides.

    *fingerprints* are those of the sender's secret keys; they came after the first nodes of protocol 1.
    """

    oldest: int
    newest: int
    cluster: str
    member: Member
    incarnation: bytes
    now: _Instant
    members: _Members
    fingerprints: _Fingerprints = []


class Refused(Message, frozen=True, tag=2):
    """Why the sender closes the link."""

    reason: str


class Live(Message, frozen=True, tag=3):
    """Commits of the sender in stamp order, as written; all up to *upto* have now been sent."""

    commits: Annotated[list[_Rows], Meta(max_length=_MOST)]
    upto: _Instant


class Heartbeat(Message, frozen=True, tag=15):
    """The sender is there at *now*.

    It has sent all its commits up to *upto*, and heard all of the receiver's up to *heard*. The receiver's
    clock is ahead of its own by *ahead* microseconds at least; that came after the first nodes of protocol 1.
    """

    upto: _Instant
    heard: _Instant
    now: _Instant
    ahead: _Offset | None = None


class MemberList(Message, frozen=True, tag=4):
    """The sender's member list and the fingerprints of its keys, after a change of one of them."""

    members: _Members
    fingerprints: _Fingerprints = []


class AskRoot(Message, frozen=True, tag=5):
    """Begin a comparison: what do you hold as of the later of our clocks?

    *below* are the asker's own digests one level below the root as of *now*, in the form of `Root`, where
    it wants what differs listed at once; it came after the first nodes of protocol 1.
    """

    round: int
    now: _Instant
    below: bytes = b""


class Root(Message, frozen=True, tag=6):
    """The root digest as of *at*, and what the sender had heard before it was taken.

    *below* are the digests one level down, shortened to 8 bytes, joined; *size* is the number of
    sessions in them. *branches* are those of that level that differ from what the asker sent and are listed
    right here, ascending, and *listings* what `Listing` would answer for them. Without *proof* the
    asker's clock is too far ahead: what is over by it, but not by the sender's, was left out, so nothing
    counts as heard. These came after the first nodes of protocol 1.
    """

    round: int
    at: _Instant
    claims: _Heard
    members: _Members
    digest: bytes
    below: bytes
    size: _Instant
    branches: _Numbers = []
    listings: Annotated[list[bytes], Meta(max_length=1024)] = []
    proof: bool = True


class AskDigests(Message, frozen=True, tag=7):
    """Ask for the digests one level below the given branches of the tree."""

    round: int
    at: _Instant
    level: int
    branches: _Numbers


class Digests(Message, frozen=True, tag=8):
    """The digests asked for, in order, each shortened to 8 bytes, joined."""

    round: int
    digests: bytes


class AskListing(Message, frozen=True, tag=9):
    """Ask for the digests of the sessions below the given branches of the tree."""

    round: int
    at: _Instant
    level: int
    branches: _Numbers


class Listing(Message, frozen=True, tag=10):
    """For each branch asked for its session digests, each shortened to 8 bytes, joined."""

    round: int
    listings: Annotated[list[bytes], Meta(max_length=1024)]


class AskRows(Message, frozen=True, tag=11):
    """Ask for the sessions with the given digests, by the branch of the tree that they are below."""

    round: int
    at: _Instant
    level: int
    wanted: Annotated[list[_Wanted], Meta(max_length=1024)]


class Rows(Message, frozen=True, tag=12):
    """Whole sessions; *more* tells that another frame follows.

    Without it, *left* is how much of what was asked for, the last of it, has to be asked for anew:
    sessions after `AskRows`, buckets after `AskAll`.
    """

    round: int
    rows: _Rows
    more: bool
    left: int


class Fetch(Message, frozen=True, tag=13):
    """Ask for one session by its id."""

    number: int
    session: bytes


class Fetched(Message, frozen=True, tag=14):
    """One session as it is here, with what the sender has heard and whom it knows."""

    number: int
    record: bytes | None
    heard: _Heard
    members: _Members


class AskAck(Message, frozen=True, tag=16):
    """Ask to be told once the receiver holds all commits of *node* up to *stamp*, durably.

    *unlinked* are members that *node* has no link to: the receiver asks those it has one to.
    """

    stamp: _Instant
    node: _Node
    unlinked: Annotated[list[_Address], Meta(max_length=MOST_MEMBERS)]


class Ack(Message, frozen=True, tag=17):
    """A member, the sender or one that told it, holds all commits of *node* up to *stamp*, durably."""

    stamp: _Instant
    node: _Node
    holder: _Address


class StartOver(Message, frozen=True, tag=18):
    """What the sender told of its own commits on this link holds no more: compare anew."""


class AskAll(Message, frozen=True, tag=19):
    """Ask for all sessions in some ranges of buckets, each from its first up to before its end.

    The ranges ascend; the sessions come bucket by bucket.
    """

    round: int
    at: _Instant
    ranges: Annotated[list[tuple[int, int]], Meta(max_length=1024)]


AnyMessage = (
    Hello | Refused | Live | Heartbeat | MemberList | AskRoot | Root | AskDigests | Digests
    | AskListing | Listing | AskRows | Rows | Fetch | Fetched | AskAck | Ack | StartOver | AskAll
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
        message = _decoder.decode(payload)
    except (ValueError, RecursionError) as error:  # of msgspec, and of text that is no UTF-8
        raise ProtocolError(f"not a message: {error}") from error
    named = [message.member] if isinstance(message, Hello) else []
    _check_members([*named, *getattr(message, "members", ())])
    return message


def _check_members(members: list[Member]) -> None:
    addresses = [member.address for member in members]
    names = [name for member in members for name in (member.joined, member.version, member.node)]
    if (
        not "".join(addresses).isprintable()
        or max(map(len, addresses), default=0) > MAX_ADDRESS
        or max(map(len, names), default=0) > _MAX_NAME
    ):
        raise ProtocolError("a member's address or version has no form that a node gives it")


def decode_row(row: Row) -> tuple[bytes, Record]:
    """Return the session id and the record of a row.

    Raises:
        ProtocolError: no correct node can have sent it.
    """
    session, encoded = row
    if not is_encoded_id(session):
        raise ProtocolError(f"a session id of {len(session)} bytes, of no form that a node gives it")
    record = decode_record(encoded)
    check_record(record)
    return session, record
