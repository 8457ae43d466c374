"""The Flask application that the tests of its sessions share."""

from typing import Any

from flask import Flask, jsonify, request, session
from flask.testing import FlaskClient

from canister import Canister
from canister.integrations.flask import CanisterSessions
from canister.record import NodeId, make_version
from canister.sessions.keys import KeyRing
from canister.sessions.token import draft
from canister.testing.clock import ManualClock

KEY = "key-0123456789-abcdefghijklmnopqrs"
OTHER_KEY = "another-key-0123456789-abcdefghijk"
NAME = "__Host-id"


def make_app(canister: Canister | None, options: Any = None, **config: Any) -> Flask:
    app = Flask(__name__)
    app.config.update({"SECRET_KEY": KEY, "TESTING": True} | config)
    CanisterSessions(app, canister=canister, **(options or {}))

    @app.get("/plain")
    def plain() -> str:
        return "plain"

    @app.get("/")
    def show() -> Any:
        return jsonify(dict(session))

    @app.post("/put")
    def put() -> str:
        session.update(request.get_json())
        return "ok"

    @app.post("/clear")
    def clear() -> str:
        session.clear()
        return "ok"

    @app.post("/permanent/<int:value>")
    def permanent(value: int) -> str:
        session.permanent = bool(value)
        return "ok"

    @app.post("/regenerate")
    def regenerate() -> str:
        app.session_interface.regenerate(session)  # type: ignore[attr-defined]
        return "ok"

    return app


def client_of(app: Flask) -> FlaskClient:
    app.config["PREFERRED_URL_SCHEME"] = "https"  # the test client keeps secure cookies then
    return app.test_client()


def cookies_of(response: Any) -> list[str]:
    return response.headers.getlist("Set-Cookie")


def token_in(client: FlaskClient) -> str:
    cookie = client.get_cookie(NAME)
    assert cookie is not None
    return cookie.value


def token_of_elsewhere(clock: ManualClock) -> str:
    return draft(KeyRing([KEY])).seal(make_version(clock.now(), NodeId(b"node-B.."))).text
