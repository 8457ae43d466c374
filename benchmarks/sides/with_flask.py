"""A Flask application with one kind of sessions, called as a server calls it: no socket, no test client."""

import io
import json
import sys
from http.cookies import SimpleCookie
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
        self._app = app
        self._cookies: dict[str, str] = {}

    def requests(self, count: int) -> dict[str, float]:
        return timed(self._request, count)

    def _request(self, number: int) -> None:
        environ = {
            "REQUEST_METHOD": "GET",
            "SCRIPT_NAME": "",
            "PATH_INFO": "/",
            "QUERY_STRING": "" if number % 10 else "write",
            "SERVER_NAME": "localhost",
            "SERVER_PORT": "443",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "HTTP_HOST": "localhost",
            "HTTP_COOKIE": "; ".join(f"{name}={value}" for name, value in self._cookies.items()),
            "wsgi.url_scheme": "https",
            "wsgi.input": io.BytesIO(),
            "wsgi.errors": sys.stderr,
        }
        answer: Any = self._app(environ, self._start)
        for _ in answer:
            pass
        answer.close()

    def _start(self, status: str, headers: Any, exc_info: Any = None) -> None:
        for name, value in headers:
            if name == "Set-Cookie":
                self._cookies.update({k: m.value for k, m in SimpleCookie(value).items()})
        if status != "200 OK":
            raise RuntimeError(f"answered with {status}")

    def _page(self) -> str:
        writes = "write" in request.args
        if self._uses_sessions:
            session.get("user")
            if writes:
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
