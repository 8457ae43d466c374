"""Sessions for Pyramid: a session factory, and an ``includeme`` that makes it from the settings."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, Unpack, cast

# Pyramid and zope.interface come without types: what is taken from them is Any.
from pyramid.events import NewResponse  # type: ignore[import-untyped]
from pyramid.interfaces import ISession, ISessionFactory  # type: ignore[import-untyped]
from pyramid.response import FileResponse, Response  # type: ignore[import-untyped]
from pyramid.settings import aslist  # type: ignore[import-untyped]
from zope.interface import classImplements  # type: ignore[import-untyped]

from canister.canister import Canister
from canister.clock import SECOND
from canister.config import parse_switch
from canister.errors import ConfigError
from canister.integrations.bodies import close_body
from canister.sessions import CookieSettings, ManagerOptions, Session, SessionManager, csrf
from canister.sessions.outcome import REFUSALS, refuse
from canister.sessions.state import State

_FLASH = "_f_"
_PREFIX = "canister."
_Late = list[Callable[[], None]]
_LATE = "_canister_late"
"""Where a request whose response is complete has what to call at its end."""


class PyramidSession(Session):
    """The session of one request, with what Pyramid's ``ISession`` asks for beside the mapping.

    Args:
        state: what the session manager found.
        manager: who stores it.
    """

    __slots__ = ("_manager",)

    def __init__(self, state: State, manager: SessionManager) -> None:
        super().__init__(state, manager)
        self._manager = manager

    @property
    def created(self) -> int:
        """When the session was created, in seconds since 1970; for one not stored yet, now."""
        record = self.state.record
        birth = None if record is None or self.new else record.birth
        return (birth.born if birth else self._manager.canister.engine.clock.now()) // SECOND

    @property
    def new(self) -> bool:
        """Whether the session is not stored yet."""
        return self.state.token is None

    def changed(self) -> None:
        """Do nothing but count as an access: the commit compares encoded bytes, of nested values too."""
        self._use()

    def flash(self, msg: Any, queue: str = "", allow_duplicate: bool = True) -> None:
        """Add a message to a queue; messages that two requests of a node add at once are all kept."""

        def add(messages: list[Any]) -> list[Any]:
            return messages if not allow_duplicate and msg in messages else [*messages, msg]

        self.update_key(_FLASH + queue, add, [])

    def pop_flash(self, queue: str = "") -> list[Any]:
        """Return the messages of a queue and empty it."""
        messages: list[Any] = self.pop(_FLASH + queue, [])
        return messages

    def peek_flash(self, queue: str = "") -> list[Any]:
        """Return the messages of a queue and leave them there."""
        messages: list[Any] = self.get(_FLASH + queue, [])
        return messages

    def new_csrf_token(self) -> str:
        """Replace what the session's forms carry; return the new text."""
        self._use()
        return self._keep_csrf(csrf.new_secret(None)).hex()

    def get_csrf_token(self) -> str:
        """Return what a form of this session carries, the same text each time.

        It is good until the session goes on under a new id, as at log-in.
        """
        return self._csrf_secret().hex()


class SessionFactory:
    """Pyramid's session factory over a canister: for ``config.set_session_factory``.

    The session is loaded at the first use of ``request.session`` and committed in a response callback:
    when the response is complete, before a byte of it leaves.

    Args:
        canister: where the sessions are stored.
        options: the settings of the `SessionManager`.

    Attributes:
        answer: makes the page of a commit that is refused.
    """

    def __init__(self, canister: Canister, **options: Unpack[ManagerOptions]) -> None:
        self.manager = SessionManager(canister, **options)
        self.answer: Callable[[Exception, Any], Any] = refused

    def __call__(self, request: Any) -> PyramidSession:
        """Return the request's session."""
        manager = self.manager
        loaded = manager.open([request.headers.get("Cookie", "")], request.host)
        session = PyramidSession(loaded.state, manager)
        session.mark_accessed()  # a page may show when it was created, or that it is new
        late = cast("_Late | None", vars(request).get(_LATE))
        if late is None:
            request.add_response_callback(partial(self._commit, session))
        else:
            manager.begun(session)
            late.append(partial(manager.finish, session, _where(request)))
            request.add_finished_callback(lambda _: _finish(late))  # pyright: ignore[reportUnknownLambdaType]
        return session

    def _commit(self, session: PyramidSession, request: Any, response: Any) -> None:
        try:
            self.manager.commit(session)
        except tuple(REFUSALS) as error:
            _replace(response, self.answer(error, request))
        # After a write that is not acknowledged too: it stands, and its cookie has to be known.
        outcome = session.state.outcome
        if outcome is not None:
            response.headerlist = outcome.all_headers(response.headerlist)
        finish = partial(self.manager.finish, session, _where(request))
        if not _watch(response, finish):
            request.add_finished_callback(lambda _: finish())  # pyright: ignore[reportUnknownLambdaType]


def includeme(config: Any) -> None:
    """Set the session factory up: ``config.include("canister.integrations.pyramid")``.

    The setting ``canister`` is an open `Canister`; without it, ``canister.path`` is the data directory, and
    each ``canister.<name>`` a setting of `canister.config.Config`. ``canister.<name>`` with a name of
    `ManagerOptions` is one of the session manager, ``canister.cookie`` being a `CookieSettings`, for which
    ``canister.plain_http = true`` may stand during development.

    Raises:
        ConfigError: a setting is wrong.
    """
    settings: Mapping[str, Any] = config.get_settings()
    given = {name.removeprefix(_PREFIX): settings[name] for name in settings if name.startswith(_PREFIX)}
    names = [name for name in ManagerOptions.__annotations__ if name in given]
    options = {name: _FROM_TEXT.get(name, _same)(given.pop(name)) for name in names}
    if parse_switch(given.pop("plain_http", False), f"{_PREFIX}plain_http"):
        options.setdefault("cookie", CookieSettings(plain_http=True))
    given |= {
        name: parse_switch(given[name], _PREFIX + name) for name in ("agent", "serves") if name in given
    }
    canister = settings.get("canister")
    if canister is not None and given:
        raise ConfigError(f"canister is open already: canister.{min(given)} comes too late")
    if canister is None:
        if "path" not in given:
            raise ConfigError("set canister.path to the data directory, or canister to an open Canister")
        canister = Canister(given.pop("path"), **given)
    factory = SessionFactory(canister, **cast("ManagerOptions", options))
    factory.answer = _by_view
    config.set_session_factory(factory)
    config.add_subscriber(_begin, NewResponse)
    for kind in REFUSALS:
        config.add_exception_view(refused, context=kind)


def _same(value: Any) -> Any:
    return value


def _keys(value: Any) -> list[str]:
    return cast("list[str]", aslist(value))


def _number(value: Any) -> Any:
    return int(value) if isinstance(value, str) and value.isdecimal() else value


_FROM_TEXT: Mapping[str, Callable[[Any], Any]] = {
    "secret_keys": _keys,
    "acks": _number,
    "max_sessions": _number,
}
"""The settings of the session manager that come as text from an .ini file and are no text."""


def refused(error: Exception, request: Any) -> Any:
    """Return the response to a request that nobody else answers: Pyramid's exception view."""
    page = refuse(error, _where(request))
    return Response(page.text.encode(), page.status, headerlist=list(page.headers.items()))


def _by_view(_error: Exception, request: Any) -> Any:
    """Return what the exception view answers to the error that is handled: the application's, or our own."""
    return request.invoke_exception_view()


def _replace(response: Any, other: Any) -> None:
    close_body(response.app_iter)
    response.status, response.headerlist, response.app_iter = other.status, other.headerlist, other.app_iter


def _where(request: Any) -> str:
    return f"{request.method} {request.path_info}"


def _begin(event: Any) -> None:
    """Have a session that is first used from now on told that no header can follow, and looked at late."""
    # Not in the environ: a mounted application has the same one.
    late = cast("_Late", vars(event.request).setdefault(_LATE, []))
    _watch(event.response, partial(_finish, late))


def _finish(late: _Late) -> None:
    while late:
        late.pop()()


def _watch(response: Any, finish: Callable[[], None]) -> bool:
    """Call *finish* when the body is over, if the application's code makes it; tell whether it does."""
    chunks: Any = response.app_iter
    if isinstance(chunks, (list, tuple, _Watched)) or isinstance(response, FileResponse):
        return False  # servers know their own way to send files
    response.app_iter = _Watched(chunks, finish)
    return True


class _Watched:
    """A body that looks for changes that nobody committed once it is over."""

    def __init__(self, body: Iterable[bytes], finish: Callable[[], None]) -> None:
        self._body = body
        self._chunks = iter(body)
        self._finish = finish
        self._over = False

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            return next(self._chunks)
        except StopIteration:
            self._over = True
            raise

    def close(self) -> None:
        """Close what the application returned, and look."""
        close_body(self._body)
        if self._over:
            self._finish()


classImplements(PyramidSession, ISession)
classImplements(SessionFactory, ISessionFactory)
