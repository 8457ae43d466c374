"""Old sessions go on in an application once its adapter is told where they move in from."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis import Redis

# First the project, which configures Django.
from tests.integration.django_project import KEY

# isort: split

from django.contrib.auth.models import User
from django.db import connection, connections
from django.test import AsyncClient, override_settings
from django.test import Client as DjangoClient
from flask import Flask, jsonify, session
from flask_login import LoginManager, current_user, logout_user
from quart import Quart
from quart import session as quart_session
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from tests.integration import old_systems
from tests.integration.old_systems import BACKENDS, DJANGOS, ENGINES, django_log_in, flask_log_in
from tests.redis_servers import running_redis

from canister import Canister
from canister.integrations import asgi
from canister.integrations import flask as flask_adapter
from canister.integrations import quart as quart_adapter
from canister.integrations.django import close, session_manager
from canister.integrations.django.checks import check_settings
from canister.integrations.django.configuration import problems
from canister.integrations.moving.django import DjangoSessions
from canister.integrations.moving.flask import FlaskCookies
from canister.integrations.moving.flask_session import FlaskSessionRedis
from canister.integrations.moving.starlette import StarletteCookies

pytestmark = pytest.mark.integration

NAME = "__Host-id"


@pytest.fixture
def canister(tmp_path: Path) -> Iterator[Canister]:
    with Canister(tmp_path / "data") as canister:
        yield canister


# Django.


@pytest.fixture
def ann() -> Iterator[User]:
    yield User.objects.create_user("ann", password="secret")
    User.objects.all().delete()
    connections.close_all()


def move_in(engine: str) -> Any:
    if engine != "cache":
        return f"{BACKENDS}.{engine}"
    return DjangoSessions(f"{BACKENDS}.cache", stopped=datetime.now(UTC))


@pytest.fixture(params=ENGINES)
def old_cookie(request: pytest.FixtureRequest, ann: User, tmp_path: Path) -> Iterator[str]:
    """Ann's cookie of the time before; the project has changed its engine since."""
    value = django_log_in(request.param)
    with override_settings(CANISTER={"path": tmp_path / "data", "move_in": [move_in(request.param)]}):
        yield value
    close()


def browser(value: str, name: str = "sessionid", kind: type[Any] = DjangoClient) -> Any:
    client = kind()
    client.cookies[name] = value
    return client


def test_django_goes_on(old_cookie: str, ann: User) -> None:
    client = browser(old_cookie)
    assert client.get("/whoami").content == b"ann", "Django's own check of the password's hash goes on"
    assert client.cookies[NAME].value
    shown = client.get("/show").json()
    assert (shown["user"], shown["data"]) == (ann.pk, {"cart": "tea"})
    assert [one.handle for one in session_manager().users.sessions(ann.pk)] == [shown["handle"]]
    client.get("/log-out")
    assert browser(old_cookie).get("/whoami").content == b"nobody"


def test_django_goes_on_in_an_event_loop(old_cookie: str, ann: User) -> None:
    async def ask() -> list[dict[str, Any]]:
        client = browser(old_cookie, kind=AsyncClient)
        tabs = [browser(old_cookie, kind=AsyncClient) for _ in range(3)]
        shown = await asyncio.gather(*(tab.get("/a/show") for tab in (client, *tabs)))
        return [one.json() for one in (*shown, await client.get("/a/show"))]

    shown = asyncio.run(ask())
    assert {(one["user"], one["data"]["cart"]) for one in shown} == {(ann.pk, "tea")}
    assert len({one["handle"] for one in shown}) == 1


def test_django_goes_on_under_its_own_middleware(old_cookie: str, ann: User) -> None:
    with override_settings(MIDDLEWARE=DJANGOS, SESSION_COOKIE_NAME="sessionid"):
        client = browser(old_cookie)
        assert client.get("/whoami").content == b"ann"
        assert client.cookies["sessionid"].value != old_cookie, "it has its token at once"
        assert client.get("/whoami").content == b"ann"
        assert client.get("/show").json()["user"] == ann.pk
        client.get("/log-out")
        assert browser(old_cookie).get("/whoami").content == b"nobody"


def test_django_goes_on_under_its_own_middleware_in_an_event_loop(old_cookie: str, ann: User) -> None:
    async def ask() -> Any:
        return (await browser(old_cookie, kind=AsyncClient).get("/a/show")).json()

    with override_settings(MIDDLEWARE=DJANGOS, SESSION_COOKIE_NAME="sessionid"):
        assert asyncio.run(ask())["user"] == ann.pk


def test_a_cookie_of_the_same_name_moves_in_to_django(ann: User, tmp_path: Path) -> None:
    value = django_log_in("db", SESSION_COOKIE_NAME="__Host-sid")
    canister = {"path": tmp_path / "data", "move_in": f"{BACKENDS}.db"}
    with override_settings(CANISTER=canister, SESSION_COOKIE_NAME="__Host-sid"):
        client = browser(value, "__Host-sid")
        assert client.get("/whoami").content == b"ann"
        assert client.cookies["__Host-sid"].value != value
        assert client.get("/whoami").content == b"ann"
    close()


def test_a_password_that_has_changed_since_logs_out(old_cookie: str, ann: User) -> None:
    ann.set_password("another")
    ann.save()
    assert browser(old_cookie).get("/whoami").content == b"nobody"


def test_a_database_that_is_down_is_answered_with_503(ann: User, tmp_path: Path) -> None:
    value = django_log_in("db")
    with override_settings(CANISTER={"path": tmp_path / "data", "move_in": [f"{BACKENDS}.db"]}):
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE django_session RENAME TO away")
        try:
            client = browser(value)
            assert client.get("/untouched").status_code == 200
            for path in ("/whoami", "/log-in/ann", "/log-out"):
                response = client.get(path)
                assert response.status_code == 503, path
                assert NAME not in response.cookies
        finally:
            with connection.cursor() as cursor:
                cursor.execute("ALTER TABLE away RENAME TO django_session")
        assert client.get("/whoami").content == b"ann"
    close()


def test_an_engine_that_nothing_can_move_in_from_is_said_by_the_check(tmp_path: Path) -> None:
    with override_settings(CANISTER={"path": tmp_path / "data", "move_in": f"{BACKENDS}.file"}):
        [problem] = problems()
        assert "sessions cannot move in from" in problem
    close()


def test_the_serializer_of_before_is_no_mistake_while_sessions_move_in(old_cookie: str) -> None:
    with override_settings(SESSION_SERIALIZER="django.contrib.sessions.serializers.JSONSerializer"):
        assert "canister.W002" not in [message.id for message in check_settings()]


# Flask and Quart.


def flask_app(canister: Canister, **config: Any) -> Flask:
    app = Flask("new")
    app.config.from_mapping(SECRET_KEY=KEY, PREFERRED_URL_SCHEME="https", **config)
    LoginManager(app).user_loader(old_systems.User)
    app.add_url_rule("/", "show", lambda: jsonify(cart=session.get("cart"), user=current_user.get_id()))
    app.add_url_rule("/logout", "logout", lambda: str(logout_user()))
    app.config["CANISTER_MOVE_IN"] = [FlaskCookies(app)]
    if "SESSION_REDIS" in config:
        app.config["CANISTER_MOVE_IN"].append(FlaskSessionRedis(app))
    flask_adapter.CanisterSessions(app, canister=canister)
    return app


def flask_browser(app: Flask, value: str, name: str = "session") -> Any:
    client = app.test_client()
    client.set_cookie(name, value, secure=True)
    return client


def test_flask_goes_on(canister: Canister) -> None:
    value = flask_log_in(old_systems.flask_app())
    app = flask_app(canister)
    client = flask_browser(app, value)
    response = client.get("/")
    assert response.json == {"cart": ["tea"], "user": "ann"}
    assert "Max-Age=2592000" in response.headers["Set-Cookie"], "it was permanent, and outlives the browser"
    assert "Set-Cookie" not in client.get("/").headers
    assert client.get("/").json == {"cart": ["tea"], "user": "ann"}
    client.get("/logout")
    assert client.get("/").json == {"cart": None, "user": None}
    assert flask_browser(app, value).get("/").json == {"cart": None, "user": None}


def test_a_cookie_of_the_same_name_moves_in_to_flask(canister: Canister) -> None:
    value = flask_log_in(old_systems.flask_app(SESSION_COOKIE_NAME="__Host-sid"))
    app = flask_app(canister, SESSION_COOKIE_NAME="__Host-sid")
    client = flask_browser(app, value, "__Host-sid")
    assert client.get("/").json == {"cart": ["tea"], "user": "ann"}
    assert client.get_cookie("__Host-sid").value != value
    assert client.get("/").json == {"cart": ["tea"], "user": "ann"}


def test_a_session_of_flask_session_goes_on_in_flask(canister: Canister, tmp_path: Path) -> None:
    with running_redis(tmp_path / "redis") as server, Redis(port=server.port) as client:
        value = flask_log_in(old_systems.with_flask_session(client))
        browser = flask_browser(flask_app(canister, SESSION_REDIS=client), value)
        assert browser.get("/").json == {"cart": ["tea"], "user": "ann"}
        server.stop()
        assert browser.get("/").json == {"cart": ["tea"], "user": "ann"}, "it lives here now"
        late = flask_browser(flask_app(canister, SESSION_REDIS=client), "another")
        response = late.get("/")
        assert response.status_code == 503
        assert "Set-Cookie" not in response.headers


def test_quart_goes_on(canister: Canister) -> None:
    value = flask_log_in(old_systems.flask_app())
    app = Quart("new")
    app.config.from_mapping(SECRET_KEY=KEY, CANISTER_MOVE_IN=[FlaskCookies(app)])
    quart_adapter.CanisterSessions(app, canister=canister)

    @app.get("/")
    async def show() -> dict[str, Any]:
        return {"cart": quart_session.get("cart"), "user": quart_session.user}

    async def ask() -> list[Any]:
        client = app.test_client()
        client.set_cookie("localhost", "session", value)
        return [await (await client.get("/", scheme="https")).get_json() for _ in range(2)]

    assert asyncio.run(ask()) == [{"cart": ["tea"], "user": "ann"}] * 2


# Starlette.


async def show(request: Request) -> JSONResponse:
    return JSONResponse({"data": dict(request.session), "user": asgi.session_of(request).user})


def test_starlette_goes_on(canister: Canister) -> None:
    value = old_systems.starlette_log_in()
    old = StarletteCookies(KEY, user_key="user")
    middleware = [Middleware(asgi.SessionMiddleware, canister=canister, move_in=[old])]
    app = Starlette(routes=[Route("/", show)], middleware=middleware)

    async def ask() -> list[httpx.Response]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="https://test") as client:
            cookies = {"Cookie": f"session={value}"}
            tabs = await asyncio.gather(*(client.get("/", headers=cookies) for _ in range(3)))
            return [*tabs, await client.get("/")]

    responses = asyncio.run(ask())
    assert all(one.json() == {"data": {"cart": ["tea"], "user": "ann"}, "user": "ann"} for one in responses)
    assert len({one.headers["Set-Cookie"] for one in responses[:3]}) == 1
