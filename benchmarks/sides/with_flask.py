"""A Flask application with one kind of sessions, called by its test client."""

import json
import sys
from typing import Any

from flask import Flask, request, session
from flask.sessions import SecureCookieSession, SessionInterface
from serving import VALUE, serve, timed, work


class Side:
    """A client that sends one request after the other and keeps its cookies."""

    def __init__(self, job: dict[str, Any]) -> None:
        app = Flask("benchmark")
        app.secret_key = "0123456789abcdef" * 2
        _set_up(app, job)
        self._uses_sessions, self._works = job["kind"] != "none", job.get("works", False)
        self._writes = 0
        app.add_url_rule("/", view_func=self._page)
        self._client = app.test_client()

    def requests(self, count: int) -> dict[str, float]:
        return timed(self._request, count)

    def _request(self, number: int) -> None:
        answer = self._client.get("/" if number % 10 else "/?write", base_url="https://localhost")
        if answer.status_code != 200:
            raise RuntimeError(f"answered with {answer.status}")

    def _page(self) -> str:
        if self._uses_sessions:
            session.get("user")
            if "write" in request.args:
                self._writes += 1
                session["user"] = VALUE + str(self._writes)
        if self._works:
            work()
        return "done"


class _NoSessions(SessionInterface):
    """What Flask needs of any sessions, and nothing behind it."""

    def open_session(self, app: Flask, request: Any) -> SecureCookieSession:
        return SecureCookieSession()

    def save_session(self, app: Flask, session: Any, response: Any) -> None:
        pass


def _set_up(app: Flask, job: dict[str, Any]) -> None:
    if job["kind"] == "canister":
        from canister import Canister
        from canister.integrations.flask import CanisterSessions

        CanisterSessions(app, canister=Canister(job["path"]))
    elif job["kind"] == "redis":
        from flask_session import Session
        from redis import Redis

        app.config.update(SESSION_TYPE="redis", SESSION_REDIS=Redis(port=job["port"]))
        Session(app)
    elif job["kind"] != "cookie":
        app.session_interface = _NoSessions()


if __name__ == "__main__":
    serve(Side(json.loads(sys.argv[1])))
