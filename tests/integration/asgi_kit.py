"""The Starlette application that the tests of its sessions share."""

import warnings
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import StarletteDeprecationWarning
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from canister import Canister
from canister.integrations.asgi import SessionMiddleware
from canister.record import NodeId, make_version
from canister.sessions import CookieSettings
from canister.sessions.keys import KeyRing
from canister.sessions.token import draft
from canister.testing.clock import ManualClock

with warnings.catch_warnings():
    # Starlette 1.10 wants httpx2, which the development environment does not hold yet.
    warnings.simplefilter("ignore", StarletteDeprecationWarning)
    from starlette.testclient import TestClient
    from starlette.testclient import WebSocketDenialResponse as WebSocketDenialResponse

KEY = "key-0123456789-abcdefghijklmnopqrs"
NAME = "__Host-id"
END = CookieSettings().end()

Handler = Callable[[Request], Awaitable[Response]]


def client_of(canister: Canister, *routes: Any, **settings: Any) -> TestClient:
    middleware = Middleware(SessionMiddleware, canister=canister, secret_keys=KEY, **settings)
    app = Starlette(routes=[*routes, *ROUTES], middleware=[middleware])
    return TestClient(app, base_url="https://testserver")


async def untouched(request: Request) -> Response:
    return PlainTextResponse("ok")


async def show(request: Request) -> Response:
    return JSONResponse(dict(request.session))


async def peek(request: Request) -> Response:
    return JSONResponse(request.session.peek("a"))


async def put(request: Request) -> Response:
    request.session.update(await request.json())
    return PlainTextResponse("ok")


async def append(request: Request) -> Response:
    request.session.setdefault("list", []).append(len(request.session["list"]))
    return PlainTextResponse("ok")


async def log_in(request: Request) -> Response:
    request.session.regenerate()
    request.session["user"] = "ann"
    return PlainTextResponse("ok")


async def log_out(request: Request) -> Response:
    request.session.destroy()
    return PlainTextResponse("ok")


ROUTES = [
    Route("/untouched", untouched),
    Route("/", show),
    Route("/peek", peek),
    Route("/put", put, methods=["POST"]),
    Route("/append", append, methods=["POST"]),
    Route("/log-in", log_in, methods=["POST"]),
    Route("/log-out", log_out, methods=["POST"]),
]


def token_of_elsewhere(clock: ManualClock) -> str:
    return draft(KeyRing([KEY])).seal(make_version(clock.now(), NodeId(b"node-B.."))).text


def with_cookie(value: str) -> dict[str, str]:
    return {"cookie": f"{NAME}={value}"}


def another_request(request: Request, path: str, **arguments: Any) -> None:
    """Run a whole request of the same client while *request* runs."""
    client = TestClient(request.app, base_url="https://testserver")
    client.post(path, headers={"cookie": request.headers["cookie"]}, **arguments)
