"""The application of the real-server tests, on Litestar: ``uvicorn tests.web.apps.litestar_app:app``."""

import os
from typing import Any

from litestar import Litestar, Request, get, post
from litestar.response import Response

from canister import Canister
from canister.integrations.litestar import CanisterSessionConfig, session_of
from canister.sessions import CookieSettings

AnyRequest = Request[Any, Any, Any]


@get("/plain")
async def plain() -> str:
    return "plain"


@get("/show")
async def show(request: AnyRequest) -> dict[str, Any]:
    session = session_of(request)
    return {"user": session.user, "data": dict(session), "handle": session.handle}


@post("/put/{key:str}/{value:str}", status_code=200)
async def put(request: AnyRequest) -> Response[str]:
    request.session[request.path_params["key"]] = request.path_params["value"]
    return ok()


@post("/login/{user:str}", status_code=200)
async def log_in(request: AnyRequest) -> Response[str]:
    session_of(request).login(request.path_params["user"])
    return ok()


@post("/logout", status_code=200)
async def log_out(request: AnyRequest) -> Response[str]:
    request.clear_session()
    return ok()


@post("/clear", status_code=200)
async def clear(request: AnyRequest) -> Response[str]:
    request.session.clear()
    return ok()


@get("/pid")
async def pid() -> str:
    return str(os.getpid())


def ok() -> Response[str]:
    return Response("ok", media_type="text/plain")


sessions = CanisterSessionConfig(
    Canister(os.environ["CANISTER_PATH"]), cookie=CookieSettings(plain_http=True)
)  # fmt: skip
app = Litestar([plain, show, put, log_in, log_out, clear, pid], middleware=[sessions.middleware])
