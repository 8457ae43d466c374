"""Beaker's sessions in files, saved where they are changed, as its documentation has it."""

from typing import Any

from beaker.middleware import SessionMiddleware
from benchmarks.rivals.apps.plain import make_wsgi
from benchmarks.rivals.serving import Gate, Place, wsgi

COOKIE = "beaker.session.id"
serve = wsgi


def session_of(environ: Any) -> Any:
    return environ["beaker.session"]


def log_in(environ: Any, user: str) -> None:
    session = session_of(environ)
    session.invalidate()
    session["user"] = user
    session.save()


def make(place: Place, gate: Gate, _argument: str) -> Any:
    app = make_wsgi(
        gate, session_of, log_in, lambda environ: session_of(environ).delete(), lambda e: session_of(e).save()
    )
    return SessionMiddleware(
        app, {"session.type": "file", "session.data_dir": str(place.directory / "files")}
    )


def plant(place: Place, token: str, payload: bytes) -> None:
    (file,) = (place.directory / "files").rglob(f"*{token}*.cache")
    file.write_bytes(payload)
