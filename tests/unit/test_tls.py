"""The files of TLS: what fits, what is told when it does not, and taking in new ones."""

import asyncio
import logging
import os
import ssl
import time
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from canister import certs
from canister.agent import tls
from canister.agent.tls import Credentials, HandshakeError, check_host
from canister.config import Config
from canister.errors import ConfigError


@pytest.fixture
def node(tmp_path: Path) -> Path:
    """Return the directory of a node of the cluster ``shop`` at 127.0.0.1."""
    certs.make_authority(tmp_path / "ca", "shop")
    return certs.issue(tmp_path / "ca", ["127.0.0.1"]).parent


def config(node: Path, **changes: Any) -> Config:
    given: dict[str, Any] = {
        "listen": "127.0.0.1:1",
        "cluster": "shop",
        "tls_ca": node / "ca.crt",
        "tls_cert": node / "node.crt",
        "tls_key": str(node / "node.key"),
    }
    return Config(**{**given, **changes})


def other_authority(node: Path) -> Path:
    return certs.make_authority(node.parent.parent / "other", "shop").parent


def test_files_that_fit(node: Path) -> None:
    """They are taken, also by an address that is advertised."""
    Credentials(config(node))
    Credentials(config(node, listen="0.0.0.0:1", advertise="127.0.0.1:1"))


def test_files_that_do_not_fit(node: Path, tmp_path: Path) -> None:
    """The error names the setting, the file and what is wrong with it."""
    other = other_authority(node)
    strange = certs.issue(other, ["127.0.0.1"]).parent
    garbage = tmp_path / "garbage"
    garbage.write_text("garbage")
    for changes, said in (
        ({"tls_ca": tmp_path / "no"}, f"tls_ca {tmp_path / 'no'} cannot be read: No such file"),
        ({"tls_cert": tmp_path / "no"}, f"tls_cert {tmp_path / 'no'} cannot be read"),
        ({"tls_key": tmp_path}, f"tls_key {tmp_path} cannot be read: Is a directory"),
        ({"tls_ca": garbage}, f"tls_ca {garbage} holds no certificates"),
        ({"tls_cert": garbage}, "are not a certificate and its key"),
        ({"tls_key": garbage}, "are not a certificate and its key"),
        ({"tls_key": strange / "node.key"}, "key values mismatch"),
        ({"tls_ca": other / "ca.crt"}, f"(by tls_ca {other / 'ca.crt'})"),
        ({"cluster": "forum"}, "the certificate is for canister:shop, not for canister:forum"),
        ({"listen": "127.0.0.2:1"}, "the certificate is for 127.0.0.1, not for 127.0.0.2"),
        ({"listen": "localhost:1"}, "the certificate is for 127.0.0.1, not for localhost"),
    ):
        with pytest.raises(ConfigError) as caught:
            Credentials(config(node, **changes))
        assert said in str(caught.value)


def test_a_key_with_a_passphrase_is_refused(node: Path) -> None:
    """Nobody is asked for it."""
    key = load_pem_private_key((node / "node.key").read_bytes(), None)
    encrypted = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    (node / "node.key").write_bytes(encrypted)
    with pytest.raises(ConfigError, match="without a passphrase"):
        Credentials(config(node))


@pytest.mark.parametrize(("before", "days"), [(10, -1), (-1, 10)])
def test_a_node_whose_certificate_is_not_valid_now_starts(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    before: int,
    days: int,
) -> None:
    """Its own processes need it; that its peers will refuse it is an error in the log."""
    certs.make_authority(tmp_path, "shop")
    monkeypatch.setattr(certs, "_BEFORE", timedelta(days=before))
    node = certs.issue(tmp_path, ["127.0.0.1"], days=days).parent
    Credentials(config(node))
    (record,) = (record for record in caplog.records if record.levelno == logging.ERROR)
    assert "peers refuse this node until the files are renewed" in record.getMessage()


@pytest.mark.parametrize(
    ("days", "authority_days", "quiet", "told"),
    [
        (90, 3650, 31, [(29, "node.crt ends in 29 days"), (1.5, "node.crt ends in 36 hours")]),
        (3, 3650, 2, [(0.9, "node.crt ends in 22 hours")]),
        (90, 90, 31, [(29, "node.crt ends in 29 days")]),
    ],
    ids=["a long one", "a short one", "with its authority"],
)
def test_that_a_certificate_ends_is_told_in_good_time(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    days: int,
    authority_days: int,
    quiet: float,
    told: list[tuple[float, str]],
) -> None:
    """Once a day, by a node that runs, and as an error from its end on; a new certificate ends it."""
    monkeypatch.setattr(tls, "_LOOK", 0.0)
    certs.make_authority(tmp_path, "shop", authority_days)
    node = certs.issue(tmp_path, ["127.0.0.1"], days=days).parent
    end = certs.show(node / "node.crt")[0].ends.timestamp()
    credentials = Credentials(config(node))

    def logged(days_before: float) -> list[tuple[str, str]]:
        caplog.clear()
        monkeypatch.setattr(time, "time", lambda: end - days_before * 86_400)
        for _ in range(3):
            credentials.renew()
        return [(record.levelname, record.getMessage()) for record in caplog.records]

    assert not logged(quiet)
    for left, words in told:
        ((level, message),) = logged(left)
        assert (level, words in message) == ("WARNING", True), message
    ((level, message),) = logged(-0.1)
    assert (level, "has ended; peers refuse this node until it is renewed" in message) == ("ERROR", True)
    if authority_days > days:
        fresh = certs.issue(tmp_path, ["127.0.0.1"], days=days + 60, out=tmp_path / "fresh").parent
        for name in ("node.key", "node.crt"):
            os.replace(fresh / name, node / name)
        assert not [level for level, _ in logged(-0.1) if level != "INFO"]


def test_that_an_authority_ends_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Also where the certificate says that it goes on; one that replaces it, with the same name, counts."""
    begins, end, later = (f"Jan  1 00:00:00 {year} GMT" for year in (2030, 2031, 2033))
    ca = {"subject": "ca", "notAfter": end}
    certificate = {"issuer": "ca", "notBefore": begins, "notAfter": later}
    files = tls._Files(tmp_path / "ca.crt", tmp_path / "node.crt", tmp_path / "node.key")
    now = ssl.cert_time_to_seconds(end) - 3 * 86_400
    tls._Validity(files, certificate, [ca, {**ca, "notAfter": later}]).tell(now)
    assert not caplog.records
    tls._Validity(files, certificate, [ca, {**ca, "subject": "another"}]).tell(now)
    assert "ca.crt ends in 3 days; renew it" in caplog.text


def test_new_files_are_taken_once_they_fit(
    node: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A new key without its certificate is told once, and the old files stay in use until it comes."""
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(tls, "_LOOK", 0.0)
    credentials = Credentials(config(node))
    fresh = certs.issue(node.parent, ["127.0.0.1"], out=node.parent / "fresh").parent
    before = credentials._contexts
    credentials.renew()
    assert credentials._contexts is before
    os.replace(fresh / "node.key", node / "node.key")
    for _ in range(3):
        credentials.renew()
    assert credentials._contexts is before
    assert caplog.text.count("the certificates read before stay in use") == 1
    os.replace(fresh / "node.crt", node / "node.crt")
    credentials.renew()
    assert credentials._contexts is not before
    assert caplog.text.count("links use") == 2
    for times in (2, 3):
        os.rename(node / "ca.crt", node / "away")
        credentials.renew()
        assert caplog.text.count("the certificates read before stay in use") == times
        os.rename(node / "away", node / "ca.crt")
        credentials.renew()


def test_files_are_looked_at_once_a_second(node: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many handshakes there are."""
    credentials = Credentials(config(node))
    before = credentials._contexts
    os.utime(node / "node.crt")
    credentials.renew()
    assert credentials._contexts is before
    credentials._looked -= 1.0
    credentials.renew()
    assert credentials._contexts is not before


@pytest.mark.parametrize(
    ("address", "fits"),
    [
        ("10.0.0.1:1", True),
        ("a.example.org:7400", True),
        ("A.example.ORG:7400", True),
        ("[::1]:1", True),
        ("[0:0::1]:1", True),
        ("10.0.0.2:1", False),
        ("example.org:1", False),
        ("b.a.example.org:1", False),
        ("x.wild.example.org:1", False),
        ("10.0.0.3:1", False),
        ("canister:1", False),
    ],
)
def test_hosts(address: str, fits: bool) -> None:
    """A host is one of the certificate's names or IP addresses; an IP address given as a name is none."""
    names = [
        ("URI", "canister:shop"),
        ("DNS", "a.example.org"),
        ("DNS", "*.wild.example.org"),
        ("IP Address", "10.0.0.1"),
        ("IP Address", "0:0:0:0:0:0:0:1\n"),
        ("DNS", "10.0.0.3"),
    ]
    if fits:
        check_host({"subjectAltName": names}, address)
        return
    with pytest.raises(HandshakeError) as caught:
        check_host({"subjectAltName": names}, address)
    assert caught.value.kind == "wrong address"


def test_a_certificate_without_names_is_for_nothing(node: Path) -> None:
    """Neither for a cluster nor for a host."""
    with pytest.raises(HandshakeError, match="for none, not for canister:shop"):
        Credentials(config(node)).check_cluster({})
    with pytest.raises(HandshakeError, match=r"for none, not for 10\.0\.0\.1"):
        check_host({}, "10.0.0.1:1")


def test_writing_where_tls_has_ended_ends_the_connection(node: Path) -> None:
    """It raises nothing: it happens in the midst of sending to all peers."""

    async def write() -> list[str]:
        writer = Mock()
        stream = Credentials(config(node)).secure(asyncio.StreamReader(), writer, server=True)
        stream.write(b"x")
        return [call[0] for call in writer.mock_calls]

    assert asyncio.run(write()) == ["transport.abort"]
