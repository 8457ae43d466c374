"""Canister's own WSGI middleware, on one node."""

import sqlite3
from contextlib import closing
from typing import Any

from benchmarks.rivals.apps.plain import make_wsgi
from benchmarks.rivals.serving import Gate, Place, wsgi

from canister import Canister
from canister.integrations.wsgi import SessionMiddleware, session_of
from canister.sessions import CookieSettings

COOKIE = "id"
serve = wsgi


def log_in(environ: Any, user: str) -> None:
    session_of(environ).login(user)
    session_of(environ)["user"] = user


def make(place: Place, gate: Gate, _argument: str) -> Any:
    app = make_wsgi(gate, session_of, log_in, lambda environ: session_of(environ).logout())
    canister = Canister(place.directory / "node")
    return SessionMiddleware(app, canister=canister, cookie=CookieSettings(plain_http=True))


def plant(place: Place, _token: str, payload: bytes) -> None:
    with closing(sqlite3.connect(place.directory / "node" / "canister.db")) as database, database:
        database.execute("UPDATE sessions SET record = ?", (payload,))
