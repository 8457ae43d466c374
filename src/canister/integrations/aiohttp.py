"""Sessions for aiohttp, through aiohttp_session: `setup` in the place of ``aiohttp_session.setup``."""

import asyncio
import logging
from datetime import timedelta
from typing import Any, Unpack, cast

import aiohttp_session
from aiohttp import web
from aiohttp.typedefs import Handler

from canister.canister import Canister
from canister.errors import ConfigError
from canister.integrations.streams import Hold
from canister.sessions import ManagerOptions, Outcome, SessionManager
from canister.sessions import Session as CanisterSession
from canister.sessions.outcome import REFUSALS, refuse
from canister.texts import shown

logger = logging.getLogger("canister.sessions")


class Session(aiohttp_session.Session):
    """What ``aiohttp_session.get_session`` returns: Canister's session under aiohttp_session's names.

    Args:
        data: Canister's session.
        supersedes: whether it takes the place of the one that the request's cookie names.

    Attributes:
        data: Canister's session, with ``login``, ``regenerate``, ``csrf_token`` and so on.
    """

    def __init__(self, data: CanisterSession, *, supersedes: bool = False) -> None:
        super().__init__(data.handle, data=None, new=data.handle is None)
        self.data = data
        self.supersedes = supersedes
        self._mapping = data
        record = data.state.record
        if record is not None and record.birth is not None:
            self._created = record.birth.born // 1_000_000

    @property
    def _changed(self) -> bool:
        # What aiohttp_session saves by. The commit compares what is stored, nested values too, and also
        # records accesses and takes stale cookies away: it has to see every session that was asked for.
        return True

    @_changed.setter
    def _changed(self, value: bool) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]
        if value:
            self.data.mark_accessed()

    # A page that shows one of these is the client's own.

    @property
    def identity(self) -> str | None:
        """The stored session's handle, no secret; None before it is stored."""
        self.data.mark_accessed()
        return self.data.handle

    @property
    def new(self) -> bool:
        """Whether the session was not stored yet when it was asked for."""
        self.data.mark_accessed()
        return super().new

    @property
    def created(self) -> int:
        """When the session was created, in seconds since 1970."""
        self.data.mark_accessed()
        return super().created

    @property
    def max_age(self) -> int | None:
        """The session's own idle timeout in seconds, as set by this request; None: the default."""
        return self._max_age

    @max_age.setter
    def max_age(self, value: int | None) -> None:
        self._max_age = value
        self.data.set_expiry(None if value is None else timedelta(seconds=value))

    def invalidate(self) -> None:
        """End the session for good; keys set afterwards go into a new one."""
        self.data.destroy()

    def set_new_identity(self, identity: object) -> None:
        """Refuse: the session manager draws the ids.

        Raises:
            RuntimeError: always.
        """
        raise RuntimeError(
            "Canister draws the ids of sessions; use session.data.regenerate() for another one"
        )


class CanisterStorage(aiohttp_session.AbstractStorage):
    """The storage behind aiohttp_session; `setup` makes one.

    Args:
        canister: where the sessions are stored.
        options: the settings of the `SessionManager`.
    """

    def __init__(self, canister: Canister, **options: Unpack[ManagerOptions]) -> None:
        self.manager = SessionManager(canister, **options)
        cookie = self.manager.cookie
        super().__init__(
            cookie_name=cookie.name,
            domain=cookie.domain,
            max_age=None if cookie.max_age is None else int(cookie.max_age.total_seconds()),
            path=cookie.path,
            secure=cookie.secure,
            httponly=cookie.httponly,
            samesite=cookie.samesite.capitalize(),
        )

    async def new_session(self) -> Session:
        """Return a new session; saving it destroys the one that the request's cookie names."""
        return Session(self.manager.load([]), supersedes=True)

    async def load_session(self, request: web.Request) -> Session:
        """Return the session that the request's cookies name, or a new one."""
        session = await self._load(request)
        if _COURSE in request and cast("_Course", request[_COURSE]).begun:
            self.manager.begun(session)
        return Session(session)

    async def save_session(
        self, request: web.Request, response: web.StreamResponse, session: aiohttp_session.Session
    ) -> None:
        """Commit the session and add its headers to a response that is not prepared yet.

        Raises:
            CanisterError: as `SessionManager.commit`.
        """
        if not isinstance(session, Session):
            raise TypeError(f"the request's session is {type(session).__name__}, not one of this storage")
        if session.supersedes:
            session.data.supersede(await self._load(request))
            session.supersedes = False
        _add_headers(response, await self.manager.acommit(session.data))

    async def _load(self, request: web.Request) -> CanisterSession:
        return await self.manager.aopen(request.headers.getall("Cookie", []), request.host)


class _Course:
    """One request from its handler to its end.

    Attributes:
        begun: whether the headers of a stream or WebSocket have left.
    """

    def __init__(self, storage: CanisterStorage, request: web.Request) -> None:
        self.hold = Hold(storage.manager)
        self._storage = storage
        self._request = request
        self._stream: web.StreamResponse | None = None
        self.begun = False

    @property
    def session(self) -> Session | None:
        """The session, if the handler asked for it."""
        session: Any = self._request.get(aiohttp_session.SESSION_KEY)
        return session if isinstance(session, Session) else None

    async def run(self, handler: Handler) -> web.StreamResponse:
        """Have the request handled."""
        try:
            response = await handler(self._request)
            if not response.prepared:
                await self.prepare(response)  # a file, which aiohttp sends later
        except tuple(REFUSALS) as error:
            if self.begun:
                raise
            return self._refusal(error)
        except asyncio.CancelledError:
            if not self.hold.over or self._stream is None or not self.hold.settle():
                raise
            await self._close(self._stream)
            return self._stream
        except web.HTTPException:
            self._finish()
            raise
        finally:
            self.hold.release()
        self._finish()
        return response

    async def prepare(self, response: web.StreamResponse) -> None:
        """Commit before the headers of a stream or WebSocket leave; aiohttp_session saves for the others."""
        session = self.session
        if isinstance(response, web.Response) or self.begun:
            return
        self._stream = response
        if session is not None:
            await self._storage.save_session(self._request, response, session)
            self.hold.committed(session.data, always=isinstance(response, web.WebSocketResponse))
        self.begun = True

    async def _close(self, stream: web.StreamResponse) -> None:
        logger.info("http %s ends with its session", shown(self._request.path))
        if isinstance(stream, web.WebSocketResponse):
            await stream.close(code=1008, message=b"the session is over")
        elif stream.content_length is None:
            await stream.write_eof()
        else:  # the client must see that it is short
            self._request.protocol.force_close()

    def _finish(self) -> None:
        if self.session is not None:
            self._storage.manager.finish(self.session.data, "http", self._request.path)

    def _refusal(self, error: Exception) -> web.Response:
        page = refuse(error, f"http {self._request.path}")
        response = web.Response(status=page.status, body=page.text.encode(), headers=page.headers)
        if self.session is not None:  # what was written stands, though fewer members than wanted hold it
            _add_headers(response, self._storage.manager.discard(self.session.data))
        if self._stream is not None:
            _follow(self._stream, response)
        return response


# aiohttp 3.14 warns of plain names.
_COURSE: Any = web.RequestKey("canister", _Course) if hasattr(web, "RequestKey") else "canister"


def setup(app: web.Application, canister: Canister, **options: Unpack[ManagerOptions]) -> CanisterStorage:
    """Give an application, with its sub-applications, sessions.

    What cannot be told, or is not acknowledged, is answered with 503 if the response has not begun, the
    use of a locked session with 403.

    Args:
        app: the application.
        canister: where the sessions are stored.
        options: the settings of the `SessionManager`.
    """
    storage = CanisterStorage(canister, **options)

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        course = request[_COURSE] = _Course(storage, request)
        return await course.run(handler)

    async def prepare(request: web.Request, response: web.StreamResponse) -> None:
        if _COURSE in request:
            await cast("_Course", request[_COURSE]).prepare(response)

    app.middlewares.append(middleware)
    aiohttp_session.setup(app, storage)
    app.on_response_prepare.append(prepare)
    return storage


async def session_of(request: web.Request) -> CanisterSession:
    """Return Canister's session of a request: what ``get_session`` wraps.

    Raises:
        ConfigError: `setup` was not called for the application.
    """
    if _COURSE not in request:
        raise ConfigError("call canister.integrations.aiohttp.setup(app, canister)")
    session = await aiohttp_session.get_session(request)
    return cast("Session", session).data


def hold_session(request: web.Request, *, keep_alive: bool = False) -> None:
    """Close this stream within a second of the session's end, on whatever node that is caused.

    A WebSocket whose handler has asked for a stored session before `prepare` is held without it.

    Args:
        request: the request.
        keep_alive: whether the stream counts as an access for as long as it lasts.

    Raises:
        ConfigError: `setup` was not called for the application.
    """
    if _COURSE not in request:
        raise ConfigError("call canister.integrations.aiohttp.setup(app, canister)")
    cast("_Course", request[_COURSE]).hold.ask(keep_alive=keep_alive)


def _add_headers(response: web.StreamResponse, outcome: Outcome) -> None:
    outcome.put_into(response.headers, response.headers.items())


def _follow(failed: web.StreamResponse, response: web.Response) -> None:
    """Send *response* in the coding that aiohttp has set the connection to for the stream that failed."""
    if "Transfer-Encoding" in failed.headers:
        response.enable_chunked_encoding()
    if "Content-Encoding" in failed.headers:
        response.headers["Content-Encoding"] = failed.headers["Content-Encoding"]
