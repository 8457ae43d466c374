"""The application of the real-server tests, on aiohttp: ``python -m tests.web.apps.aiohttp_app --port N``."""

import argparse
import os

from aiohttp import web
from aiohttp_session import get_session

from canister import Canister
from canister.integrations.aiohttp import session_of, setup
from canister.sessions import CookieSettings

routes = web.RouteTableDef()


@routes.get("/plain")
async def plain(request: web.Request) -> web.Response:
    return web.Response(text="plain")


@routes.get("/show")
async def show(request: web.Request) -> web.Response:
    session = await session_of(request)
    return web.json_response({"user": session.user, "data": dict(session), "handle": session.handle})


@routes.post("/put/{key}/{value}")
async def put(request: web.Request) -> web.Response:
    session = await get_session(request)
    session[request.match_info["key"]] = request.match_info["value"]
    return web.Response(text="ok")


@routes.post("/login/{user}")
async def log_in(request: web.Request) -> web.Response:
    (await session_of(request)).login(request.match_info["user"])
    return web.Response(text="ok")


@routes.post("/logout")
async def log_out(request: web.Request) -> web.Response:
    (await get_session(request)).invalidate()
    return web.Response(text="ok")


@routes.post("/clear")
async def clear(request: web.Request) -> web.Response:
    (await session_of(request)).clear()
    return web.Response(text="ok")


@routes.get("/pid")
async def pid(request: web.Request) -> web.Response:
    return web.Response(text=str(os.getpid()))


app = web.Application()
app.add_routes(routes)
setup(app, Canister(os.environ["CANISTER_PATH"]), cookie=CookieSettings(plain_http=True))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    web.run_app(app, host=arguments.host, port=arguments.port, reuse_port=True, print=None)


if __name__ == "__main__":
    main()
