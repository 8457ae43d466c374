"""A Starlette application with one kind of sessions, called in its process: no socket, no server."""

import asyncio
import json
import logging
import sys
from http.cookies import SimpleCookie
from typing import Any

from serving import VALUE, serve, timed_async, work
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

_SECRET = "0123456789abcdef0123456789abcdef"


class Side:
    """A client that sends one request after the other and keeps its cookies."""

    def __init__(self, job: dict[str, Any]) -> None:
        self._cookies: dict[str, str] = {}
        self._uses_sessions = job["kind"] != "none"
        self._works = job.get("works", False)
        self._writes = 0
        self._app = Starlette(routes=[Route("/", self._page)], middleware=_middleware(job))
        self._runner = asyncio.Runner()

    def requests(self, count: int) -> dict[str, float]:
        return self._runner.run(timed_async(self._request, count))

    async def _page(self, request: Request) -> Response:
        if self._uses_sessions:
            session = request.session
            session.get("user")
            if request.scope["query_string"] == b"write":
                self._writes += 1
                session["user"] = VALUE + str(self._writes)
        if self._works:
            work()
        return PlainTextResponse("done")

    async def _request(self, number: int) -> None:
        cookies = "; ".join(f"{name}={value}" for name, value in self._cookies.items())
        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": "GET",
            "scheme": "https",
            "path": "/",
            "raw_path": b"/",
            "root_path": "",
            "query_string": b"" if number % 10 else b"write",
            "headers": [(b"host", b"localhost"), (b"cookie", cookies.encode())],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 443),
        }
        await self._app(scope, _receive, self._send)

    async def _send(self, message: Any) -> None:
        for name, value in message.get("headers", ()):
            if name == b"set-cookie":
                self._cookies.update({k: m.value for k, m in SimpleCookie(value.decode()).items()})
        if message.get("status", 200) != 200:
            raise RuntimeError(f"answered with {message['status']}")


class _NoSessions:
    """What Starlette needs of any sessions, and nothing behind it."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        scope["session"] = {}

        async def sending(message: Any) -> None:
            await send(message)

        await self._app(scope, receive, sending)


async def _receive() -> dict[str, Any]:
    return {"type": "http.request", "body": b"", "more_body": False}


def _middleware(job: dict[str, Any]) -> list[Middleware]:
    if job["kind"] == "canister":
        from canister import Canister
        from canister.integrations.asgi import SessionMiddleware

        return [Middleware(SessionMiddleware, canister=Canister(job["path"]), secret_keys=_SECRET)]
    if job["kind"] == "noop":
        return [Middleware(_NoSessions)]
    if job["kind"] == "signed":
        from starlette.middleware.sessions import SessionMiddleware as SignedCookies

        return [Middleware(SignedCookies, secret_key=_SECRET)]
    if job["kind"] == "starsessions":
        from starsessions import SessionAutoloadMiddleware
        from starsessions import SessionMiddleware as Starsessions
        from starsessions.stores.redis import RedisStore

        store = RedisStore(f"redis://127.0.0.1:{job['port']}")
        return [Middleware(Starsessions, store=store, lifetime=1200), Middleware(SessionAutoloadMiddleware)]
    return []


if __name__ == "__main__":
    logging.basicConfig(level=logging.ERROR)
    serve(Side(json.loads(sys.argv[1])))
