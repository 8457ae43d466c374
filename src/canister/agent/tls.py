"""Mutual TLS between nodes: this node's certificate, what is asked of a peer's, and the encrypted stream."""

import asyncio
import logging
import ssl
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from canister.addresses import cluster_uri, parse_address, parse_ip
from canister.config import Config
from canister.errors import ConfigError, ProtocolError

logger = logging.getLogger("canister.tls")

Certificate = Mapping[str, Any]
"""A certificate as `ssl.SSLObject.getpeercert` tells it."""

_LOOK = 1.0
"""Seconds between two looks at whether the files have changed."""
_DAY = 86_400.0
_NOTICE = 30 * _DAY
"""The longest time before its end that a certificate is warned of; of a short one it is the last third."""
_CHUNK = 65536
_RECORDS = range(20, 24)
"""What a TLS record can begin with."""
_KINDS = {2: "wrong CA", 7: "wrong CA", 9: "not yet valid", 10: "expired"} | dict.fromkeys(
    range(18, 22), "wrong CA"
)
"""What the codes of OpenSSL's verification mean here."""


class HandshakeError(ProtocolError):
    """A handshake was refused. *kind* says why in a few words, of which there are few: it is counted."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Credentials:
    """The files that a node proves itself with and knows its peers by; read again when they change.

    Args:
        config: the node's settings, with TLS.

    Raises:
        ConfigError: a file is missing, or they do not fit together or to the node.
    """

    def __init__(self, config: Config) -> None:
        assert config.address is not None, "whoever needs certificates listens"
        # Absolute, because they are read again: the process may change its directory.
        files = (config.tls_ca, config.tls_cert, config.tls_key)
        self._files = _Files(*(Path(file or "").absolute() for file in files))
        self._cluster = config.cluster
        self._address = config.address
        self._complained = ""
        self._validity: _Validity | None = None
        self._seen = self._files.state()
        self._looked = time.monotonic()
        self._contexts = self._files.load()
        try:
            self._validity = self._check(self._contexts)
        except _TimeError as error:  # the node serves its own processes; its links wait for new files
            logger.error("%s; peers refuse this node until the files are renewed", error)

    def renew(self) -> None:
        """Take in the files if they have changed; what does not fit is told and not taken.

        That a certificate is about to end is told as well.
        """
        now = time.monotonic()
        if now - self._looked < _LOOK:
            return
        self._looked = now
        self._renew()
        if self._validity is not None:
            self._validity.tell(time.time())

    def _renew(self) -> None:
        try:
            seen = self._files.state()
            if seen == self._seen:
                self._complained = ""  # what was amiss has been undone
                return
            contexts = self._files.load()
            validity = self._check(contexts)
        except ConfigError as error:
            # Perhaps just one of two files has been replaced: tried again until they fit.
            if str(error) != self._complained:
                logger.error("%s; the certificates read before stay in use", error)
            self._complained = str(error)
            return
        self._complained = ""
        self._seen, self._contexts, self._validity = seen, contexts, validity

    def secure(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, server: bool
    ) -> "TlsStream":
        """Return the stream to do a handshake on."""
        self.renew()
        context = self._contexts.server if server else self._contexts.client
        return TlsStream(reader, writer, context, server=server)

    def check_cluster(self, certificate: Certificate) -> None:
        """Refuse the certificate of a peer that is no node of this cluster.

        Raises:
            HandshakeError: it does not carry the cluster's name.
        """
        wanted = cluster_uri(self._cluster)
        carried = _names(certificate, "URI")
        if wanted not in carried:
            raise HandshakeError(
                "wrong cluster", f"the certificate is for {_listed(carried)}, not for {wanted}"
            )

    def _check(self, contexts: "_Contexts") -> "_Validity":
        """Refuse files that peers would refuse: by a handshake of this node with itself."""
        cert = self._files.cert
        try:
            certificate = _shake_hands(contexts)
        except ssl.SSLCertVerificationError as error:
            kind = _TimeError if error.verify_code in (9, 10) else ConfigError
            raise kind(f"tls_cert {cert}: {error.verify_message} (by tls_ca {self._files.ca})") from error
        except ssl.SSLError as error:
            raise ConfigError(f"tls_cert {cert} is of no use: {_words(error)}") from error
        try:
            self.check_cluster(certificate)
            check_host(certificate, self._address)
        except HandshakeError as error:
            raise ConfigError(f"tls_cert {cert} does not fit this node: {error}") from error
        logger.info("links use %s, valid until %s", cert, certificate.get("notAfter"))
        return _Validity(self._files, certificate, contexts.server.get_ca_certs())


class TlsStream:
    """TLS over the streams of a TCP connection, with the part of their methods that links need.

    The standard library's own TLS streams do not say why a handshake failed, and hold on to the
    certificates they were started with.

    Args:
        reader: what comes from the peer.
        writer: what goes to it.
        context: the certificates.
        server: whether the peer has called.
    """

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        context: ssl.SSLContext,
        *,
        server: bool,
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=server)
        self._plain = bytearray()

    async def handshake(self) -> Certificate:
        """Agree on keys and return the peer's certificate, which one of the authorities has signed.

        Raises:
            HandshakeError: it has none that holds, or does not speak TLS.
            EOFError: it closed the connection.
        """
        first = True
        while True:
            try:
                self._tls.do_handshake()
                self._flush()
                break
            except ssl.SSLWantReadError:
                self._flush()
            except ssl.SSLError as error:
                self._flush()  # the alert that tells the peer
                raise _explained(error) from error
            data = await self._receive()
            if first and data[0] not in _RECORDS:
                raise HandshakeError("plain TCP", "it speaks plain TCP, this node TLS")
            first = False
        certificate = self._tls.getpeercert()
        if not certificate:  # the context asks for one: this cannot be
            raise HandshakeError("no certificate", "it shows no certificate")
        return certificate

    async def readexactly(self, size: int) -> bytes:
        """Return the next *size* bytes.

        Raises:
            HandshakeError: what comes is no TLS, or the peer refuses this node's certificate.
            EOFError: it closed the connection.
        """
        while len(self._plain) < size:
            try:
                part = self._tls.read(_CHUNK)
            except ssl.SSLWantReadError:
                self._flush()
                await self._receive()
            except ssl.SSLError as error:
                raise _explained(error) from error
            else:
                if not part:
                    raise asyncio.IncompleteReadError(bytes(self._plain), size)
                self._plain += part
        data = bytes(memoryview(self._plain)[:size])
        del self._plain[:size]
        return data

    def write(self, data: bytes) -> None:
        """Encrypt and queue *data*; where the peer has ended TLS, end the connection."""
        view = memoryview(data)
        try:
            while view:
                view = view[self._tls.write(view) :]
        except ssl.SSLError:  # whoever reads from it is about to notice
            self._writer.transport.abort()
        else:
            self._flush()

    async def _receive(self) -> bytes:
        data = await self._reader.read(_CHUNK)
        if not data:
            raise asyncio.IncompleteReadError(b"", None)
        self._incoming.write(data)
        return data

    def _flush(self) -> None:
        if self._outgoing.pending:
            self._writer.write(self._outgoing.read())


def check_host(certificate: Certificate, address: str) -> None:
    """Refuse a peer whose certificate is not for the host of the address it states.

    Raises:
        HandshakeError: it is for other hosts.
    """
    host, _ = parse_address(address)
    ip = parse_ip(host)
    names, ips = _names(certificate, "DNS"), _names(certificate, "IP Address")
    fits = host.lower() in map(str.lower, names) if ip is None else ip in map(parse_ip, ips)
    if not fits:
        hosts = [*names, *ips]
        raise HandshakeError("wrong address", f"the certificate is for {_listed(hosts)}, not for {host}")


class _TimeError(ConfigError):
    """A certificate is not valid now."""


class _Contexts(NamedTuple):
    server: ssl.SSLContext
    client: ssl.SSLContext


class _Validity:
    """Until when a node's certificate and its authority's hold; tells it in good time, once a day.

    Args:
        files: what to name.
        certificate: the node's own.
        authorities: those that `_Files.ca` holds.
    """

    def __init__(self, files: "_Files", certificate: Certificate, authorities: Iterable[Certificate]) -> None:
        signers = [each for each in authorities if each.get("subject") == certificate.get("issuer")]
        last = max(map(_ends, signers), default=_ends(certificate))
        self._file = files.cert if _ends(certificate) <= last else files.ca
        self._end = min(_ends(certificate), last)
        self._notice = min(_NOTICE, (self._end - _begins(certificate)) / 3)
        self._told: int | None = None

    def tell(self, now: float) -> None:
        """Say how long the certificates still hold, if that is not long and was not said today."""
        left = self._end - now
        days = int(left // _DAY)
        if left > self._notice or days == self._told:
            return
        self._told = days
        if left > 0:
            span = f"{days} days" if days > 1 else f"{left / 3600:.0f} hours"
            logger.warning("%s ends in %s; renew it, or peers will refuse this node", self._file, span)
        else:
            logger.error("%s has ended; peers refuse this node until it is renewed", self._file)


class _Files(NamedTuple):
    ca: Path
    cert: Path
    key: Path

    def state(self) -> list[tuple[int, int, int]]:
        """Return what differs once a file has been changed or replaced."""
        found: list[tuple[int, int, int]] = []
        for name, path in zip(self._fields, self, strict=True):
            try:
                path.open("rb").close()
                status = path.stat()
            except OSError as error:
                raise ConfigError(f"tls_{name} {path} cannot be read: {error.strerror}") from error
            found.append((status.st_ino, status.st_size, status.st_mtime_ns))
        return found

    def load(self) -> _Contexts:
        """Return contexts for calling and for being called that know these files."""
        return _Contexts(self._context(ssl.PROTOCOL_TLS_SERVER), self._context(ssl.PROTOCOL_TLS_CLIENT))

    def _context(self, protocol: int) -> ssl.SSLContext:
        context = ssl.SSLContext(protocol)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False  # the hello tells who is there; `check_host` holds it to its word
        context.verify_mode = ssl.CERT_REQUIRED
        if protocol == ssl.PROTOCOL_TLS_SERVER:
            context.num_tickets = 0  # a session taken up again would not be verified again
        try:
            context.load_verify_locations(self.ca)
        except (ssl.SSLError, OSError) as error:
            raise ConfigError(f"tls_ca {self.ca} holds no certificates in PEM: {_words(error)}") from error
        try:
            context.load_cert_chain(self.cert, self.key, password="")
        except (ssl.SSLError, OSError, ValueError) as error:
            raise ConfigError(
                f"tls_cert {self.cert} and tls_key {self.key} are not a certificate and its key, both in PEM "
                f"and without a passphrase: {_words(error)}"
            ) from error
        return context


def _shake_hands(contexts: _Contexts) -> Certificate:
    """Let the two contexts meet, and return the certificate they show."""
    one, other = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = contexts.client.wrap_bio(one, other)
    server = contexts.server.wrap_bio(other, one, server_side=True)
    waiting = [client, server]
    while waiting:
        side = waiting.pop(0)
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            waiting.append(side)
    return client.getpeercert() or {}


def _explained(error: ssl.SSLError) -> HandshakeError:
    if isinstance(error, ssl.SSLCertVerificationError):
        kind = _KINDS.get(error.verify_code, "bad certificate")
        return HandshakeError(kind, f"its certificate is refused ({kind}): {error.verify_message}")
    words = _words(error)
    if "did not return a certificate" in words:
        return HandshakeError("no certificate", "it shows no certificate")
    if " alert " in words:
        return HandshakeError("by the peer", f"it refuses this node: {words}")
    return HandshakeError("no TLS", f"the handshake failed: {words}")


def _words(error: Exception) -> str:
    """Return what OpenSSL says, in words."""
    reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
    return str(reason).replace("_", " ").lower()


def _ends(certificate: Certificate) -> float:
    return ssl.cert_time_to_seconds(certificate["notAfter"])


def _begins(certificate: Certificate) -> float:
    return ssl.cert_time_to_seconds(certificate["notBefore"])


def _names(certificate: Certificate, kind: str) -> list[str]:
    return [name.strip() for found, name in certificate.get("subjectAltName", ()) if found == kind]


def _listed(names: list[str]) -> str:
    return ", ".join(names) or "none"
