"""A Flask application with Flask-Session on Redis or its own signed cookies, called by its test client."""

import json
import sys
from typing import Any

from flask import Flask, request, session
from serving import VALUE, serve, timed


class Side:
    """A client that sends one request after the other and keeps its cookies."""

    def __init__(self, job: dict[str, Any]) -> None:
        app = Flask("benchmark")
        app.secret_key = "0123456789abcdef" * 2
        if job["kind"] == "redis":
            from flask_session import Session
            from redis import Redis

            app.config.update(SESSION_TYPE="redis", SESSION_REDIS=Redis(port=job["port"]))
            Session(app)
        app.add_url_rule("/", view_func=_empty if job["kind"] == "none" else _page)
        self._client = app.test_client()

    def requests(self, count: int) -> dict[str, float]:
        client = self._client
        return timed(lambda n: client.get("/" if n % 10 else "/?write"), count)


def _page() -> str:
    session.get("user")
    if "write" in request.args:
        session["user"] = VALUE
        session.modified = True
    return "done"


def _empty() -> str:
    return "done"


if __name__ == "__main__":
    serve(Side(json.loads(sys.argv[1])))
