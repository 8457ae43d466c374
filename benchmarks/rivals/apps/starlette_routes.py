"""The routes of the checks on Starlette, for whatever keeps ``request.session``."""

from collections.abc import Callable
from typing import Any

from benchmarks.rivals.serving import Gate
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route


def make_starlette(gate: Gate, middleware: list[Any], renew: Callable[[Request], object]) -> Starlette:
    """Return the application; *renew* replaces the session's id."""

    async def show(request: Request) -> Response:
        return JSONResponse({k: v for k, v in request.session.items() if not k.startswith("_")})

    async def put(request: Request) -> Response:
        request.session[request.path_params["key"]] = request.path_params["value"]
        return PlainTextResponse("ok")

    async def slow_put(request: Request) -> Response:
        request.session[request.path_params["key"]] = request.path_params["value"]
        await gate.wait_async()
        return PlainTextResponse("ok")

    async def slow_read(request: Request) -> Response:
        request.session.get("a")
        await gate.wait_async()
        return PlainTextResponse("ok")

    async def log_in(request: Request) -> Response:
        renew(request)
        request.session["user"] = request.path_params["user"]
        return PlainTextResponse("ok")

    async def log_out(request: Request) -> Response:
        request.session.clear()
        return PlainTextResponse("ok")

    routes = [
        Route("/show", show),
        Route("/put/{key}/{value}", put, methods=["POST"]),
        Route("/slow/put/{key}/{value}", slow_put, methods=["POST"]),
        Route("/slow/read", slow_read),
        Route("/login/{user}", log_in, methods=["POST"]),
        Route("/logout", log_out, methods=["POST"]),
    ]
    return Starlette(routes=routes, middleware=middleware)
