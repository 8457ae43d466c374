"""Flask-Login, Flask-WTF and Authlib over the sessions of `canister.integrations.flask`."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from authlib.integrations.base_client import FrameworkIntegration
from flask import Flask, Response, flash, get_flashed_messages, jsonify, request, session
from flask.testing import FlaskClient
from flask_login import (
    LoginManager,
    UserMixin,
    confirm_login,
    current_user,
    fresh_login_required,
    login_required,
    login_user,
    logout_user,
)
from flask_wtf.csrf import CSRFProtect, generate_csrf

from canister import Canister
from canister.integrations.flask import CanisterSessions
from canister.sessions import SessionManager
from canister.testing.clock import ManualClock

pytestmark = pytest.mark.integration

KEY = "key-0123456789-abcdefghijklmnopqrs"
NAME = "__Host-id"


class User(UserMixin):
    def __init__(self, id: str) -> None:
        self.id = id


@pytest.fixture
def canister(tmp_path: Path) -> Iterator[Canister]:
    with Canister(tmp_path / "data") as canister:
        yield canister


@pytest.fixture
def app(canister: Canister) -> Flask:
    app = Flask(__name__)
    app.config.update(SECRET_KEY=KEY, TESTING=True, PREFERRED_URL_SCHEME="https")
    CanisterSessions(app, canister=canister)
    LoginManager(app).user_loader(User)
    app.add_url_rule("/", "show", lambda: jsonify(dict(session)))
    app.add_url_rule("/me", "me", login_required(lambda: current_user.get_id()))

    @app.post("/put/<key>/<value>")
    def put(key: str, value: str) -> str:
        session[key] = value
        return "ok"

    @app.post("/login/<user>")
    def log_in(user: str) -> str:
        login_user(User(user), remember="remember" in request.args)
        return "ok"

    @app.post("/logout")
    def log_out() -> str:
        flash("bye")
        logout_user()
        return "ok"

    @app.get("/flashes")
    def flashes() -> Any:
        return get_flashed_messages()

    return app


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def manager(app: Flask) -> SessionManager:
    return app.extensions["canister"]


def token_in(client: FlaskClient) -> str:
    cookie = client.get_cookie(NAME)
    assert cookie is not None
    return cookie.value


def with_token(app: Flask, token: str) -> FlaskClient:
    client = app.test_client()
    client.set_cookie(NAME, token)
    return client


def handles(manager: SessionManager, user: str) -> list[str]:
    return [one.handle for one in manager.users.sessions(user)]


def test_a_log_in_gives_a_new_id_and_the_old_one_is_good_no_more(app: Flask, client: FlaskClient) -> None:
    client.post("/put/cart/tea")
    planted = token_in(client)
    client.post("/login/ann")
    assert token_in(client) != planted
    assert client.get("/me").text == "ann"
    assert client.get("/").json["cart"] == "tea"
    assert with_token(app, planted).get("/").json == {}
    assert with_token(app, planted).get("/me").status_code == 401


def test_a_log_in_and_a_log_out_are_in_the_users_list(client: FlaskClient, manager: SessionManager) -> None:
    client.post("/login/ann")
    assert len(handles(manager, "ann")) == 1
    client.post("/logout")
    assert handles(manager, "ann") == []


def test_a_log_in_that_is_confirmed_gives_a_new_id(app: Flask, manager: SessionManager) -> None:
    """What a fresh log-in may do, nobody may do with a token from before it."""

    @app.post("/confirm")
    def confirm() -> str:
        confirm_login()
        return "ok"

    app.add_url_rule("/pay", "pay", fresh_login_required(lambda: "paid"))
    client = app.test_client()
    client.post("/login/ann?remember")
    client.delete_cookie(NAME)
    client.post("/put/cart/tea")
    assert client.get("/me").text == "ann", "by the remember cookie"
    stolen = token_in(client)
    assert client.get("/pay").status_code == 401
    client.post("/confirm")
    assert client.get("/pay").text == "paid"
    assert client.get("/").json["cart"] == "tea"
    assert with_token(app, stolen).get("/pay").status_code == 401
    assert len(handles(manager, "ann")) == 2, "this one, and the one whose cookie was deleted"
    assert app.test_client().post("/confirm").status_code == 200, "of nobody"


def test_the_client_is_recorded_where_the_application_wants_it(
    app: Flask, client: FlaskClient, manager: SessionManager
) -> None:
    client.post("/login/ann", headers={"User-Agent": "Reader"})
    (plain,) = manager.users.sessions("ann")
    assert (plain.identity.address, plain.identity.agent) == (None, None)
    app.config["CANISTER_RECORD_CLIENT"] = "no"
    client.post("/login/ann", headers={"User-Agent": "Reader"})
    (plain,) = manager.users.sessions("ann")
    assert plain.identity.address is None
    app.config["CANISTER_RECORD_CLIENT"] = True
    client.post("/login/ann", headers={"User-Agent": "Reader" * 100})
    (recorded,) = manager.users.sessions("ann")
    assert (recorded.identity.address, recorded.identity.agent) == ("127.0.0.1", ("Reader" * 100)[:256])


def test_a_log_out_ends_the_session_for_good(app: Flask, client: FlaskClient) -> None:
    client.post("/put/cart/tea")
    client.post("/login/ann")
    token = token_in(client)
    client.post("/logout")
    assert client.get("/me").status_code == 401
    assert "cart" not in client.get("/").json
    assert with_token(app, token).get("/me").status_code == 401
    assert with_token(app, token).get("/").json == {}


def test_a_message_said_before_the_log_out_is_shown_after_it(client: FlaskClient) -> None:
    client.post("/login/ann")
    client.post("/logout")
    assert client.get("/flashes").json == ["bye"]


@pytest.mark.parametrize("named", [True, False])
def test_flask_securitys_order_to_delete_its_cookie_outlives_the_log_out(
    app: Flask, client: FlaskClient, canister: Canister, named: bool
) -> None:
    """It is in the session whether there is such a cookie or not; where there is none it would stay there."""
    app.config["SECURITY_CSRF_COOKIE_NAME"] = "XSRF-TOKEN" if named else None

    @app.post("/security-logout")
    def security_logout() -> str:
        session["fs_cc"] = "clear"
        logout_user()
        return "ok"

    @app.after_request
    def take_the_order(response: Response) -> Response:
        if named and session.get("fs_cc") == "clear":
            response.delete_cookie("XSRF-TOKEN")
            session.pop("fs_cc")
        return response

    client.post("/login/ann")
    response = client.post("/security-logout")
    assert (
        any(cookie.startswith("XSRF-TOKEN=;") for cookie in response.headers.getlist("Set-Cookie")) is named
    )
    assert canister.num_local_sessions() == 0
    client.post("/put/fs_cc/sent")
    client.post("/logout")
    assert client.get("/").json.keys() == {"_flashes"}


def test_another_users_log_in_takes_nothing_over(client: FlaskClient, manager: SessionManager) -> None:
    client.post("/login/ann")
    client.post("/put/cart/tea")
    client.post("/login/bob")
    assert client.get("/me").text == "bob"
    assert "cart" not in client.get("/").json
    assert handles(manager, "ann") == []
    assert len(handles(manager, "bob")) == 1


def test_the_remember_cookie_is_flask_logins_and_a_session_it_begins_is_a_log_in(
    client: FlaskClient, manager: SessionManager
) -> None:
    client.post("/login/ann?remember=1")
    assert client.get_cookie("remember_token") is not None
    client.delete_cookie(NAME)
    client.post("/put/cart/tea")
    planted = token_in(client)
    client.delete_cookie(NAME)
    client.set_cookie(NAME, planted)
    assert client.get("/me").text == "ann"
    assert token_in(client) != planted
    assert client.get("/").json["cart"] == "tea"
    assert len(handles(manager, "ann")) == 2
    assert {one.identity.methods for one in manager.users.sessions("ann")} == {(), ("remember",)}
    client.post("/logout")
    assert client.get_cookie("remember_token") is None
    assert client.get("/me").status_code == 401


def test_strong_protection_ends_the_session(app: Flask, client: FlaskClient, manager: SessionManager) -> None:
    app.config["SESSION_PROTECTION"] = "strong"
    client.post("/login/ann")
    token = token_in(client)
    assert with_token(app, token).get("/me", headers={"User-Agent": "thief"}).status_code == 401
    assert handles(manager, "ann") == []


def test_basic_protection_keeps_the_log_in(app: Flask, client: FlaskClient, manager: SessionManager) -> None:
    client.post("/login/ann")
    assert client.get("/me", headers={"User-Agent": "other"}).text == "ann"
    assert client.get("/").json["_fresh"] is False
    assert len(handles(manager, "ann")) == 1


def test_a_session_ended_from_the_users_list_is_over(client: FlaskClient, manager: SessionManager) -> None:
    client.post("/login/ann")
    manager.users.end_all("ann")
    assert client.get("/me").status_code == 401


def test_an_application_with_other_sessions_is_left_alone(app: Flask) -> None:
    other = Flask("other")
    other.config.update(SECRET_KEY=KEY, TESTING=True)
    LoginManager(other).user_loader(User)
    other.add_url_rule("/login", view_func=lambda: str(login_user(User("ann"))))
    assert other.test_client().get("/login").text == "True"


def test_a_locked_session_is_answered_with_403(tmp_path: Path) -> None:
    """Flask-Login looks at the session on its way out, too."""
    clock = ManualClock()
    with Canister(tmp_path / "locks", clock=clock, lock_timeout="5m") as canister:
        app = Flask(__name__)
        app.config.update(SECRET_KEY=KEY, TESTING=True, PREFERRED_URL_SCHEME="https")
        CanisterSessions(app, canister=canister)
        LoginManager(app).user_loader(User)
        app.add_url_rule("/login", "log_in", lambda: str(login_user(User("ann"))))
        app.add_url_rule("/me", "me", lambda: str(current_user.get_id()))
        client = app.test_client()
        client.get("/login")
        clock.advance(timedelta(minutes=10))
        response = client.get("/me")
        assert (response.status_code, "Set-Cookie" in response.headers) == (403, False)


def test_the_cap_on_a_users_sessions_refuses_a_log_in(canister: Canister) -> None:
    app = Flask(__name__)
    config = {"CANISTER_MAX_SESSIONS": 1, "CANISTER_AT_CAP": "reject", "PREFERRED_URL_SCHEME": "https"}
    app.config.update({"SECRET_KEY": KEY, "TESTING": True} | config)
    CanisterSessions(app, canister=canister)
    LoginManager(app).user_loader(User)
    app.add_url_rule("/login", view_func=lambda: str(login_user(User("ann"))))
    assert app.test_client().get("/login").status_code == 200
    response = app.test_client().get("/login")
    assert response.status_code == 403
    assert "as many sessions as are allowed" in response.text
    assert response.headers.getlist("Set-Cookie") == []


# Flask-WTF.


def test_flask_wtfs_csrf_token_lives_in_the_session_and_survives_a_log_in(
    app: Flask, client: FlaskClient
) -> None:
    CSRFProtect(app)
    app.add_url_rule("/form", view_func=generate_csrf)
    assert client.post("/put/a/1").status_code == 400
    headers = {"X-CSRFToken": client.get("/form").text, "Referer": "https://localhost/"}
    assert client.post("/put/a/1", headers=headers).text == "ok"
    assert client.post("/login/ann", headers=headers).text == "ok"
    assert client.post("/put/a/2", headers=headers).text == "ok"
    stranger = app.test_client()
    stranger.get("/form")
    assert stranger.post("/put/a/1", headers=headers).status_code == 400


# Authlib.


def test_authlibs_state_is_found_when_the_provider_sends_the_client_back(
    app: Flask, client: FlaskClient
) -> None:
    # The part of Authlib's Flask client that uses the session; the rest of it needs `requests`.
    authlib = FrameworkIntegration("provider")

    @app.get("/authorize/<state>")
    def authorize(state: str) -> Any:
        authlib.set_state_data(session, state, {"redirect_uri": "/back", "code_verifier": state * 2})
        return "ok"

    @app.get("/back/<state>")
    def back(state: str) -> Any:
        data = authlib.get_state_data(session, state)
        authlib.clear_state_data(session, state)
        login_user(User("ann"))
        return jsonify(data)

    for state in ("one", "two"):  # in two tabs
        client.get(f"/authorize/{state}")
    assert client.get("/back/two").json == {"redirect_uri": "/back", "code_verifier": "twotwo"}
    assert client.get("/back/two").json is None, "a state is good for once"
    assert client.get("/back/one").json == {"redirect_uri": "/back", "code_verifier": "oneone"}
    assert not any(key.startswith("_state_") for key in client.get("/").json)
