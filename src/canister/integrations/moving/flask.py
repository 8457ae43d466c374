"""Sessions that Flask or Quart kept in signed cookies."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Protocol, cast

from flask.sessions import SecureCookieSessionInterface
from itsdangerous import BadData

from canister.errors import ConfigError
from canister.sessions.movein import OldSession

LOGIN = "_user_id"
"""Where Flask-Login has who is logged in."""


class Application(Protocol):
    """What an application of Flask and one of Quart have in common here."""

    config: Any
    secret_key: Any
    permanent_session_lifetime: Any


class FlaskCookies:
    """The sessions in an application's signed cookies.

    The application's configuration says what Flask itself would take: the secret key and its fallbacks,
    the cookie's name, and PERMANENT_SESSION_LIFETIME, for which any such cookie is good.

    Args:
        app: the application of Flask or Quart, or another that is configured as it was.
        user_key: the key under which a session has who is logged in; by default that of Flask-Login.
    """

    def __init__(self, app: Application, *, user_key: str = LOGIN) -> None:
        self._app = app
        self._user_key = user_key

    @property
    def cookie_name(self) -> str:
        """The name of the cookie."""
        return str(self._app.config["SESSION_COOKIE_NAME"])

    def find(self, value: str) -> OldSession | None:
        """Return the session that a cookie's value holds; see `OldSystem.find`.

        Raises:
            ConfigError: the application has no secret key.
        """
        serializer = SecureCookieSessionInterface().get_signing_serializer(cast("Any", self._app))
        if serializer is None:
            raise ConfigError("Flask's cookies are verified with SECRET_KEY: set it to what it was")
        lifetime: timedelta = self._app.permanent_session_lifetime
        try:
            found = serializer.loads(value, max_age=int(lifetime.total_seconds()), return_timestamp=True)
        except BadData:
            return None
        data, signed = cast("tuple[dict[str, Any], datetime]", found)
        return OldSession(
            value, data, signed + lifetime, signed, data.get(self._user_key), idle_time(data, lifetime)
        )


def idle_time(data: Mapping[str, Any], lifetime: timedelta) -> timedelta | None:
    """Return for how long a session may be idle: a permanent one for its lifetime, as it does here."""
    return lifetime if data.get("_permanent") else None
