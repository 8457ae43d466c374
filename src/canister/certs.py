"""Certificates for mutual TLS between nodes: an authority of one's own, and what it signs.

Needs the package ``cryptography``, the extra ``tls``; running a node with TLS does not. The keys are of
the kind P-256.
"""

import os
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from canister.addresses import cluster_uri, parse_ip
from canister.errors import ConfigError

CA_DAYS, NODE_DAYS = 3650, 365
"""Days for which an authority and a node's certificate are valid by default."""

_BEFORE = timedelta(hours=1)
"""How far back validity begins, for nodes whose clocks are behind."""
_HOST = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*")


class Shown(NamedTuple):
    """What a certificate says. *names* are its alternative names, *fingerprint* is SHA-256 in hex."""

    subject: str
    issuer: str
    names: list[str]
    begins: datetime
    ends: datetime
    fingerprint: str


def make_authority(directory: Path, cluster: str, days: int = CA_DAYS) -> Path:
    """Make the key and the certificate of an authority in *directory*; return the certificate's file.

    Args:
        directory: where ``ca.key`` and ``ca.crt`` go; made if it is missing.
        cluster: name of the cluster whose nodes it vouches for.
        days: for how long it is valid.

    Raises:
        ConfigError: there is one already.
    """
    key_file, cert_file = _fresh(directory, "ca.key", "ca.crt")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, _common(f"Canister CA {cluster}"))])
    builder = (
        _builder(key, name, name, days)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectAlternativeName([_uri(cluster)]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
    )
    _write(key_file, _pem(key))
    _write(cert_file, builder.sign(key, SHA256()).public_bytes(Encoding.PEM))
    return cert_file


def issue(authority: Path, hosts: Sequence[str], out: Path | None = None, days: int = NODE_DAYS) -> Path:
    """Make a key and a certificate for a node; return the certificate's file.

    Args:
        authority: the directory of the authority.
        hosts: names and IP addresses by which other members call the node.
        out: where ``node.key``, ``node.crt`` and a copy of ``ca.crt`` go; a directory of the first
            host's name beside the authority's files by default.
        days: for how long it is valid; no longer than the authority.

    Raises:
        ConfigError: the authority is not there or over, a host is none, or there is a key already.
    """
    key_of_ca, ca = _load_authority(authority)
    names = [_host(host) for host in hosts]
    out = authority / hosts[0].replace(":", "_") if out is None else out
    files = ["node.key", "node.crt", *([] if _is_same(out, authority) else ["ca.crt"])]
    key_file, cert_file, *ca_files = _fresh(out, *files)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, _common(hosts[0]))])
    uses = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    uri = x509.UniformResourceIdentifier(_cluster_of(ca, authority))
    builder = (
        _builder(key, name, ca.subject, days, latest=ca.not_valid_after_utc)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
        .add_extension(x509.SubjectAlternativeName([uri, *names]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(key_of_ca.public_key()), critical=False
        )
    )
    _write(key_file, _pem(key))
    _write(cert_file, builder.sign(key_of_ca, SHA256()).public_bytes(Encoding.PEM))
    for file in ca_files:
        _write(file, ca.public_bytes(Encoding.PEM))
    return cert_file


def show(file: Path) -> list[Shown]:
    """Return what the certificates in a file say.

    Raises:
        ConfigError: it holds none.
    """
    return [_shown(certificate) for certificate in _load(file)]


def _shown(certificate: x509.Certificate) -> Shown:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        found = x509.SubjectAlternativeName([])
    names = [f"URI:{name}" for name in found.get_values_for_type(x509.UniformResourceIdentifier)]
    names += [f"DNS:{name}" for name in found.get_values_for_type(x509.DNSName)]
    names += [f"IP:{name}" for name in found.get_values_for_type(x509.IPAddress)]
    return Shown(
        certificate.subject.rfc4514_string(),
        certificate.issuer.rfc4514_string(),
        names,
        certificate.not_valid_before_utc,
        certificate.not_valid_after_utc,
        certificate.fingerprint(SHA256()).hex(),
    )


def _load(file: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(file.read_bytes())
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{file} holds no certificate in PEM") from error


def _load_authority(directory: Path) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    key_file, cert_file = directory / "ca.key", directory / "ca.crt"
    if not (key_file.exists() and cert_file.exists()):
        raise ConfigError(
            f"{directory} holds no ca.key and ca.crt; `canister certs init {directory}` makes them"
        )
    ca = _load(cert_file)[0]
    try:
        key = load_pem_private_key(key_file.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(f"{key_file} cannot be used: {error}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != ca.public_key():
        raise ConfigError(f"{key_file} is not the key of {cert_file}")
    if ca.not_valid_after_utc <= datetime.now(UTC):
        raise ConfigError(f"{cert_file} ended at {ca.not_valid_after_utc}; make a new authority")
    return key, ca


def _cluster_of(ca: x509.Certificate, directory: Path) -> str:
    uris = [name for name in _shown(ca).names if name.startswith("URI:canister:")]
    if len(uris) != 1:
        raise ConfigError(
            f"{directory / 'ca.crt'} names no cluster; it was not made by `canister certs init`"
        )
    return uris[0].removeprefix("URI:")


def _builder(
    key: ec.EllipticCurvePrivateKey,
    subject: x509.Name,
    issuer: x509.Name,
    days: int,
    latest: datetime | None = None,
) -> x509.CertificateBuilder:
    now = datetime.now(UTC).replace(microsecond=0)
    end = now + timedelta(days=days)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BEFORE)
        .not_valid_after(end if latest is None else min(end, latest))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _common(name: str) -> str:
    """Return what of a name fits a common name: 64 bytes are sure to, whole characters of them."""
    return name.encode()[:64].decode(errors="ignore")


def _uri(cluster: str) -> x509.UniformResourceIdentifier:
    return x509.UniformResourceIdentifier(cluster_uri(cluster))


def _host(host: str) -> x509.GeneralName:
    ip = parse_ip(host)
    if ip is not None:
        return x509.IPAddress(ip)
    if not _HOST.fullmatch(host) or len(host) > 253:
        raise ConfigError(f"{host!r} is no host name and no IP address; give neither a port nor a wildcard")
    return x509.DNSName(host)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _is_same(one: Path, other: Path) -> bool:
    return one.exists() and one.samefile(other)


def _fresh(directory: Path, *names: str) -> list[Path]:
    """Make the directory and return the files' paths, none of which may exist."""
    files = [directory / name for name in names]
    for file in files:
        if file.exists() or file.is_symlink():
            raise ConfigError(f"{file} is there already and is never overwritten; name another directory")
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    return files


def _write(file: Path, data: bytes) -> None:
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as stream:
        stream.write(data)
