"""Sessions as Django, Flask, Flask-Session and Starlette keep them, made by those themselves."""

import asyncio
import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import patch

# First the project, which configures Django.
from tests.integration.django_project import KEY

# isort: split

import httpx
from django.contrib.auth.models import User as DjangoUser
from django.core.cache import caches
from django.test import Client as DjangoClient
from django.test import override_settings
from flask import Flask, session
from flask_login import LoginManager, UserMixin, login_user
from flask_session import Session as FlaskSession
from redis import Redis
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from canister.integrations.moving.django import DjangoSessions
from canister.integrations.moving.flask import FlaskCookies
from canister.integrations.moving.flask_session import FlaskSessionRedis
from canister.integrations.moving.starlette import StarletteCookies
from canister.sessions.movein import OldSystem

BACKENDS = "django.contrib.sessions.backends"
ENGINES = ("db", "cached_db", "cache", "signed_cookies")
DJANGOS = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]
TWO_WEEKS = timedelta(days=14)
MONTH = timedelta(days=31)


@dataclass
class Old:
    """An old system with one session in it: ann is logged in, with a cart.

    Attributes:
        system: what it moves in by.
        value: the value of ann's cookie.
        user: ann's id.
        ends: when her session ends there, as far as that can be told from outside.
    """

    system: OldSystem
    value: str
    user: Any
    ends: datetime
    cart: Any = field(default_factory=lambda: ["tea"])

    @property
    def header(self) -> str:
        return f"{self.system.cookie_name}={self.value}"


class User(UserMixin):
    def __init__(self, id: str) -> None:
        self.id = id


@contextlib.contextmanager
def time_ago(span: timedelta) -> Iterator[None]:
    """Let the libraries see the time as it was."""
    now = time.time
    with patch("time.time", lambda: now() - span.total_seconds()):
        yield


def django_log_in(engine: str, path: str = "log-in/ann", **options: Any) -> str:
    """Log ann in with one of Django's own engines; return her cookie."""
    name = options.setdefault("SESSION_COOKIE_NAME", "sessionid")
    with override_settings(SESSION_ENGINE=f"{BACKENDS}.{engine}", MIDDLEWARE=DJANGOS, **options):
        client = DjangoClient()
        assert client.get(f"/{path}").status_code == 200
        assert client.get("/put/cart/tea").status_code == 200
        return client.cookies[name].value


@contextlib.contextmanager
def django_old(engine: str) -> Iterator[Old]:
    """Have ann log in to a Django project."""
    user = DjangoUser.objects.create_user("ann", password="secret")
    caches["default"].clear()
    try:
        value = django_log_in(engine)
        stopped = datetime.now(UTC) if engine == "cache" else None
        system = DjangoSessions(f"{BACKENDS}.{engine}", stopped=stopped)
        yield Old(system, value, user.pk, datetime.now(UTC) + TWO_WEEKS, "tea")
    finally:
        DjangoUser.objects.all().delete()


def flask_app(**config: Any) -> Flask:
    """Return an application that logs in with Flask-Login."""
    app = Flask("old")
    app.config.from_mapping(SECRET_KEY=KEY, **config)
    LoginManager(app).user_loader(User)

    @app.get("/login")
    def log_in() -> str:
        session["cart"] = ["tea"]
        session.permanent = True
        login_user(User("ann"))
        return "ok"

    return app


def flask_log_in(app: Flask) -> str:
    client = app.test_client()
    assert client.get("/login").status_code == 200
    cookie = client.get_cookie(app.config["SESSION_COOKIE_NAME"])
    assert cookie is not None
    return cookie.value


@contextlib.contextmanager
def flask_old() -> Iterator[Old]:
    """Have ann log in to a Flask application with signed cookies."""
    app = flask_app()
    yield Old(FlaskCookies(app), flask_log_in(app), "ann", datetime.now(UTC) + MONTH)


def with_flask_session(client: "Redis", **config: Any) -> Flask:
    """Return an application whose sessions Flask-Session keeps in Redis."""
    app = flask_app(SESSION_TYPE="redis", SESSION_REDIS=client, **config)
    FlaskSession(app)
    return app


@contextlib.contextmanager
def flask_session_old(client: "Redis", **config: Any) -> Iterator[Old]:
    """Have ann log in to a Flask application with Flask-Session."""
    app = with_flask_session(client, **config)
    yield Old(FlaskSessionRedis(app), flask_log_in(app), "ann", datetime.now(UTC) + MONTH)


async def _starlette_log_in(request: Request) -> PlainTextResponse:
    request.session.update(cart=["tea"], user="ann")
    return PlainTextResponse("ok")


def starlette_log_in(**options: Any) -> str:
    """Log ann in to an application with Starlette's own middleware; return her cookie."""
    middleware = [Middleware(SessionMiddleware, secret_key=KEY, **options)]
    app = Starlette(routes=[Route("/login", _starlette_log_in)], middleware=middleware)

    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="https://test") as client:
            return await client.get("/login")

    return asyncio.run(ask()).cookies[options.get("session_cookie", "session")].strip('"')


@contextlib.contextmanager
def starlette_old() -> Iterator[Old]:
    """Have ann log in to a Starlette application with signed cookies."""
    value = starlette_log_in()
    system = StarletteCookies(KEY, user_key="user")
    yield Old(system, value, "ann", datetime.now(UTC) + TWO_WEEKS)
