"""Streams and WebSockets of a real uvicorn end with their session, wherever it was ended."""

import asyncio
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import aiohttp
import pytest
from tests.integration.cluster import Cluster, Node, eventually, free_port

from canister.sessions import SessionManager

pytestmark = [pytest.mark.integration, pytest.mark.anyio]

SERVER = Path(__file__).with_name("stream_server.py")
KEY = "key-0123456789-abcdefghijklmnopqrs"
SOON = 1.0
"""Seconds within which a stream is to end."""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Server:
    """A uvicorn process of one node."""

    def __init__(self, node: Node, directory: Path) -> None:
        self.node = node
        self.url = f"http://127.0.0.1:{free_port()}"
        self._stderr = directory / "uvicorn.stderr"
        port = int(self.url.rpartition(":")[2])
        job = {"path": str(node.path), "settings": node.settings, "port": port}
        with self._stderr.open("wb") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-W", "error", str(SERVER), json.dumps(job)],
                stderr=stderr,
                stdout=stderr,
                cwd=directory,
                env={"CANISTER_SECRET_KEYS": KEY, "PYTHONPATH": ":".join(sys.path)},
            )
        eventually(lambda: self.listens(port), message=f"uvicorn starts: {self.log()}")

    def listens(self, port: int) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    def log(self) -> str:
        return self._stderr.read_text()

    def await_log(self, text: str) -> None:
        eventually(lambda: text in self.log(), message=f"{text!r} in the log:\n{self.log()}")

    def end(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(20) in (0, -signal.SIGTERM), self.log()


@contextmanager
def serving(node: Node, directory: Path, *, tolerated: str = "nothing") -> Iterator[Server]:
    """Run a server that logs nothing that is wrong, except what is *tolerated*."""
    server = Server(node, directory)
    try:
        yield server
        server.end()
        lines = [line for line in server.log().splitlines() if tolerated not in line]
        assert [line for line in lines if "ERROR" in line or "Traceback" in line] == [], server.log()
    finally:
        server.process.kill()
        server.process.wait()


@pytest.fixture
def server(cluster: Cluster, tmp_path: Path) -> Iterator[Server]:
    """A server on the first of two linked nodes."""
    first, _ = cluster.start(2)
    with serving(first, tmp_path) as server:
        yield server


class Browser:
    """A client that is logged in."""

    def __init__(self, server: Server, http: aiohttp.ClientSession) -> None:
        self.server = server
        self.http = http

    async def handle(self) -> str:
        async with self.http.get("/") as response:
            return (await response.text()).split()[1]

    @asynccontextmanager
    async def stream(self, path: str) -> AsyncIterator[aiohttp.ClientResponse]:
        """Open a stream and read its first event."""
        async with self.http.get(path) as response:
            assert response.status == 200
            assert await response.content.readuntil(b"\n\n") == b"data: x\n\n"
            yield response


@asynccontextmanager
async def browsing(server: Server) -> AsyncIterator[Browser]:
    jar = aiohttp.CookieJar(unsafe=True)  # the host is an address
    timeout = aiohttp.ClientTimeout(total=30)
    async with aiohttp.ClientSession(server.url, cookie_jar=jar, timeout=timeout) as http:
        async with http.post("/log-in") as response:
            assert response.status == 200
        yield Browser(server, http)


def in_another_process(cluster: Cluster, handle: str) -> None:
    cluster.nodes[0].process.do("destroy", id=handle)


def on_another_node(cluster: Cluster, handle: str) -> None:
    cluster.nodes[1].process.do("destroy", id=handle)


def by_ending_all_of_the_users(cluster: Cluster, handle: str) -> None:
    SessionManager(cluster.nodes[1].store, secret_keys=KEY).users.end_all("ann")


Ending = Callable[[Cluster, str], None]
ENDINGS: list[Ending] = [in_another_process, on_another_node, by_ending_all_of_the_users]


async def seconds_until(ended: Awaitable[object]) -> float:
    begin = time.monotonic()
    await asyncio.wait_for(ended, 10)
    return time.monotonic() - begin


@pytest.mark.parametrize("end", ENDINGS)
async def test_events_and_websockets_end_with_the_session(
    cluster: Cluster, server: Server, end: Ending
) -> None:
    async with (
        browsing(server) as browser,
        browser.stream("/stream?how=held") as held,
        browser.stream("/stream?how=unheld") as unheld,
        browser.http.ws_connect("/talk") as websocket,
    ):
        await websocket.send_str("hello")
        assert await websocket.receive_str() == "hello"
        handle = await browser.handle()
        eventually(lambda: cluster.nodes[1].store.record_status(handle).status == "live")
        begin = time.monotonic()
        await asyncio.to_thread(end, cluster, handle)
        message = await websocket.receive(timeout=10)
        assert await held.content.read() == b"", "ended in order: the client need not guess"
        took = time.monotonic() - begin
        print(f"{end.__name__}: {took:.2f} s")
        assert (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, 1008)
        assert message.extra == "the session is over"
        assert took < SOON
        server.await_log("stream held ends")
        assert not unheld.content.at_eof()
        assert "stream unheld ends" not in server.log()


async def test_others_streams_go_on(cluster: Cluster, server: Server) -> None:
    async with (
        browsing(server) as ann,
        browsing(server) as bob,
        ann.stream("/stream?how=ann") as hers,
        bob.stream("/stream?how=bob,busy") as his,
    ):
        on_another_node(cluster, await ann.handle())
        assert await hers.content.read() == b""
        for _ in range(3):
            assert await his.content.readuntil(b"\n\n") == b"data: x\n\n"
        assert "stream bob,busy ends" not in server.log()


@pytest.mark.parametrize("how", ["log-in", "log-in-last"])
async def test_a_log_in_in_the_same_request_is_what_the_stream_is_held_by(
    cluster: Cluster, server: Server, how: str
) -> None:
    """The log-in destroys the id that the request came with; the stream belongs to the new one."""
    async with browsing(server) as browser:
        before = await browser.handle()
        async with browser.stream(f"/stream?how={how},busy") as stream:
            after = await browser.handle()
            assert before != after
            end = time.monotonic() + SOON
            while time.monotonic() < end:
                assert await stream.content.readuntil(b"\n\n") == b"data: x\n\n"
            in_another_process(cluster, after)
            assert await seconds_until(stream.content.read()) < SOON


async def test_a_stream_may_be_held_from_within(cluster: Cluster, server: Server) -> None:
    async with browsing(server) as browser, browser.stream("/late") as stream:
        on_another_node(cluster, await browser.handle())
        assert await seconds_until(stream.content.read()) < SOON
        server.await_log("late ends")


async def test_work_after_the_response_is_not_cut_short(cluster: Cluster, server: Server) -> None:
    async with browsing(server) as browser, browsing(server) as watching:
        async with browser.http.get("/background") as response:
            assert await response.text() == "ok"
        server.await_log("background begins")
        await ended_and_seen(cluster, browser, watching, await browser.handle())
        async with watching.http.post("/go-on") as response:
            assert response.status == 200
        server.await_log("background is done")


@pytest.mark.parametrize("path", ["/talk", "/leave"])
async def test_a_websocket_that_was_closed_is_not_closed_again(
    cluster: Cluster, server: Server, path: str
) -> None:
    """Neither what the client closed nor what the application did; its clean-up runs to its end."""
    async with browsing(server) as browser, browsing(server) as watching:
        handle = await browser.handle()
        async with browser.http.ws_connect(f"{path}?linger") as websocket:
            if path == "/leave":
                assert (await websocket.receive()).data == 3000
        if path == "/talk":
            server.await_log("talk: the client went")
        await ended_and_seen(cluster, browser, watching, handle)
        async with watching.http.post("/go-on") as response:
            assert response.status == 200
        server.await_log("lingered to the end")


async def ended_and_seen(cluster: Cluster, ended: Browser, watching: Browser, handle: str) -> None:
    """End a session, and return when the server has seen that it, and one ended later, are over."""
    async with watching.stream("/stream?how=watching") as stream:
        in_another_process(cluster, handle)
        in_another_process(cluster, await watching.handle())
        assert await stream.content.read() == b""


async def test_a_download_that_is_cut_short_is_seen_to_be(cluster: Cluster, tmp_path: Path) -> None:
    cut = "ASGI callable returned without completing response"
    with serving(*cluster.start(1), tmp_path, tolerated=cut) as server:
        async with browsing(server) as browser, browser.stream("/stream?how=length") as stream:
            in_another_process(cluster, await browser.handle())
            with pytest.raises(aiohttp.ClientPayloadError):
                await stream.content.read()
        server.await_log(cut)


async def test_only_who_asks_keeps_the_session_alive(cluster: Cluster, tmp_path: Path) -> None:
    (node,) = cluster.start(1, session_timeout="2s", touch_interval="200ms")
    with serving(node, tmp_path) as server:
        async with (
            browsing(server) as ann,
            browsing(server) as bob,
            browsing(server) as eve,
            ann.stream("/stream?how=held,busy") as hers,
            bob.stream("/stream?how=keep,busy") as his,
            eve.http.ws_connect("/talk?keep") as websocket,
        ):
            assert 1 < await seconds_until(hers.content.read()) < 2.2 + SOON
            end = time.monotonic() + 3
            while time.monotonic() < end:
                assert await his.content.readuntil(b"\n\n") == b"data: x\n\n"
            await websocket.send_str("still here")
            assert await websocket.receive_str() == "still here"
            for kept in (bob, eve):
                async with kept.http.get("/") as response:
                    assert (await response.text()).startswith("ann ")
