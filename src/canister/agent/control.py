"""What the processes of a node ask their agent: messages, and the blocking client."""

import socket
import struct
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from canister.agent.sockets import socket_path
from canister.errors import AgentError
from canister.freshness import Fetched
from canister.record import NodeId
from canister.replication.healing import HealReport
from canister.store.base import Needed

_LENGTH = struct.Struct(">I")
_PATIENCE = 10.0
"""Seconds a process waits for its agent, which answers at once unless it is ill."""

T = TypeVar("T")


class Request(msgspec.Struct, tag=True, frozen=True):
    """Base of all requests."""


class AskStatus(Request, frozen=True):
    """Who is there, and the digest as of *at* (microseconds)."""

    at: int


class FetchSession(Request, frozen=True):
    """Ask all linked peers for a session, for at most *timeout* seconds."""

    session: bytes
    timeout: float


class Resync(Request, frozen=True):
    """Compare with all peers now, or fetch just the given sessions."""

    sessions: list[bytes] | None


class Forget(Request, frozen=True):
    """Drop this node's copy of a session."""

    session: bytes


class Sweep(Request, frozen=True):
    """Drop what is past its retention now."""

    destroyed: bool


class AwaitAcks(Request, frozen=True):
    """Wait until *acks* members hold this node's commits up to *stamp*, for at most *timeout* seconds."""

    stamp: int
    acks: Needed
    timeout: float


class Isolate(Request, frozen=True):
    """Cut the node off from all peers, or let it back."""

    on: bool


class AskHeals(Request, frozen=True):
    """What the latest heals did."""


class RemoveMember(Request, frozen=True):
    """Take a member out of the cluster."""

    address: str


AnyRequest = (
    AskStatus | AskHeals | FetchSession | AwaitAcks | Resync | Forget | Sweep | Isolate | RemoveMember
)


class MemberState(msgspec.Struct, frozen=True):
    """A member as this node sees it.

    Attributes:
        address: where it listens.
        state: ``self``, ``up``, ``comparing`` (linked, its state not fully taken in yet), ``down``
            or ``removed``.
        node: its node id, in hex.
        lag: seconds by which it is behind this node's commits; None if not linked.
        clock_offset: seconds its clock is ahead of this one; None if not linked.
        keys_fit: whether it verifies what is signed here, and the other way round; None if that is not
            known: it is not linked, or one of the two has no sessions of a web application.
    """

    address: str
    state: str
    node: str
    lag: float | None = None
    clock_offset: float | None = None
    keys_fit: bool | None = None


class AgentStatus(msgspec.Struct, frozen=True):
    """The agent's answer to `AskStatus`.

    *digest* is hex; *queued* counts open questions to peers; *refused* counts the handshakes refused
    since the agent started, by reason; *compared* is the instant up to which all members have been
    compared with on their present links.
    """

    members: list[MemberState]
    digest: str
    queued: int
    isolated: bool
    pid: int
    refused: dict[str, int] = {}
    compared: int = 0


class FetchReply(msgspec.Struct, frozen=True):
    """Which peers answered with what they had heard, and whether all members did."""

    answers: list[dict[NodeId, int]]
    everyone: bool

    def fetched(self) -> Fetched:
        """Return the outcome as `canister.freshness` takes it."""
        return Fetched(self.answers, self.everyone)


class Heals(msgspec.Struct, frozen=True):
    """The latest heals, oldest first, and as of which instant all members were last found equal.

    *last_equal* is in microseconds since 1970 UTC, 0 if they never were since the agent started.
    """

    reports: list[HealReport]
    last_equal: int


class AcksReply(msgspec.Struct, frozen=True):
    """The members that hold the commits asked for, by address, and how many were needed."""

    members: list[str]
    needed: int


class Reply(msgspec.Struct, frozen=True):
    """An answer: a failure, or a value encoded by itself."""

    failure: str | None
    value: msgspec.Raw = msgspec.Raw(b"\xc0")


request_decoder: msgspec.msgpack.Decoder[AnyRequest] = msgspec.msgpack.Decoder(AnyRequest)
_reply_decoder = msgspec.msgpack.Decoder(Reply)


def frame(payload: bytes) -> bytes:
    """Return a payload with its length in front."""
    return _LENGTH.pack(len(payload)) + payload


def frame_length(head: bytes) -> int:
    """Return the length that a frame's first four bytes tell."""
    (length,) = _LENGTH.unpack(head)
    return int(length)


class AgentClient:
    """Talks to the node's agent, in whatever process it runs."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def ask(
        self, request: AnyRequest, kind: type[T], timeout: float = 0.0, *, patience: float = _PATIENCE
    ) -> T:
        """Send a request and return the answer.

        Args:
            request: what to ask.
            kind: type of the answer.
            timeout: seconds the agent may take on top of what answering takes.
            patience: seconds that answering may take.

        Raises:
            AgentError: no agent runs, it did not answer, or it could not do it.
        """
        try:
            with socket_path(self._path) as name, socket.socket(socket.AF_UNIX) as channel:
                channel.settimeout(patience + timeout)
                channel.connect(name)
                channel.sendall(frame(msgspec.msgpack.encode(request)))
                reply = _reply_decoder.decode(
                    _receive(channel, frame_length(_receive(channel, _LENGTH.size)))
                )
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise AgentError(
                f"no agent runs for {self._path.parent}; start `canister node {self._path.parent}` or the "
                "application that uses it"
            ) from error
        except (OSError, msgspec.DecodeError) as error:
            raise AgentError(f"the agent of {self._path.parent} did not answer: {error}") from error
        if reply.failure is not None:
            raise AgentError(reply.failure)
        return msgspec.msgpack.decode(reply.value, type=kind)


def _receive(channel: socket.socket, size: int) -> bytes:
    parts: list[bytes] = []
    while size:
        part = channel.recv(size)
        if not part:
            raise ConnectionResetError("it closed the connection")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def encode_reply(value: Any) -> bytes:
    """Return a value as the payload of an answer."""
    return msgspec.msgpack.encode(Reply(None, msgspec.Raw(msgspec.msgpack.encode(value))))


def encode_failure(error: str) -> bytes:
    """Return a failure as the payload of an answer."""
    return msgspec.msgpack.encode(Reply(error))
