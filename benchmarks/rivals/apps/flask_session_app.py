"""Flask-Session on Redis."""

from typing import Any

import redis
from benchmarks.rivals.serving import Gate, Place, wsgi
from flask import Flask, jsonify, session
from flask_session import Session

COOKIE = "session"
serve = wsgi


def make(place: Place, gate: Gate, _argument: str) -> Any:
    app = Flask(__name__)
    app.config.update(SESSION_TYPE="redis", SESSION_REDIS=redis.Redis.from_url(place.redis_url))
    Session(app)

    @app.get("/show")
    def show() -> Any:
        return jsonify({key: session[key] for key in session if not key.startswith("_")})

    @app.post("/put/<key>/<value>")
    def put(key: str, value: str) -> str:
        session[key] = value
        return "ok"

    @app.post("/slow/put/<key>/<value>")
    def slow_put(key: str, value: str) -> str:
        session[key] = value
        gate.wait()
        return "ok"

    @app.get("/slow/read")
    def slow_read() -> str:
        session.get("a")
        gate.wait()
        return "ok"

    @app.post("/login/<user>")
    def log_in(user: str) -> str:
        session["user"] = user
        app.session_interface.regenerate(session)  # type: ignore[attr-defined]
        return "ok"

    @app.post("/logout")
    def log_out() -> str:
        session.clear()
        return "ok"

    return app


def plant(place: Place, token: str, payload: bytes) -> None:
    redis.Redis.from_url(place.redis_url).set(f"session:{token}", payload)
