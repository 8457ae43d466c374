"""Litestar's server-side sessions on Redis; it offers no renewal of the id."""

from typing import Any

import redis
from benchmarks.rivals.serving import Gate, Place, asgi
from litestar import Litestar, Request, get, post
from litestar.middleware.session.server_side import ServerSideSessionConfig
from litestar.stores.redis import RedisStore

COOKIE = "session"
serve = asgi


def make(place: Place, gate: Gate, _argument: str) -> Any:
    @get("/show")
    async def show(request: Request[Any, Any, Any]) -> dict[str, Any]:
        return dict(request.session)

    @post("/put/{key:str}/{value:str}", status_code=200)
    async def put(request: Request[Any, Any, Any], key: str, value: str) -> str:
        request.session[key] = value
        return "ok"

    @post("/slow/put/{key:str}/{value:str}", status_code=200)
    async def slow_put(request: Request[Any, Any, Any], key: str, value: str) -> str:
        request.session[key] = value
        await gate.wait_async()
        return "ok"

    @get("/slow/read")
    async def slow_read(request: Request[Any, Any, Any]) -> str:
        request.session.get("a")
        await gate.wait_async()
        return "ok"

    @post("/login/{user:str}", status_code=200)
    async def log_in(request: Request[Any, Any, Any], user: str) -> str:
        request.session["user"] = user
        return "ok"

    @post("/logout", status_code=200)
    async def log_out(request: Request[Any, Any, Any]) -> str:
        request.clear_session()
        return "ok"

    return Litestar(
        [show, put, slow_put, slow_read, log_in, log_out],
        middleware=[ServerSideSessionConfig().middleware],
        stores={"sessions": RedisStore.with_client(place.redis_url)},
    )


def plant(place: Place, token: str, payload: bytes) -> None:
    database = redis.Redis.from_url(place.redis_url)
    (key,) = database.scan_iter(f"*{token}*")
    database.set(key, payload)
