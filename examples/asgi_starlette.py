"""A visit counter on Starlette: ``python examples/asgi_starlette.py``, then http://127.0.0.1:8000/.

Serves plain http for the sake of the example; leave out ``plain_http=True`` behind TLS.
"""

from pathlib import Path
from tempfile import gettempdir

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from canister import Canister
from canister.integrations.asgi import SessionMiddleware
from canister.sessions import CookieSettings


async def visit(request: Request) -> JSONResponse:
    session = request.session
    session["visits"] = session.get("visits", 0) + 1
    session.setdefault("pages", []).append(request.query_params.get("page", "/"))
    return JSONResponse(dict(session))


async def log_in(request: Request) -> JSONResponse:
    request.session.regenerate()  # a new id at every change of privilege
    request.session["user"] = request.query_params["user"]
    return JSONResponse({"user": request.session["user"]})


async def log_out(request: Request) -> JSONResponse:
    request.session.destroy()
    return JSONResponse({})


def make_app(canister: Canister) -> Starlette:
    return Starlette(
        routes=[
            Route("/", visit),
            Route("/log-in", log_in, methods=["POST"]),
            Route("/log-out", log_out, methods=["POST"]),
        ],
        middleware=[
            Middleware(SessionMiddleware, canister=canister, cookie=CookieSettings(plain_http=True)),
        ],
    )


if __name__ == "__main__":
    with Canister(Path(gettempdir()) / "canister-starlette") as canister:
        uvicorn.run(make_app(canister), host="127.0.0.1", port=8000)
