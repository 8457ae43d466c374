"""Notes on Pyramid, with log-in: ``python examples/pyramid_notes.py``, then http://127.0.0.1:8000/.

Serves plain http for the sake of the example; leave out ``canister.plain_http`` behind TLS.
"""

from pathlib import Path
from tempfile import gettempdir
from typing import Any
from wsgiref.simple_server import make_server

from pyramid.config import Configurator

from canister import Canister


class SessionSecurityPolicy:
    """Whoever the session belongs to is who is asking."""

    def identity(self, request: Any) -> Any:
        return request.session.identity

    def authenticated_userid(self, request: Any) -> Any:
        return request.session.user

    def permits(self, request: Any, context: Any, permission: str) -> bool:
        return self.authenticated_userid(request) is not None


def show(request: Any) -> Any:
    messages = request.session.pop_flash()
    notes = [key[1] for key in request.session if isinstance(key, tuple)]
    return {"user": request.authenticated_userid, "notes": notes, "messages": messages}


def add(request: Any) -> Any:
    request.session["note", request.matchdict["text"]] = True  # a key for each note
    request.session.flash("noted")
    return {}


def log_in(request: Any) -> Any:
    request.session.login(request.matchdict["user"])  # a new id; the notes go along
    return {}


def log_out(request: Any) -> Any:
    request.session.invalidate()
    return {}


def make_app(canister: Canister) -> Any:
    settings = {"canister": canister, "canister.plain_http": True}
    with Configurator(settings=settings, security_policy=SessionSecurityPolicy()) as config:
        config.include("canister.integrations.pyramid")
        config.add_route("show", "/")
        config.add_route("add", "/notes/{text}", request_method="POST")
        config.add_route("log-in", "/log-in/{user}", request_method="POST")
        config.add_route("log-out", "/log-out", request_method="POST")
        config.add_view(show, route_name="show", renderer="json")
        config.add_view(add, route_name="add", renderer="json", permission="write")
        config.add_view(log_in, route_name="log-in", renderer="json")
        config.add_view(log_out, route_name="log-out", renderer="json")
        return config.make_wsgi_app()


if __name__ == "__main__":
    with Canister(Path(gettempdir()) / "canister-pyramid") as canister:
        make_server("127.0.0.1", 8000, make_app(canister)).serve_forever()
