"""Pyramid's own sessions in a signed cookie."""

from typing import Any

from benchmarks.rivals.serving import Gate, Place, wsgi
from pyramid.config import Configurator
from pyramid.session import SignedCookieSessionFactory

COOKIE = "session"
serve = wsgi


def make(_place: Place, gate: Gate, _argument: str) -> Any:
    def show(request: Any) -> Any:
        return dict(request.session)

    def put(request: Any) -> Any:
        request.session[request.matchdict["key"]] = request.matchdict["value"]
        return "ok"

    def slow_put(request: Any) -> Any:
        put(request)
        gate.wait()
        return "ok"

    def slow_read(request: Any) -> Any:
        request.session.get("a")
        gate.wait()
        return "ok"

    def log_in(request: Any) -> Any:
        request.session.invalidate()
        request.session["user"] = request.matchdict["user"]
        return "ok"

    def log_out(request: Any) -> Any:
        request.session.invalidate()
        return "ok"

    views = {
        "/put/{key}/{value}": put,
        "/slow/put/{key}/{value}": slow_put,
        "/slow/read": slow_read,
        "/login/{user}": log_in,
        "/logout": log_out,
    }
    with Configurator() as config:
        config.set_session_factory(SignedCookieSessionFactory("a-secret-of-the-benchmark"))
        config.add_route("show", "/show")
        config.add_view(show, route_name="show", renderer="json")
        for path, view in views.items():
            config.add_route(path, path)
            config.add_view(view, route_name=path, renderer="string")
        return config.make_wsgi_app()
