"""Serves an application from a thread, so that a check can stop a request halfway."""

import asyncio
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

PATIENCE = 20.0


class Place(NamedTuple):
    """What an application may use: an empty directory, and an empty Redis database."""

    directory: Path
    redis_url: str


class Gate:
    """Where the application's slow routes wait until the check lets them go on."""

    def __init__(self) -> None:
        self._reached = threading.Event()
        self._opened = threading.Event()

    def wait(self) -> None:
        """Wait in a slow route."""
        self._reached.set()
        assert self._opened.wait(PATIENCE)

    async def wait_async(self) -> None:
        """Do what `wait` does; the event loop goes on."""
        await asyncio.to_thread(self.wait)

    @contextmanager
    def held(self, request: Any) -> Iterator[None]:
        """Run *request* in a thread, yield once it waits, and let it end."""
        self._reached.clear()
        self._opened.clear()
        thread = threading.Thread(target=request)
        thread.start()
        assert self._reached.wait(PATIENCE), "the slow route was not reached"
        try:
            yield
        finally:
            self._opened.set()
            thread.join(PATIENCE)


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        return


class _Threading(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True


@contextmanager
def wsgi(app: Any) -> Iterator[int]:
    """Serve a WSGI application; yield the port."""
    server = make_server("127.0.0.1", 0, app, _Threading, _Quiet)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def asgi(app: Any) -> Iterator[int]:
    """Serve an ASGI application; yield the port."""
    import uvicorn  # not every rival's environment has it

    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()


@contextmanager
def aiohttp(app: Any) -> Iterator[int]:
    """Serve an aiohttp application; yield the port."""
    from aiohttp import web  # not every rival's environment has it

    loop, ports, ready = asyncio.new_event_loop(), [0], threading.Event()
    runner = web.AppRunner(app, access_log=None)

    async def start() -> None:
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        ports[0] = runner.addresses[0][1]
        ready.set()

    def run() -> None:
        loop.run_until_complete(start())
        loop.run_forever()
        loop.run_until_complete(runner.cleanup())
        loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    assert ready.wait(PATIENCE)
    try:
        yield ports[0]
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
