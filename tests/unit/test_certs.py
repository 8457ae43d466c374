import json
import os
import ssl
import stat
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.integration.test_cli_kit import refused, run

from canister import certs
from canister.errors import ConfigError


def modes(directory: Path) -> dict[str, str]:
    """Return the mode of every file."""
    return {
        path.name: oct(stat.S_IMODE(path.stat().st_mode)) for path in directory.iterdir() if path.is_file()
    }


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    """Return the directory of an authority for the cluster ``shop``."""
    certs.make_authority(tmp_path / "ca", "shop")
    return tmp_path / "ca"


def test_an_authority(authority: Path) -> None:
    """Its certificate names the cluster, signs itself and holds for ten years; its owner alone reads it."""
    (shown,) = certs.show(authority / "ca.crt")
    assert shown.subject == shown.issuer == "CN=Canister CA shop"
    assert shown.names == ["URI:canister:shop"]
    assert timedelta(days=3649) < shown.ends - datetime.now(UTC) <= timedelta(days=3650)
    assert shown.begins < datetime.now(UTC) - timedelta(minutes=50)
    assert modes(authority) == {"ca.key": "0o600", "ca.crt": "0o600"}
    assert stat.S_IMODE(authority.stat().st_mode) == 0o700


def test_a_certificate(authority: Path) -> None:
    """A node's certificate names its cluster and its hosts; key and authority lie beside it."""
    cert = certs.issue(authority, ["10.0.0.1", "a.example.org", "::1"])
    assert cert == authority / "10.0.0.1" / "node.crt"
    (shown,) = certs.show(cert)
    assert shown.issuer == "CN=Canister CA shop"
    assert shown.names == ["URI:canister:shop", "DNS:a.example.org", "IP:10.0.0.1", "IP:::1"]
    assert timedelta(days=364) < shown.ends - datetime.now(UTC) <= timedelta(days=365)
    assert modes(cert.parent) == dict.fromkeys(("node.key", "node.crt", "ca.crt"), "0o600")
    assert cert.with_name("ca.crt").read_bytes() == (authority / "ca.crt").read_bytes()


def test_a_certificate_ends_with_its_authority(tmp_path: Path) -> None:
    """What outlives its authority would be of no use."""
    certs.make_authority(tmp_path, "shop", days=10)
    cert = certs.issue(tmp_path, ["a"], out=tmp_path, days=365)
    assert certs.show(cert)[0].ends == certs.show(tmp_path / "ca.crt")[0].ends


@pytest.mark.skipif(not hasattr(ssl, "VERIFY_X509_STRICT"), reason="ssl has no strict verification")
def test_certificates_stand_strict_verification(authority: Path) -> None:
    """Both ends verify them, as strictly as OpenSSL can, and by their purpose."""
    directory = certs.issue(authority, ["localhost", "127.0.0.1"]).parent
    one, other = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends: list[ssl.SSLObject] = []
    for server in (False, True):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
        context.verify_mode = ssl.CERT_REQUIRED
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        context.load_verify_locations(authority / "ca.crt")
        context.load_cert_chain(directory / "node.crt", directory / "node.key")
        name = None if server else "127.0.0.1"
        ends.append(
            context.wrap_bio(other if server else one, one if server else other, server, server_hostname=name)
        )
    for end in (*ends, *ends):
        try:
            end.do_handshake()
        except ssl.SSLWantReadError:
            continue
    assert all(end.getpeercert() for end in ends)


@pytest.mark.parametrize("name", ["ca.key", "ca.crt"])
def test_an_authority_is_never_overwritten(authority: Path, name: str) -> None:
    """Neither file is, also when the other one is missing."""
    before = (authority / name).read_bytes()
    for other in authority.iterdir():
        if other.name != name:
            other.unlink()
    with pytest.raises(ConfigError, match="never overwritten"):
        certs.make_authority(authority, "shop")
    assert [path.name for path in authority.iterdir()] == [name]
    assert (authority / name).read_bytes() == before


@pytest.mark.parametrize("name", ["node.key", "node.crt", "ca.crt"])
def test_a_node_is_never_overwritten(authority: Path, tmp_path: Path, name: str) -> None:
    """Nothing of it is, and nothing is written beside it."""
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_text("mine")
    with pytest.raises(ConfigError, match="never overwritten"):
        certs.issue(authority, ["a"], out)
    assert [path.name for path in out.iterdir()] == [name]
    assert (out / name).read_text() == "mine"


def test_a_dangling_link_is_not_followed(authority: Path, tmp_path: Path) -> None:
    """A key is not written to where a link points."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "node.key").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="never overwritten"):
        certs.issue(authority, ["a"], out)
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("host", ["", "a:1", "*.example.org", "a b", "-a", "a..b", "x" * 64, "a/b", "ö"])
def test_no_hosts(authority: Path, host: str) -> None:
    """What is no host is refused, and nothing is made."""
    with pytest.raises(ConfigError, match="no host name"):
        certs.issue(authority, [host])
    assert len(list(authority.iterdir())) == 2


def test_a_key_of_another_authority_does_not_sign(authority: Path, tmp_path: Path) -> None:
    """The authority's two files have to fit together."""
    certs.make_authority(tmp_path / "other", "shop")
    os.replace(tmp_path / "other" / "ca.key", authority / "ca.key")
    with pytest.raises(ConfigError, match="is not the key of"):
        certs.issue(authority, ["a"])


def test_an_authority_that_is_over_does_not_sign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what to do."""
    monkeypatch.setattr(certs, "_BEFORE", timedelta(days=10))
    certs.make_authority(tmp_path, "shop", days=-1)
    with pytest.raises(ConfigError, match="make a new authority"):
        certs.issue(tmp_path, ["a"])


def test_several_certificates_in_a_file(authority: Path, tmp_path: Path) -> None:
    """A bundle of authorities is shown whole."""
    other = certs.make_authority(tmp_path / "other", "forum")
    bundle = tmp_path / "bundle.crt"
    bundle.write_bytes((authority / "ca.crt").read_bytes() + other.read_bytes())
    assert [shown.names for shown in certs.show(bundle)] == [["URI:canister:shop"], ["URI:canister:forum"]]


# The commands.


def test_commands(tmp_path: Path) -> None:
    """Init, issue and show, as text and as JSON."""
    ca, node = tmp_path / "ca", tmp_path / "node"
    out = run("certs", "init", ca, "--cluster", "my shop", "--days", 30).out
    assert out.startswith(f"made {ca / 'ca.crt'} and ca.key, valid until ")
    made = run("certs", "issue", ca, "--host", "10.0.0.1", "--out", node, "--days", 5, "--json").json
    assert made["names"] == ["URI:canister:my%20shop", "IP:10.0.0.1"]
    assert made["days_left"] == 4
    shown = run("certs", "show", node / "node.crt", node / "ca.crt", "--json").json
    assert shown[0] == made
    assert [one["file"] for one in shown] == [str(node / "node.crt"), str(node / "ca.crt")]
    text = run("certs", "show", node / "node.crt", node / "ca.crt").out
    assert f"fingerprint  sha256 {made['fingerprint']}\n\nfile         {node / 'ca.crt'}\n" in text
    assert "(4 days left)" in text
    assert json.dumps(shown)


def test_commands_that_fail(tmp_path: Path) -> None:
    """One line tells what to do."""
    assert "`canister certs init" in refused("certs", "issue", tmp_path / "ca", "--host", "a")
    assert "cannot be read: No such file" in refused("certs", "show", tmp_path / "none")
    run("certs", "init", tmp_path)
    assert "no certificate in PEM" in refused("certs", "show", tmp_path / "ca.key")
    assert "never overwritten" in refused("certs", "init", tmp_path)
    assert "cluster must be a name" in refused("certs", "init", tmp_path / "x", "--cluster", "x" * 65)


@pytest.mark.parametrize("words", [["init", "d", "--days", "0"], ["issue", "d"], ["show"], []])
def test_wrong_usage(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong arguments are code 2."""
    monkeypatch.chdir(tmp_path)
    assert "usage: canister" in run("certs", *words, code=2).err
    assert not list(tmp_path.iterdir())


def test_without_cryptography(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands say which package they need."""
    monkeypatch.setitem(sys.modules, "canister.certs", None)
    monkeypatch.delattr("canister.certs")
    for words in (["init", tmp_path], ["issue", tmp_path, "--host", "a"], ["show", tmp_path]):
        assert "pip install 'canister-sessions[tls]'" in refused("certs", *words)


def test_a_name_of_long_characters_is_cut_between_them(tmp_path: Path) -> None:
    """A common name has room for 64 bytes."""
    certs.make_authority(tmp_path, "é" * 32)
    (shown,) = certs.show(tmp_path / "ca.crt")
    assert shown.subject == f"CN=Canister CA {'é' * 26}"
