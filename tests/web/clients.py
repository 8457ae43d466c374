"""Many small HTTP clients of a site."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from tests.web.proxy import Proxy, exchange

AT_ONCE = 200
"""So many requests are under way at the most."""
_PATIENCE = 30.0
_PAUSE = 0.2
"""Seconds before a client comes back that was told to come back later."""


class Answer(NamedTuple):
    """A response: its status, its body, and the cookies it sets ("" takes one away)."""

    status: int
    text: str
    cookies: dict[str, str]


class Web:
    """A site as its clients see it: one address, behind which each request goes to the next node.

    Attributes:
        ports: those of the nodes, to ask one of them and no other.
        refusals: how many requests were told to come back later.
    """

    def __init__(self, ports: list[int]) -> None:
        self.ports = ports
        self.refusals = 0
        self.requests = 0
        self._free = asyncio.Semaphore(AT_ONCE)
        self._proxy = Proxy(ports)

    def client(self, cookies: Mapping[str, str] | None = None, *, node: int | None = None) -> "Client":
        """Return a client with a jar of its own, behind the proxy or at one node."""
        return Client(self, self._proxy.port if node is None else self.ports[node], dict(cookies or {}))

    async def send(self, port: int, method: str, path: str, cookies: Mapping[str, str]) -> Answer:
        """Send one request and return the response."""
        jar = "; ".join(f"{name}={value}" for name, value in cookies.items())
        lines = [f"{method} {path} HTTP/1.1", f"Host: 127.0.0.1:{port}", "Connection: close"]
        lines += [f"Cookie: {jar}"] if jar else []
        lines += ["Content-Length: 0"] if method == "POST" else []
        async with self._free:
            self.requests += 1
            data = await exchange(port, "\r\n".join([*lines, "", ""]).encode())
        return _parse(data)

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Web"]:
        """Run the proxy."""
        async with self._proxy.running():
            yield self


class Client:
    """Somebody with a cookie jar."""

    def __init__(self, web: Web, port: int, jar: dict[str, str]) -> None:
        self.jar = jar
        self._web = web
        self._port = port

    async def send(self, method: str, path: str) -> Answer:
        """Send one request and keep the cookies that come back."""
        answer = await self._web.send(self._port, method, path, self.jar)
        self.jar |= answer.cookies
        self.jar = {name: value for name, value in self.jar.items() if value}
        return answer

    async def post(self, path: str) -> None:
        """Post until it is done: who is told to come back later comes back later."""
        answer = await self._insist("POST", path)
        assert answer == (200, "ok", answer.cookies), (path, answer)

    async def show(self) -> dict[str, Any]:
        """Return what the application shows of the session."""
        answer = await self._insist("GET", "/show")
        assert answer.status == 200, answer
        shown: dict[str, Any] = json.loads(answer.text)
        return shown

    async def _insist(self, method: str, path: str) -> Answer:
        async with asyncio.timeout(_PATIENCE):
            while (answer := await self.send(method, path)).status == 503:
                self._web.refusals += 1
                await asyncio.sleep(_PAUSE)
        return answer


def browse(ports: list[int], scenario: Callable[[Web], Awaitable[Any]]) -> Any:
    """Run *scenario* with the proxy in front of the nodes."""

    async def run() -> Any:
        async with Web(ports).running() as web:
            return await scenario(web)

    return asyncio.run(run())


def _parse(data: bytes) -> Answer:
    head, _, body = data.partition(b"\r\n\r\n")
    status, *fields = head.decode("latin-1").split("\r\n")
    headers = [(name.lower(), value.strip()) for name, _, value in (field.partition(":") for field in fields)]
    if ("transfer-encoding", "chunked") in headers:
        body = _join(body)
    cookies = [value for name, value in headers if name == "set-cookie"]
    return Answer(int(status.split()[1]), body.decode(), dict(map(_cookie, cookies)))


def _join(body: bytes) -> bytes:
    chunks: list[bytes] = []
    while True:
        size, _, rest = body.partition(b"\r\n")
        length = int(size, 16)
        if length == 0:
            return b"".join(chunks)
        chunks.append(rest[:length])
        body = rest[length + 2 :]


def _cookie(header: str) -> tuple[str, str]:
    pair, *attributes = (part.strip() for part in header.split(";"))
    name, _, value = pair.partition("=")
    over = any(a.lower() == "max-age=0" or ("expires=" in a.lower() and " 1970 " in a) for a in attributes)
    return name, "" if over else value.strip('"')
