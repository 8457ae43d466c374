"""Sessions that Flask-Session kept in Redis or Valkey, with MessagePack or JSON, never with pickle."""

import logging
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import msgspec
from flask import Flask
from itsdangerous import BadSignature, Signer
from redis import Redis
from redis.exceptions import RedisError, ResponseError

from canister.errors import ConfigError, OldSystemError
from canister.integrations.moving.flask import LOGIN, idle_time
from canister.sessions.movein import OldSession

logger = logging.getLogger("canister.sessions")

_DECODES = "SESSION_REDIS decodes what the servers say; set it to a client without decode_responses"


class FlaskSessionRedis:
    """The sessions of an application that Flask-Session 0.7 and later kept in Redis or Valkey.

    Flask-Session's own names in the application's configuration are respected: SESSION_REDIS,
    SESSION_KEY_PREFIX and SESSION_USE_SIGNER, and Flask's for the cookie's name and the lifetime.
    A session ends when the servers would have dropped it: they tell the instant itself, so that it is the
    same for all who ask, however late.

    Args:
        app: the application, or another that is configured as it was.
        user_key: the key under which a session has who is logged in; by default that of Flask-Login.

    Raises:
        ConfigError: the application has no SESSION_REDIS, or no secret key where its cookies are signed.

    Attributes:
        cookie_name: the name of the cookie.
    """

    def __init__(self, app: Flask, *, user_key: str = LOGIN) -> None:
        config = cast("Mapping[str, Any]", app.config)
        client = config.get("SESSION_REDIS")
        if not isinstance(client, Redis):
            raise ConfigError("set SESSION_REDIS to the client of redis-py that Flask-Session used")
        self._client = cast("Any", client)  # redis-py's annotations are those of its asynchronous client too
        self.cookie_name: str = config["SESSION_COOKIE_NAME"]
        self._prefix: str = config.get("SESSION_KEY_PREFIX", "session:")
        self._signer = _signer(app) if config.get("SESSION_USE_SIGNER") else None
        self._app = app
        self._user_key = user_key

    def find(self, value: str) -> OldSession | None:
        """Return the session that a cookie's value names; see `OldSystem.find`."""
        try:
            key = value if self._signer is None else self._signer.unsign(value).decode()
        except BadSignature:
            return None
        stored, ends = self._ask(self._prefix + key)
        data = None if stored is None else _decode(stored)
        if data is None:
            return None
        lifetime: timedelta = self._app.permanent_session_lifetime
        user = data.get(self._user_key)
        return OldSession(key, data, ends, ends - lifetime, user, idle_time(data, lifetime))

    def _ask(self, key: str) -> tuple[bytes | None, datetime]:
        """Return what is stored under a key, and when the servers drop it."""
        try:
            with self._client.pipeline(transaction=True) as pipeline:
                pipeline.get(key)
                pipeline.pexpiretime(key)
                stored, milliseconds = pipeline.execute()
        except ResponseError as error:
            raise OldSystemError(
                f"Flask-Session's servers must say when a session ends: Redis 7 or Valkey does ({error})"
            ) from error
        except RedisError as error:
            raise OldSystemError(f"Flask-Session's servers cannot be asked: {error}") from error
        except UnicodeDecodeError as error:  # no MessagePack is text
            raise OldSystemError(_DECODES) from error
        if isinstance(stored, str):
            raise OldSystemError(_DECODES)
        if stored is not None and milliseconds < 0:
            # Nobody but an operator makes such a one; without an end it could not stay logged out.
            logger.warning("a session of Flask-Session has no end, and cannot move in: give it one (EXPIRE)")
            stored = None
        try:
            ends = datetime.fromtimestamp(max(milliseconds, 0) / 1000, UTC)
        except (ValueError, OverflowError) as error:
            raise OldSystemError(
                f"a session of Flask-Session ends later than can be told: {error}"
            ) from error
        return stored, ends


def _signer(app: Flask) -> Signer:
    if not app.secret_key:
        raise ConfigError("SESSION_USE_SIGNER: Flask-Session's cookies are verified with SECRET_KEY; set it")
    return Signer(app.secret_key, salt="flask-session", key_derivation="hmac")


def _decode(stored: bytes) -> dict[str, Any] | None:
    """Return a session's keys and values, None where they are written in neither way."""
    for decode in (msgspec.msgpack.decode, msgspec.json.decode):
        try:
            data = decode(stored)
        except (msgspec.DecodeError, RecursionError):
            continue
        if isinstance(data, dict):
            return cast("dict[str, Any]", data)
    logger.warning(
        "a session of Flask-Session is refused: it is neither MessagePack nor JSON. A pickle is not read, "
        "it could run code; Flask-Session 0.7 and later rewrite such a session when it is used there"
    )
    return None
