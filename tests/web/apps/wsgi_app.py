"""Plain WSGI."""

import json
import os
from collections.abc import Iterable
from typing import Any
from wsgiref.types import WSGIEnvironment

from canister import Canister
from canister.integrations.wsgi import SessionMiddleware, session_of
from canister.sessions import CookieSettings


def respond(environ: WSGIEnvironment) -> str:
    match environ["REQUEST_METHOD"], *environ["PATH_INFO"].strip("/").split("/"):
        case "GET", "plain":
            return "plain"
        case "GET", "pid":
            return str(os.getpid())
        case "GET", "show":
            session = session_of(environ)
            return json.dumps({"user": session.user, "data": dict(session), "handle": session.handle})
        case "POST", "put", key, value:
            session_of(environ)[key] = value
        case "POST", "login", user:
            session_of(environ).login(user)
        case "POST", "logout":
            session_of(environ).logout()
        case "POST", "clear":
            session_of(environ).clear()
        case _:
            raise LookupError(environ["PATH_INFO"])
    return "ok"


def answer(environ: WSGIEnvironment, start_response: Any) -> Iterable[bytes]:
    body = respond(environ).encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


app = SessionMiddleware(
    answer, canister=Canister(os.environ["CANISTER_PATH"]), cookie=CookieSettings(plain_http=True)
)
