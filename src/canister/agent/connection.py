"""One TCP connection to a peer: frames in and out, encrypted or plain, and the hello that begins it."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable

from canister.agent.tls import Certificate, Credentials, HandshakeError, TlsStream, check_host
from canister.errors import ProtocolError
from canister.replication.messages import (
    MAX_HELLO,
    Hello,
    Message,
    Refused,
    decode_message,
    encode_message,
)

_MAGIC = b"CNST"
_LENGTH = struct.Struct(">I")
_LINGER = struct.Struct("ii")
_PART = 16 * 1024
"""Bytes of a frame that are a sign of life before the frame is whole; a byte now and then is none."""
_TLS_HANDSHAKE = 22
"""The first byte of whoever begins to speak TLS."""


class Connection:
    """A connection to a peer.

    Args:
        reader: what comes from the peer.
        writer: what goes to it.
        credentials: what this node proves itself with; None for plain TCP.

    Attributes:
        is_accepted: whether the peer has said more than its hello, and so does not refuse this node's.
    """

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, credentials: Credentials | None
    ) -> None:
        self.is_accepted = False
        self.writer = writer
        self._reader = reader
        self._credentials = credentials
        self._tls: TlsStream | None = None
        peer = writer.get_extra_info("peername")
        self.peer = f"{peer[0]}:{peer[1]}" if peer else "unknown"
        self.host: str = peer[0] if peer else "unknown"

    @property
    def backlog(self) -> int:
        """How many bytes wait for the peer."""
        return int(self.writer.transport.get_write_buffer_size())

    def write(self, payload: bytes) -> None:
        """Queue a frame."""
        self._write(_LENGTH.pack(len(payload)) + payload)

    def abort(self, *, reset: bool) -> None:
        """Close at once.

        With *reset* what the peer has not acknowledged is given up, and the peer told in a single
        packet: the end of the stream would wait behind it where nothing comes from the peer any more.
        """
        if reset and not self.writer.is_closing():
            linger = _LINGER.pack(1, 0)
            self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.writer.transport.abort()

    async def read(self, limit: int, heard: Callable[[], None] = lambda: None) -> Message:
        """Return the next message, of a frame of at most *limit* bytes.

        Args:
            limit: the greatest frame that is read.
            heard: called for each part of a frame that goes on, as it may take long.

        Raises:
            ProtocolError: what comes is no message.
            EOFError: the peer closed the connection.
        """
        (length,) = _LENGTH.unpack(await self._readexactly(_LENGTH.size))
        if not 0 < length <= limit:
            raise ProtocolError(f"a frame claims {length} bytes, at most {limit} are allowed")
        payload = bytearray()
        while True:
            payload += await self._readexactly(min(length - len(payload), _PART))
            if len(payload) == length:
                break
            heard()
        message: Message = decode_message(payload)
        return message

    async def greet(self, hello: Callable[[], Hello], *, dialed: bool) -> Hello:
        """Exchange hellos; with TLS the peer's certificate is checked before anything is believed.

        Raises:
            HandshakeError: the peer cannot be believed, or does not believe this node.
            ProtocolError: it sends something else.
            EOFError: it closed the connection.
        """
        certificate = await self._secure(dialed=dialed)
        self._write(_MAGIC)
        self.write(encode_message(hello()))
        magic = await self._readexactly(len(_MAGIC))
        if self._tls is None and magic[0] == _TLS_HANDSHAKE:
            raise HandshakeError(
                "TLS", "it speaks TLS, this node plain TCP; set tls_ca, tls_cert and tls_key"
            )
        if magic != _MAGIC:
            raise ProtocolError("what it sends is not the Canister protocol")
        theirs = await self.read(MAX_HELLO)
        if isinstance(theirs, Refused):
            raise HandshakeError("by the peer", f"it refuses this node: {theirs.reason}")
        if not isinstance(theirs, Hello):
            raise ProtocolError("its first message is no hello")
        if certificate is not None:
            try:
                check_host(certificate, theirs.member.address)
            except HandshakeError as error:
                await self.refuse(f"{theirs.member.address}: {error}")
                raise
        return theirs

    async def refuse(self, reason: str) -> None:
        """Tell the peer why the link ends, if it still listens."""
        self.write(encode_message(Refused(reason)))
        with contextlib.suppress(OSError):
            await self.writer.drain()

    async def _secure(self, *, dialed: bool) -> Certificate | None:
        if self._credentials is None:
            return None
        tls = self._credentials.secure(self._reader, self.writer, server=not dialed)
        try:
            certificate = await tls.handshake()
            self._tls = tls
            self._credentials.check_cluster(certificate)
        except HandshakeError as error:
            if error.kind in ("plain TCP", "wrong cluster"):  # of others TLS itself has told the peer
                self._write(_MAGIC)
                await self.refuse(str(error) if self._tls else "it takes links with TLS only")
            raise
        return certificate

    def _write(self, data: bytes) -> None:
        if self._tls is None:
            self.writer.write(data)
        else:
            self._tls.write(data)

    async def _readexactly(self, size: int) -> bytes:
        return await (self._reader if self._tls is None else self._tls).readexactly(size)
