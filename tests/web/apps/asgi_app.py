"""Starlette."""

import os

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from canister import Canister
from canister.integrations.asgi import SessionMiddleware, session_of
from canister.sessions import CookieSettings


async def plain(request: Request) -> Response:
    return PlainTextResponse("plain")


async def pid(request: Request) -> Response:
    return PlainTextResponse(str(os.getpid()))


async def show(request: Request) -> Response:
    session = session_of(request)
    return JSONResponse({"user": session.user, "data": dict(session), "handle": session.handle})


async def put(request: Request) -> Response:
    request.session[request.path_params["key"]] = request.path_params["value"]
    return PlainTextResponse("ok")


async def login(request: Request) -> Response:
    session_of(request).login(request.path_params["user"])
    return PlainTextResponse("ok")


async def logout(request: Request) -> Response:
    session_of(request).logout()
    return PlainTextResponse("ok")


async def clear(request: Request) -> Response:
    request.session.clear()
    return PlainTextResponse("ok")


app = Starlette(
    routes=[
        Route("/plain", plain),
        Route("/pid", pid),
        Route("/show", show),
        Route("/put/{key}/{value}", put, methods=["POST"]),
        Route("/login/{user}", login, methods=["POST"]),
        Route("/logout", logout, methods=["POST"]),
        Route("/clear", clear, methods=["POST"]),
    ],
    middleware=[
        Middleware(
            SessionMiddleware,
            canister=Canister(os.environ["CANISTER_PATH"]),
            cookie=CookieSettings(plain_http=True),
        )
    ],
)
