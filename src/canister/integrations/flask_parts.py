"""What Flask and Quart have in common: the session object, and what their configuration means here."""

import atexit
import os
from collections.abc import Mapping
from datetime import timedelta
from operator import is_
from typing import Any, cast

from werkzeug.exceptions import HTTPException, default_exceptions

from canister.canister import Canister
from canister.clock import micros
from canister.codec import encode_value, key_slot
from canister.config import parse_switch
from canister.edits import Times
from canister.errors import ConfigError, InvalidValueError
from canister.integrations.unwanted import Unwanted, is_changed
from canister.sessions import CookieSettings, ManagerOptions, Session, SessionManager, SessionStatus
from canister.sessions.keys import VARIABLE
from canister.sessions.outcome import REFUSALS, refuse
from canister.sessions.session import Keeper
from canister.sessions.state import NOTHING_PENDING, Changes, State
from canister.sessions.token import Token

EXTENSION = "canister"
"""Where an application keeps its session manager among its extensions."""

_PREFIX = "CANISTER_"
_RECORD_CLIENT = "CANISTER_RECORD_CLIENT"
_INSECURE = "CANISTER_INSECURE_COOKIES"
_NOT_SETTINGS = (_RECORD_CLIENT, _INSECURE)
"""What begins like a setting of `Canister` and is one of the adapter."""
_DEFAULT_NAME = "session"
_PERMANENT = "_permanent"
_dict: Any = dict
_SLOT, _TRUE = key_slot(_PERMANENT), encode_value(True)


class FlaskSession(Session):
    """Flask's ``session``: a `Session` with the attributes of Flask's own.

    Attributes:
        lifetime: idle time and cookie age of the session while it is `permanent`.
        saved: whether the framework has asked for it to be saved.
    """

    __slots__ = ("_ages", "_max_age", "_unwanted", "_was_accessed", "_was_changed", "lifetime", "saved")

    def __init__(self, state: State | None = None, keeper: Keeper | None = None) -> None:
        super().__init__(state, keeper)
        self.lifetime = timedelta(0)
        self.saved = False
        self._ages = False  # whether the application has said how long the cookie is kept
        self._max_age = self.state.max_age
        self._unwanted: Unwanted | None = None
        self._was_accessed = self._was_changed = False

    @property
    def permanent(self) -> bool:
        """Whether the session outlives the browser, for PERMANENT_SESSION_LIFETIME after its last use."""
        return bool(self.get(_PERMANENT, False))

    @permanent.setter
    def permanent(self, value: bool) -> None:
        self[_PERMANENT] = bool(value)

    @property
    def new(self) -> bool:
        """Whether the client came without a session; not so where this node cannot tell."""
        return self.status is SessionStatus.NEW and not self.cannot_tell

    @property
    def accessed(self) -> bool:
        """Whether the response depends on the session; that stays so after the response."""
        return self.state.varies or self._was_accessed

    @accessed.setter
    def accessed(self, value: bool) -> None:
        if value:  # Flask says so; that it was not used is nobody's to say
            self.mark_accessed()

    @property
    def modified(self) -> bool:
        """Whether there is anything to save, or was; nested values count.

        Setting it is never needed to have something saved. False: what was changed so far is not to be
        saved, unless there are more changes; a log-in, a log-out and a new id stand.
        """
        if self._unwanted is not None and self._unwanted.is_all(self):
            return False
        return self._was_changed or is_changed(self)

    @modified.setter
    def modified(self, value: bool) -> None:
        self._use()
        self._was_changed = False
        self._unwanted = None if value else Unwanted(self)

    def set_cookie_age(self, age: timedelta | None) -> None:
        """Do what `Session.set_cookie_age` says; in this request it goes before what `permanent` means."""
        self._follow_permanent()
        super().set_cookie_age(age)
        self._ages = True

    def commit(self) -> None:
        """Do what `Session.commit` says, with what was edited in place after the request's end as well."""
        self.mark_accessed()
        super().commit()

    def settle(self, config: Mapping[str, Any]) -> None:
        """Do what Flask does before it saves.

        Args:
            config: SESSION_REFRESH_EACH_REQUEST says whether each request is an access of a permanent
                session, or only one that changes it.
        """
        state = self.state
        if self._unwanted is not None and self._unwanted.is_all(self):
            self.forget_changes()
        if state.token is not None and self._is_permanent():
            if config["SESSION_REFRESH_EACH_REQUEST"]:
                state.read = True
            elif not self.modified:
                state.passive = True

    def committed(self, token: Token | None, changes: Changes) -> None:
        """Do what `SessionData.committed` says, and keep in mind whether anything was changed."""
        if token is None or changes.writes or changes.asked is not NOTHING_PENDING:
            self._was_changed = True
        super().committed(token, changes)

    def look_again(self) -> None:
        """Have the next look for late changes see only what is used from now on."""
        self._was_accessed = self._was_accessed or self.state.varies
        self.state.varies = False

    def give_up(self) -> None:
        """Be an empty session of which nothing is stored, if this one is refused.

        For what looks at the session on its way out, as Flask-Login does: the answer is known.
        """
        if self.state.refusal is not None:
            self.state = State()
            self.state.failed = True
            self.saved = True
            self._refill()

    def changes(self, most: int | None = None) -> Changes:
        """Return what a commit has to write: the session's times and its cookie's follow `permanent`."""
        changes = self._changes(most)
        state = self.state
        if state.refusal is not None:
            return changes
        permanent = self._follow_permanent()
        if not changes.any or permanent == (state.base.get(_SLOT) == _TRUE):
            return changes
        asked = state.pending.carry or state.pending.logging_in or state.pending.wanted
        if state.token is None and not asked and changes.writes == {_SLOT: _TRUE}:
            rest = changes._replace(writes={})
            if not rest.any:
                return rest  # a session that holds nothing else is none
        state.ask(resend=True)
        return changes._replace(times=changes.times or self._times(permanent), asked=state.pending)

    def _changes(self, most: int | None) -> Changes:
        """Return what was changed, having put the text of lazy strings in their place if there are any."""
        try:
            return super().changes(most)
        except InvalidValueError as error:  # looked for only now: most sessions hold none
            try:
                for key, value in list(_dict.items(self)):
                    _dict.__setitem__(self, key, _as_text(value))
            except RecursionError:
                raise error from None  # it holds itself, as the error says
        return super().changes(most)

    def _follow_permanent(self) -> bool:
        """Have the cookie kept as `permanent` means; return that."""
        permanent = self._is_permanent()
        if not self._ages:
            self.state.max_age = self.lifetime if permanent else self._max_age
        return permanent

    def _is_permanent(self) -> bool:
        return bool(_dict.get(self, _PERMANENT))  # past our methods: it is no access

    def _times(self, permanent: bool) -> Times:
        state = self.state
        # Of a session that was destroyed nothing is left, its end neither.
        record = state.record if state.token is not None or state.pending.carry else None
        until = record.expiry.until if record is not None and record.expiry is not None else None
        if not permanent:
            return Times(None, until)
        idle = micros(self.lifetime)
        if record is not None and record.birth is not None:
            idle = min(idle, record.birth.absolute)
        return Times(idle, until)


def _as_text(value: Any) -> Any:
    """Return *value* with text for whatever gives HTML, as Flask stores it; itself where nothing does."""
    if callable(getattr(value, "__html__", None)):
        return str(value.__html__())
    kind = cast("type[object]", type(value))
    is_dict = issubclass(kind, dict)
    if not (is_dict or kind is tuple or issubclass(kind, list)):
        return value
    items: list[Any] = list(value.values() if is_dict else value)
    made = [_as_text(item) for item in items]
    if all(map(is_, made, items)):
        return value
    if is_dict:
        return dict(zip(value, made, strict=True))
    return tuple(made) if kind is tuple else made


def manager_for(
    config: Mapping[str, Any], canister: Canister | None, options: ManagerOptions
) -> SessionManager:
    """Return the session manager of an application.

    Args:
        config: the application's configuration.
        canister: where the sessions are stored; None: one is opened as the configuration says.
        options: settings of the session manager, which go before the configuration's.

    Raises:
        ConfigError: a setting is wrong.
    """
    given = {
        key: value for key, value in config.items() if key.startswith(_PREFIX) and key not in _NOT_SETTINGS
    }
    own = {_PREFIX + name.upper(): name for name in ManagerOptions.__annotations__ if name != "cookie"}
    chosen: dict[str, Any] = {name: given.pop(key) for key, name in own.items() if key in given}
    records_client(config)  # a text that says nothing is told of now, not at the first log-in
    chosen = {"secret_keys": _secret_keys(config)} | chosen | options
    chosen.setdefault("cookie", None)
    chosen["cookie"] = chosen["cookie"] or cookie_settings(config)
    manager = SessionManager(_find(canister, given), **cast("ManagerOptions", chosen))
    manager.session_class = FlaskSession
    return manager


def cookie_settings(config: Mapping[str, Any]) -> CookieSettings:
    """Return the cookie that Flask's configuration asks for.

    Flask's defaults cannot be told from a choice: unless CANISTER_INSECURE_COOKIES is set, the name
    "session", no Secure and no SameSite mean the safe ones.

    Raises:
        ConfigError: browsers would refuse it, or it would be unsafe.
    """
    if config.get("SESSION_COOKIE_PARTITIONED"):
        raise ConfigError("SESSION_COOKIE_PARTITIONED is not supported: the session cookie is first-party")
    insecure = parse_switch(config.get(_INSECURE, False), _INSECURE)
    domain = (config["SESSION_COOKIE_DOMAIN"] or "").lstrip(".") or None
    path = config["SESSION_COOKIE_PATH"] or config["APPLICATION_ROOT"]
    name = config["SESSION_COOKIE_NAME"]
    if name == _DEFAULT_NAME and not insecure:
        name = "" if domain is None and path == "/" else "__Secure-id"
    return CookieSettings(
        name=name,
        samesite=cast("Any", (config["SESSION_COOKIE_SAMESITE"] or "Lax").lower()),
        path=path,
        domain=domain,
        httponly=bool(config["SESSION_COOKIE_HTTPONLY"]),
        plain_http=insecure and not config["SESSION_COOKIE_SECURE"],
    )


def records_client(config: Mapping[str, Any]) -> bool:
    """Tell whether a log-in by Flask-Login records the client's address and software.

    Raises:
        ConfigError: the setting is neither true nor false.
    """
    return parse_switch(config.get(_RECORD_CLIENT, False), _RECORD_CLIENT)


def refusal_of(error: Exception, where: str) -> HTTPException:
    """Return what a request is answered that an error of `REFUSALS` ended, as the framework has it."""
    page = refuse(error, where)
    return default_exceptions[page.status](description=page.why)


def handler_of(error: Exception, handlers: Mapping[type[Exception], Any]) -> Any:
    """Return the application's handler for an error of `REFUSALS`, by one of its bases; None if it has none.

    One for `Exception` is none of them: it gets the HTTP error that the refusal is made.

    Args:
        error: what is to be answered.
        handlers: the application's handlers, by class; those of `REFUSALS` may be the adapter's own.
    """
    bases = type(error).__mro__
    own = (handlers.get(kind) for kind in bases[: bases.index(Exception)] if kind not in REFUSALS)
    return next((handler for handler in own if handler is not None), None)


def _secret_keys(config: Mapping[str, Any]) -> list[str] | None:
    """Return SECRET_KEY and its fallbacks, None where there is something more specific or nothing."""
    if VARIABLE in os.environ or not config["SECRET_KEY"]:
        return None
    keys: list[str | bytes] = [config["SECRET_KEY"], *(config.get("SECRET_KEY_FALLBACKS") or ())]
    return [key if isinstance(key, str) else key.decode("utf-8", "backslashreplace") for key in keys]


def _find(canister: Canister | None, given: Mapping[str, Any]) -> Canister:
    """Return the canister that was passed, or open the one that the configuration describes."""
    if canister is not None:
        if given:
            raise ConfigError(f"{', '.join(sorted(given))}: no effect, as the canister was opened elsewhere")
        return canister
    settings = {key.removeprefix(_PREFIX).lower(): value for key, value in given.items()}
    path = settings.pop("path", None)
    if path is None:
        raise ConfigError("pass canister=..., or set CANISTER_PATH in the application's configuration")
    opened = Canister(path, **settings)
    atexit.register(opened.close)
    return opened
