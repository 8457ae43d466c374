"""Sessions that Django kept itself: in the database, in a cache, or in signed cookies.

What a session holds is verified and decoded by Django's own engine, with the project's secret keys. The
hash of the user's password goes with it, so that Django's check of it goes on.
"""

import re
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from importlib import import_module
from typing import Any

from django.conf import global_settings, settings
from django.contrib.auth import SESSION_KEY, get_user_model
from django.contrib.sessions.backends import cache, db, signed_cookies
from django.core import signing
from django.core.cache import caches
from django.db import Error, close_old_connections
from django.utils import timezone

from canister.codec import USER_TYPES
from canister.errors import ConfigError, OldSystemError
from canister.sessions.movein import OldSession

_AGE, _NAME = "SESSION_COOKIE_AGE", "SESSION_COOKIE_NAME"
# Read before anything else can change what Django's settings say where the project does not.
_DEFAULT_AGE = timedelta(seconds=global_settings.SESSION_COOKIE_AGE)
_DEFAULT_NAME = global_settings.SESSION_COOKIE_NAME

_SALT = "django.contrib.sessions.backends.signed_cookies"
_EXPIRY = "_session_expiry"
_KEY = re.compile(r"[!-~]{8,128}")
"""A key as it goes into a database or a cache: there is no session under any other text."""


class DjangoSessions:
    """The sessions of one of Django's engines.

    Args:
        engine: what ``SESSION_ENGINE`` was: the module of Django's database, cached database, cache or
            signed cookies, or one whose ``SessionStore`` is derived from theirs.
        cookie_name: the cookie it used; by default ``SESSION_COOKIE_NAME``, or Django's default for it.
        cookie_age: how long its sessions lasted; by default ``SESSION_COOKIE_AGE``, or Django's default.
        stopped: when the last process with the old engine stopped. For the cache, which does not say when
            a session ends: all of them end at *stopped* + *cookie_age*, on every node alike.

    Raises:
        ConfigError: sessions cannot move in from *engine*, or *stopped* is missing, or has no time zone.
    """

    def __init__(
        self,
        engine: str,
        *,
        cookie_name: str | None = None,
        cookie_age: timedelta | None = None,
        stopped: datetime | None = None,
    ) -> None:
        self._store_class = _store_class(engine)
        self._cookie_name = cookie_name
        self._cookie_age = cookie_age
        self._stopped = stopped
        if issubclass(self._store_class, cache.SessionStore) and (stopped is None or not stopped.tzinfo):
            raise ConfigError(
                f"{engine} does not say when a session ends: say when the last process that used it stopped, "
                "as in DjangoSessions(engine, stopped=datetime(2030, 1, 1, 12, tzinfo=UTC))"
            )

    @property
    def cookie_name(self) -> str:
        """The name of the cookie."""
        name: str = self._cookie_name or _stated(_NAME) or _DEFAULT_NAME
        return name

    def find(self, value: str) -> OldSession | None:
        """Return the session that a cookie's value names; see `OldSystem.find`."""
        if issubclass(self._store_class, signed_cookies.SessionStore):
            return self._in_cookie(value)
        if not _KEY.fullmatch(value):
            return None
        if issubclass(self._store_class, cache.SessionStore):
            return self._in_cache(value)
        return self._in_database(value)

    def _in_database(self, key: str) -> OldSession | None:
        model = self._store_class.get_model_class()
        with _database():
            row = model.objects.filter(session_key=key, expire_date__gt=timezone.now()).first()
        if row is None:
            return None
        data = self._store_class().decode(row.session_data)
        ends = _aware(row.expire_date)
        return self._session(key, data, ends, ends - (_idle(data) or self._age()))

    def _in_cache(self, key: str) -> OldSession | None:
        assert self._stopped is not None  # seen to above
        store = self._store_class(key)
        try:
            data = caches[settings.SESSION_CACHE_ALIAS].get(store.cache_key)
        except Exception as error:  # whatever the cache's client raises
            raise OldSystemError(f"Django's cache of sessions cannot be asked: {error}") from error
        return (
            None if data is None else self._session(key, data, self._end(data, self._stopped), self._stopped)
        )

    def _in_cookie(self, text: str) -> OldSession | None:
        store = self._store_class(text)
        try:
            data = signing.loads(text, salt=_SALT, serializer=store.serializer, max_age=self._age())
        except signing.BadSignature:
            return None
        signed = datetime.fromtimestamp(signing.b62_decode(text.rsplit(":", 2)[1]), UTC)
        # What is older than this Django does not take, whatever the session's own expiry.
        return self._session(text, data, min(signed + self._age(), self._end(data, signed)), signed)

    def _session(
        self, credential: str, data: dict[str, Any], ends: datetime, created: datetime
    ) -> OldSession | None:
        if not data:
            return None  # Django's word for a row that it could not verify
        return OldSession(credential, data, ends, created, _user_in(data), _idle(data))

    def _age(self) -> timedelta:
        stated = _stated(_AGE)
        return self._cookie_age or (_DEFAULT_AGE if stated is None else timedelta(seconds=stated))

    def _end(self, data: dict[str, Any], modified: datetime) -> datetime:
        """Return when a session ends that was last stored at *modified*."""
        expiry = data.get(_EXPIRY) or int(self._age().total_seconds())
        return _aware(self._store_class().get_expiry_date(modification=modified, expiry=expiry))


def _store_class(engine: str) -> Any:
    try:
        found = import_module(engine).SessionStore
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{engine!r} is no session engine: {error}") from error
    if not issubclass(found, (db.SessionStore, cache.SessionStore, signed_cookies.SessionStore)):
        raise ConfigError(
            f"sessions cannot move in from {engine}: only from Django's database, cached database, cache and "
            "signed cookies"
        )
    return found


def _stated(name: str) -> Any:
    """Return what the project says a setting is, None where it leaves that to Django."""
    return getattr(settings, name) if settings.is_overridden(name) else None


def _idle(data: dict[str, Any]) -> timedelta | None:
    """Return for how long a session may be idle if it was given a time of its own."""
    own = data.get(_EXPIRY)
    return timedelta(seconds=own) if isinstance(own, int) and own > 0 else None


def _user_in(data: dict[str, Any]) -> Any:
    """Return the id of the user who is logged in, the same as a log-in here stores."""
    text = data.get(SESSION_KEY)
    key = None if text is None else get_user_model()._meta.pk.to_python(text)
    return key if type(key) in USER_TYPES else text


def _aware(moment: datetime) -> datetime:
    if timezone.is_naive(moment):
        moment = timezone.make_aware(moment, timezone.get_default_timezone())
    return moment.astimezone(UTC)


@contextmanager
def _database() -> Generator[None]:
    """Ask the database in whatever thread this is: Django looks after connections in its own only."""
    close_old_connections()
    try:
        yield
    except Error as error:
        raise OldSystemError(f"Django's database of sessions cannot be asked: {error}") from error
    finally:
        close_old_connections()
