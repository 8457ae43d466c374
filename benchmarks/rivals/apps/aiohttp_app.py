"""aiohttp-session on Redis."""

from typing import Any

import redis
from aiohttp import web
from aiohttp_session import get_session, new_session, setup
from aiohttp_session.redis_storage import RedisStorage
from benchmarks.rivals.serving import Gate, Place, aiohttp
from redis.asyncio import Redis

COOKIE = "AIOHTTP_SESSION"
serve = aiohttp


def make(place: Place, gate: Gate, _argument: str) -> Any:
    async def show(request: web.Request) -> web.Response:
        return web.json_response(dict(await get_session(request)))

    async def put(request: web.Request) -> web.Response:
        (await get_session(request))[request.match_info["key"]] = request.match_info["value"]
        return web.Response(text="ok")

    async def slow_put(request: web.Request) -> web.Response:
        await put(request)
        await gate.wait_async()
        return web.Response(text="ok")

    async def slow_read(request: web.Request) -> web.Response:
        (await get_session(request)).get("a")
        await gate.wait_async()
        return web.Response(text="ok")

    async def log_in(request: web.Request) -> web.Response:
        (await new_session(request))["user"] = request.match_info["user"]
        return web.Response(text="ok")

    async def log_out(request: web.Request) -> web.Response:
        (await get_session(request)).invalidate()
        return web.Response(text="ok")

    app = web.Application()
    setup(app, RedisStorage(Redis.from_url(place.redis_url)))
    app.router.add_get("/show", show)
    app.router.add_post("/put/{key}/{value}", put)
    app.router.add_post("/slow/put/{key}/{value}", slow_put)
    app.router.add_get("/slow/read", slow_read)
    app.router.add_post("/login/{user}", log_in)
    app.router.add_post("/logout", log_out)
    return app


def plant(place: Place, token: str, payload: bytes) -> None:
    redis.Redis.from_url(place.redis_url).set(f"{COOKIE}_{token}", payload)
