"""starsessions on Redis."""

from typing import Any

import redis
from benchmarks.rivals.apps.starlette_routes import make_starlette
from benchmarks.rivals.serving import Gate, Place, asgi
from starlette.middleware import Middleware
from starsessions import SessionAutoloadMiddleware, SessionMiddleware, regenerate_session_id
from starsessions.stores.redis import RedisStore

COOKIE = "session"
serve = asgi


def make(place: Place, gate: Gate, _argument: str) -> Any:
    store = RedisStore(place.redis_url)
    middleware = [
        Middleware(SessionMiddleware, store=store, cookie_https_only=False),
        Middleware(SessionAutoloadMiddleware),
    ]
    return make_starlette(gate, middleware, regenerate_session_id)


def plant(place: Place, token: str, payload: bytes) -> None:
    database = redis.Redis.from_url(place.redis_url)
    (key,) = database.scan_iter(f"*{token}*")
    database.set(key, payload)
