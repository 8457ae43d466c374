"""Starlette's own sessions in a signed cookie: there is no id to renew."""

from typing import Any

from benchmarks.rivals.apps.starlette_routes import make_starlette
from benchmarks.rivals.serving import Gate, Place, asgi
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware

COOKIE = "session"
serve = asgi


def make(_place: Place, gate: Gate, _argument: str) -> Any:
    middleware = [Middleware(SessionMiddleware, secret_key="a-secret-of-the-benchmark")]
    return make_starlette(gate, middleware, lambda request: None)
