"""The routes of the checks as a bare WSGI application, for whatever puts its session into the environ."""

import json
from collections.abc import Callable, Iterable
from typing import Any

from benchmarks.rivals.serving import Gate


def make_wsgi(
    gate: Gate,
    session_of: Callable[[Any], Any],
    log_in: Callable[[Any, str], None],
    log_out: Callable[[Any], None],
    save: Callable[[Any], None] = lambda environ: None,
) -> Any:
    """Return the application; *save* is called after each change."""

    def answer(environ: Any) -> str:
        match environ["PATH_INFO"].strip("/").split("/"):
            case ["put", key, value]:
                session_of(environ)[key] = value
                save(environ)
            case ["slow", "put", key, value]:
                session = session_of(environ)
                session[key] = value
                gate.wait()
                save(environ)
            case ["login", user]:
                log_in(environ, user)
            case ["logout"]:
                log_out(environ)
            case ["slow", "read"]:
                dict(session_of(environ))
                gate.wait()
            case _:
                keys = session_of(environ)
                return json.dumps({key: keys[key] for key in keys if not str(key).startswith("_")})
        return "ok"

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        body = answer(environ).encode()
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
        return [body]

    return app
