"""The round-robin proxy in front of the nodes of a site: one address, and each request goes to the next."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from itertools import cycle
from typing import NamedTuple

_BACKLOG = 400
_CONNECTION = re.compile(rb"\r\nconnection:[^\r]*", re.IGNORECASE)
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class Passed(NamedTuple):
    """A request that was passed on: its method, its path, and the number of the node it went to."""

    method: str
    path: str
    node: int


class Proxy:
    """Passes requests on, and no connection is used twice.

    Args:
        ports: those of the nodes.

    Attributes:
        passed: what was passed on, in this order.
    """

    def __init__(self, ports: list[int]) -> None:
        self.passed: list[Passed] = []
        self._nodes = cycle(enumerate(ports))
        self._gate: asyncio.Barrier | None = None
        self._server: asyncio.Server | None = None

    @property
    def port(self) -> int:
        """Where it listens."""
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Proxy"]:
        """Run it."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=_BACKLOG)
        async with self._server:
            yield self

    @contextmanager
    def together(self, count: int) -> Iterator[None]:
        """Hold forms back until *count* have come, and then let all of them go at once."""
        self._gate = asyncio.Barrier(count)
        try:
            yield
        finally:
            self._gate = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = _LENGTH.search(head)
            body = await reader.readexactly(int(length[1])) if length else b""
            method, path, _ = head.decode("latin-1").split(" ", 2)
            if self._gate is not None and method == "POST":
                await self._gate.wait()
            node, port = next(self._nodes)
            self.passed.append(Passed(method, path, node))
            head = _CONNECTION.sub(b"", head).replace(b"\r\n", b"\r\nConnection: close\r\n", 1)
            writer.write(await exchange(port, head + body))
            await writer.drain()
        except asyncio.IncompleteReadError:
            pass  # browsers open connections before they have a use for them
        except asyncio.CancelledError:
            return  # the scenario failed; CPython 3.11 would log each request that it left
        finally:
            writer.close()


async def exchange(port: int, request: bytes) -> bytes:
    """Send a request to a port of this machine, and return all that comes back."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        return await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()
