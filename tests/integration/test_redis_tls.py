"""Redis over TLS: who is let in, who is refused, and files that are renewed."""

import asyncio
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.cluster import free_port
from tests.redis_servers import RedisServer, running_redis

from canister import Canister, ConfigError, StoreError, StoreUnavailableError, certs
from canister.sessions import SessionManager

pytestmark = pytest.mark.integration

KEY = "key-0123456789-abcdefghijklmnopqrs"


class Tls:
    """A server that speaks TLS with whoever shows a certificate of the same authority."""

    def __init__(self, directory: Path) -> None:
        self.ca = certs.make_authority(directory / "authority", "shop")
        self.files = directory / "files"
        certs.issue(self.ca.parent, ["127.0.0.1"], self.files)
        self.port = free_port()
        self.server: RedisServer | None = None

    def options(self) -> list[str]:
        files = ["--tls-cert-file", f"{self.files}/node.crt", "--tls-key-file", f"{self.files}/node.key"]
        return ["--tls-port", str(self.port), *files, "--tls-ca-cert-file", str(self.ca)]

    def url(self, files: Path | None = None, host: str = "127.0.0.1", ca: Path | None = None) -> str:
        files = files or self.files
        shown = f"cert={files}/node.crt&key={files}/node.key"
        return f"rediss://{host}:{self.port}?ca={ca or self.ca}&{shown}"


@pytest.fixture
def tls(tmp_path: Path) -> Iterator[Tls]:
    tls = Tls(tmp_path)
    with running_redis(tmp_path / "redis", *tls.options()) as server:
        tls.server = server
        yield tls


def test_sessions_over_tls(tls: Tls) -> None:
    """Blocking and awaitable; values larger than a record of TLS; and what others end is heard."""
    text = "x" * 200_000

    async def main(manager: SessionManager) -> None:
        session = await manager.aload([])
        session["text"] = text
        set_cookie = (await manager.acommit(session)).set_cookie or ""
        cookie = set_cookie.partition("=")[2].partition(";")[0]
        loaded = await asyncio.gather(*(manager.aload([cookie]) for _ in range(5)))
        assert [one["text"] for one in loaded] == [text] * 5

    with Canister(tls.url()) as node:
        assert node.put("s", "k", text) is None
        assert node.get("s", "k") == text
        asyncio.run(main(SessionManager(node, secret_keys=KEY)))
        assert node.engine.changes_since(0).missed
        number = node.engine.last_stamp()
        node.destroy("s")
        deadline = time.monotonic() + 10
        while not node.engine.changes_since(number).sessions:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_who_is_refused(tls: Tls, tmp_path: Path) -> None:
    """A server of another authority or name at once; one that does not want us within the time."""
    other = certs.make_authority(tmp_path / "other", "shop")
    begun = time.monotonic()
    with pytest.raises(StoreError, match="shows a certificate that is not accepted") as refused:
        Canister(tls.url(ca=other), remote_timeout="20s")
    assert not isinstance(refused.value, StoreUnavailableError)
    with pytest.raises(StoreError, match=r"not accepted .*localhost.*check host and ca"):
        Canister(tls.url(host="localhost"), remote_timeout="20s")
    assert time.monotonic() - begun < 10
    strange = tmp_path / "strange"
    certs.issue(other.parent, ["127.0.0.1"], strange)
    for url in (tls.url(strange), f"redis://127.0.0.1:{tls.port}"):
        with pytest.raises(StoreError):
            Canister(url, remote_timeout="500ms")
    with pytest.raises(ConfigError, match="are not a certificate and its key"):
        Canister(f"rediss://127.0.0.1:{tls.port}?cert={tls.ca}&key={strange}/node.key")
    with pytest.raises(ConfigError, match="holds no certificates"):
        Canister(f"rediss://127.0.0.1:{tls.port}?ca={strange}/node.key")


def test_files_that_are_renewed(tls: Tls, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """New ones count from the next connection on; half of them does not harm."""
    assert tls.server is not None
    own, other = tmp_path / "own", certs.make_authority(tmp_path / "other", "shop")
    certs.issue(tls.ca.parent, ["127.0.0.1"], own)
    strange = tmp_path / "strange"
    certs.issue(other.parent, ["127.0.0.1"], strange)
    with Canister(tls.url(own), remote_timeout="500ms") as node, tls.server.client() as client:

        def connect_anew() -> None:
            client.client_kill_filter(_type="normal", skipme=True)
            node.put("s", "k", 1)

        node.put("s", "k", 1)
        shutil.copy(strange / "node.crt", own / "node.crt")
        connect_anew()
        assert "what was read before goes on being used" in caplog.text
        shutil.copy(strange / "node.key", own / "node.key")
        with pytest.raises(StoreUnavailableError):
            connect_anew()
        for name in ("node.crt", "node.key"):
            shutil.copy(tls.files / name, own / name)
        connect_anew()


@pytest.mark.parametrize("in_loop", [True, False])
def test_a_server_that_hangs_in_the_handshake(tls: Tls, in_loop: bool) -> None:
    """One deadline for connection, handshake and answer."""
    assert tls.server is not None
    with Canister(tls.url(), remote_timeout="500ms") as node, tls.server.client() as client:
        client.client_kill_filter(_type="normal", skipme=True)
        tls.server.signal(signal.SIGSTOP)
        begun = time.monotonic()
        with pytest.raises(StoreUnavailableError):
            asyncio.run(node.engine.beside(node.get, "s", "k")) if in_loop else node.get("s", "k")
        assert time.monotonic() - begun < 1.5
        tls.server.signal(signal.SIGCONT)
        assert node.get("s", "k") is None
