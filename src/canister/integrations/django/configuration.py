"""Django's settings read as ours, and the one session manager that a process makes of them.

``CANISTER`` holds what Django has no name for: ``path``, the data directory; the settings of a canister
and of a session manager by their names, where an item of ``move_in`` may also be what
``SESSION_ENGINE`` was before; ``any_host``, as in `CookieSettings`; and ``record_client``,
whether a log-in records the client's address and software. The cookie is described by Django's own names.
Each that the project leaves untouched has our value, and where `SessionMiddleware` sends the cookie,
``django.conf.settings`` is made to say so: the test client and other packages find the cookie by them.
"""

import os
import threading
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, NamedTuple, cast

from django.conf import global_settings, settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed

from canister.canister import Canister
from canister.config import Config, load_config, parse_switch, stated_settings
from canister.errors import ConfigError
from canister.integrations.moving.django import DjangoSessions
from canister.sessions import CookieSettings, ManagerOptions, SessionManager
from canister.sessions.keys import VARIABLE, KeyRing
from canister.sessions.movein import OldSystem

ENGINE = "canister.integrations.django"
MIDDLEWARE = f"{ENGINE}.SessionMiddleware"

_COOKIE = "SESSION_COOKIE_"
_AGE = "SESSION_COOKIE_AGE"
_CLOSES = "SESSION_EXPIRE_AT_BROWSER_CLOSE"
_TWO_WEEKS = timedelta(seconds=global_settings.SESSION_COOKIE_AGE)
_OTHERS = ("SECRET_KEY", "SECRET_KEY_FALLBACKS", "CANISTER", "MIDDLEWARE", "SESSION_ENGINE", _CLOSES)
_MANAGER_OPTIONS = frozenset(ManagerOptions.__annotations__) - {"cookie"}


class Settings(NamedTuple):
    """What Django's settings say.

    Attributes:
        path: the data directory.
        canister: the canister's settings.
        options: the session manager's.
        record_client: whether a log-in records the client's address and software.
    """

    path: str
    canister: dict[str, Any]
    options: ManagerOptions
    record_client: bool


class _Process:
    """What this process has open."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.canister: Canister | None = None
        self.manager: SessionManager | None = None
        self.record_client = False
        self.owns_cookie = False


_process = _Process()


def session_manager() -> SessionManager:
    """Return the session manager of this process, opening the canister if it is not open yet.

    Raises:
        ImproperlyConfigured: a setting cannot work.
        StoreError: the data directory cannot be used.
    """
    return _process.manager or _open()


def records_client() -> bool:
    """Tell whether a log-in records the client's address and software."""
    session_manager()
    return _process.record_client


def own_cookie() -> SessionManager:
    """Note that our middleware sends the cookie; return the session manager.

    Raises:
        ImproperlyConfigured: as for `session_manager`.
    """
    _process.owns_cookie = True
    return _open()


def close() -> None:
    """Close the canister of this process; it is opened again when it is needed."""
    with _process.lock:
        canister, _process.canister, _process.manager = _process.canister, None, None
        if canister is not None:
            canister.close()


def read_settings() -> Settings:
    """Return what Django's settings say; nothing is opened.

    Raises:
        ConfigError: it cannot work.
    """
    given = dict(_stated())
    path = given.pop("path", None)
    if not path:
        raise ConfigError("there is no data directory; set CANISTER = {'path': ...}")
    record_client, any_host = (_switch(given, name) for name in ("record_client", "any_host"))
    if "cookie" in given:
        raise ConfigError("the cookie is described by Django's own settings, SESSION_COOKIE_NAME and so on")
    options = cast("ManagerOptions", {name: given.pop(name) for name in _MANAGER_OPTIONS & given.keys()})
    strict: Any = options.get("strict")
    if strict is not None:
        options["strict"] = parse_switch(strict, "CANISTER['strict']")
    cookie = _cookie(any_host=any_host)
    if "secret_keys" not in options and VARIABLE not in os.environ:
        options["secret_keys"] = _secret_keys()
    options["move_in"] = _old_systems(options.get("move_in", ()))
    config = _config(given)
    options["cookie"] = cookie.lasting(_max_age(config))
    return Settings(str(path), given, options, record_client)


def tell_settings() -> None:
    """Let Django's settings say what holds where the project does not, for whoever reads them.

    Raises:
        ConfigError: as `read_settings`.
    """
    found = read_settings()
    cookie = found.options.get("cookie") or CookieSettings()
    values: dict[str, object] = {_AGE: int(load_config(found.canister).session_timeout.total_seconds())}
    if _process.owns_cookie or MIDDLEWARE in settings.MIDDLEWARE:
        values |= {
            f"{_COOKIE}NAME": cookie.name,
            f"{_COOKIE}SECURE": cookie.secure,
            f"{_COOKIE}HTTPONLY": cookie.httponly,
            f"{_COOKIE}SAMESITE": cookie.samesite.capitalize(),
            _CLOSES: cookie.max_age is None,
        }
    for name, value in values.items():
        if not settings.is_overridden(name):
            _set_default(name, value)


def tell_settings_early() -> None:
    """Do `tell_settings` if there are settings yet and they can work.

    What cannot work is said by the system check and by whoever opens the canister.
    """
    if not settings.configured or problems():
        return
    if settings.SESSION_ENGINE == ENGINE or MIDDLEWARE in settings.MIDDLEWARE:
        tell_settings()


def problems() -> list[str]:
    """Return why the settings cannot work; nothing if they can."""
    try:
        found = read_settings()
        load_config(found.canister)
        keys = found.options.get("secret_keys")
        if keys or (keys is not None and "secret_keys" in _stated()):  # that SECRET_KEY is empty, Django says
            KeyRing([keys] if isinstance(keys, str) else keys)
    except ConfigError as error:
        return [str(error)]
    return []


def moves_in() -> bool:
    """Tell whether sessions move in, which Django's own settings describe."""
    try:
        return bool(_stated().get("move_in"))
    except ConfigError:
        return False


def _set_default(name: str, value: object) -> None:
    """Change what a setting is where nobody states it; what overrides it in a test still does."""
    holder = settings._wrapped
    while hasattr(holder, "default_settings"):
        holder = holder.default_settings
    setattr(holder, name, value)
    settings.__dict__.pop(name, None)  # Django keeps what was asked for


def _open() -> SessionManager:
    with _process.lock:
        if _process.manager is None:
            try:
                tell_settings()
                found = read_settings()
                canister = _process.canister or Canister(found.path, **found.canister)
                _process.canister = canister
                _process.manager = SessionManager(canister, **found.options)
            except ConfigError as error:
                raise ImproperlyConfigured(f"sessions: {error}") from error
            _process.record_client = found.record_client
        return _process.manager


def _secret_keys() -> list[str]:
    """Return Django's keys; none where SECRET_KEY is empty, as it may be for a command that signs nothing."""
    try:
        keys = [settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS]
    except ImproperlyConfigured:
        return []
    return [key.hex() if isinstance(key, bytes) else key for key in keys]


def _config(given: dict[str, Any]) -> Config:
    """Complete the canister's settings with ``SESSION_COOKIE_AGE``, and return what comes of them."""
    stated = stated_settings(given)
    if settings.is_overridden(_AGE):
        if "session_timeout" in given:
            raise ConfigError(f"{_AGE} and CANISTER['session_timeout'] are both the idle timeout; set one")
        given["session_timeout"] = timedelta(seconds=settings.SESSION_COOKIE_AGE)
    elif "session_timeout" not in stated and "preset" not in stated:
        given["session_timeout"] = min(_TWO_WEEKS, stated.get("absolute_lifetime", _TWO_WEEKS))
    try:
        return load_config(given)
    except ConfigError as error:
        hint = f" (session_timeout is {_AGE})" if "session_timeout" in str(error) else ""
        raise ConfigError(f"{error}{hint}") from error


def _stated() -> Mapping[str, Any]:
    stated: Any = getattr(settings, "CANISTER", {})
    if not isinstance(stated, Mapping):
        raise ConfigError(f"CANISTER is a dict such as {{'path': ...}}, not {stated!r}")
    return cast("Mapping[str, Any]", stated)


def _switch(given: dict[str, Any], name: str) -> bool:
    return parse_switch(given.pop(name, False), f"CANISTER[{name!r}]")


def _old_systems(given: str | Sequence[str | OldSystem]) -> list[OldSystem]:
    """Return where sessions move in from; a text is what ``SESSION_ENGINE`` was."""
    listed = [given] if isinstance(given, str) else given
    return [DjangoSessions(one) if isinstance(one, str) else one for one in listed]


def _cookie(*, any_host: bool) -> CookieSettings:
    plain = settings.is_overridden(f"{_COOKIE}SECURE") and not settings.SESSION_COOKIE_SECURE
    path = settings.SESSION_COOKIE_PATH
    domain = (settings.SESSION_COOKIE_DOMAIN or "").lstrip(".") or None  # browsers ignore the dot: RFC 6265
    name = settings.SESSION_COOKIE_NAME if settings.is_overridden(f"{_COOKIE}NAME") else ""
    if not (name or plain) and (path != "/" or domain is not None):
        name = "__Secure-id"
    samesite = settings.SESSION_COOKIE_SAMESITE
    if samesite is None or not settings.is_overridden(f"{_COOKIE}SAMESITE"):
        samesite = "lax"  # Django sends no attribute for None the object, and browsers take that for Lax
    return CookieSettings(
        name=name,
        samesite=cast("Any", str(samesite).lower()),
        path=path,
        domain=domain,
        httponly=settings.SESSION_COOKIE_HTTPONLY if settings.is_overridden(f"{_COOKIE}HTTPONLY") else True,
        plain_http=plain,
        any_host=any_host,
    )


def _max_age(config: Config) -> timedelta | None:
    """Return how long browsers keep the cookie: until they are closed, unless the project says otherwise."""
    closes = (
        settings.SESSION_EXPIRE_AT_BROWSER_CLOSE
        if settings.is_overridden(_CLOSES)
        else not settings.is_overridden(_AGE)
    )
    return None if closes else config.session_timeout


def _forget(*, setting: str, **_: Any) -> None:
    """Follow a change of settings, which is for tests only."""
    if setting not in _OTHERS and not setting.startswith(_COOKIE):
        return
    if setting in ("CANISTER", _AGE):
        close()
    _process.manager = None
    tell_settings_early()


setting_changed.connect(_forget, dispatch_uid="canister.integrations.django")
