"""Pyramid."""

import os
from typing import Any

from pyramid.config import Configurator


def plain(request: Any) -> Any:
    return "plain"


def pid(request: Any) -> Any:
    return str(os.getpid())


def put(request: Any) -> Any:
    request.session[request.matchdict["key"]] = request.matchdict["value"]
    return "ok"


def login(request: Any) -> Any:
    request.session.login(request.matchdict["user"])
    return "ok"


def logout(request: Any) -> Any:
    request.session.invalidate()
    return "ok"


def clear(request: Any) -> Any:
    request.session.clear()
    return "ok"


def show(request: Any) -> Any:
    session = request.session
    return {"user": session.user, "data": dict(session), "handle": session.handle}


ROUTES = {
    "/plain": ("GET", plain, "string"),
    "/pid": ("GET", pid, "string"),
    "/show": ("GET", show, "json"),
    "/put/{key}/{value}": ("POST", put, "string"),
    "/login/{user}": ("POST", login, "string"),
    "/logout": ("POST", logout, "string"),
    "/clear": ("POST", clear, "string"),
}


settings = {"canister.path": os.environ["CANISTER_PATH"], "canister.plain_http": True}
with Configurator(settings=settings) as config:
    config.include("canister.integrations.pyramid")
    for path, (method, view, renderer) in ROUTES.items():
        config.add_route(path, path, request_method=method)
        config.add_view(view, route_name=path, renderer=renderer)
    app = config.make_wsgi_app()
