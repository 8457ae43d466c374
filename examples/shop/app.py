"""The example shop, a Starlette application: one cart in one session, on whichever node you are.

run.py starts it three times. What matters for your own application is in `create_app` and in the
handlers: they use `request.session` as a dict, and know nothing of nodes.
"""

import contextlib
from collections.abc import AsyncGenerator
from datetime import datetime, timedelta
from pathlib import Path

import pages
from pages import ARTICLES, Place, Visit
from settings import Settings
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from canister import AgentError, Canister, CannotTellError
from canister.agent.control import AgentStatus
from canister.integrations.asgi import SessionMiddleware
from canister.sessions import CookieSettings

SESSION_TIMEOUT = timedelta(minutes=20)
TOUCH_INTERVAL = timedelta(seconds=10)
"""Shorter than an application needs it, so that one can watch "last access" move on."""


def create_app(settings: Settings) -> Starlette:
    """Return the shop as one node runs it. ``CANISTER_LISTEN``, ``_SEEDS`` and ``_SECRET_KEYS`` are set."""
    canister = Canister(settings.data, session_timeout=SESSION_TIMEOUT, touch_interval=TOUCH_INTERVAL)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncGenerator[None]:
        with canister:
            yield

    sessions = Middleware(
        SessionMiddleware,
        canister=canister,
        # Cookies without TLS: right for a demo on this machine and for nothing else.
        cookie=CookieSettings(plain_http=True),
        # Where a session is behind what the browser has seen, the shop goes on with what is here: the
        # cart is merged article by article. Where it is not here at all, `home` says so.
        when_behind="serve",
    )
    shop = [
        Route("/", home),
        Route("/sessions", count_sessions),
        Route("/login", log_in, methods=["POST"]),
        Route("/logout", log_out, methods=["POST"]),
        Route("/cart/add", add, methods=["POST"]),
        Route("/cart/remove", remove, methods=["POST"]),
    ]
    app = Starlette(
        routes=[
            # These need no session, so they work where no session can be told.
            Route("/where", where),
            Route("/card", card),
            Route("/cut", cut, methods=["POST"]),
            Route("/heal", heal, methods=["POST"]),
            Mount("/static", StaticFiles(directory=Path(__file__).with_name("static"))),
            Mount("/", routes=shop, middleware=[Middleware(ExplainRefusal), sessions]),
        ],
        middleware=[
            Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"]),
            Middleware(BrowserRules),
        ],
        lifespan=lifespan,
    )
    app.state.canister = canister
    app.state.settings = settings
    return app


# The shop. The session's cookie is SameSite=Lax: other sites' forms come without it, so the demo needs no
# CSRF tokens.


def home(request: Request) -> HTMLResponse:
    session = request.session
    if session.cannot_tell and not session.is_behind:
        raise CannotTellError("this node cannot tell who you are")
    page = pages.home(place_of(request), visit_of(request), status_of(request), sessions_of(request))
    return HTMLResponse(page)


async def log_in(request: Request) -> Response:
    name = (await form_field(request, "name")).strip()[:40]
    if name:
        # A new id at every change of privilege: whoever knew the old one is not logged in with it.
        request.session.regenerate()
        request.session["name"] = name
    return back_home()


async def log_out(request: Request) -> Response:
    request.session.destroy()
    return back_home()


# Each article has a key of its own. Sessions merge key by key, so two tabs, or the two sides of a split,
# may add different articles at the same time and the cart has them all. With the whole cart under one key,
# the later of the two carts would replace the other.


async def add(request: Request) -> Response:
    sku = await form_field(request, "sku")
    if sku not in ARTICLES:
        return PlainTextResponse("There is no such article.\n", 404)
    request.session[f"cart:{sku}"] = request.session.get(f"cart:{sku}", 0) + 1
    return back_home()


async def remove(request: Request) -> Response:
    request.session.pop(f"cart:{await form_field(request, 'sku')}", None)
    return back_home()


def visit_of(request: Request) -> Visit:
    session, canister = request.session, request.app.state.canister
    info = canister.session_info(session.handle) if session.handle else None
    return Visit(
        handle=session.handle,
        name=session.get("name"),
        cart={key.removeprefix("cart:"): n for key, n in session.items() if key.startswith("cart:")},
        info=info,
        ends=end_of(canister, info.created, info.accessed) if info else None,
    )


def end_of(canister: Canister, created: datetime, accessed: datetime) -> datetime:
    """Return when a session ends if it is not used any more, by the settings it was made with."""
    return min(accessed + SESSION_TIMEOUT + TOUCH_INTERVAL, created + canister.config.absolute_lifetime)


async def form_field(request: Request, name: str) -> str:
    async with request.form() as form:
        value = form.get(name)
    return value if isinstance(value, str) else ""


def back_home() -> RedirectResponse:
    """Return a redirect, so that reloading the page does not post the form again."""
    return RedirectResponse("/", 303)


# The node.


def place_of(request: Request) -> Place:
    return Place(request.app.state.settings, str(request.url))


def status_of(request: Request) -> AgentStatus | None:
    """Return what the node's agent knows; None in the moment that another process takes over as agent."""
    node = request.app.state.canister.node
    try:
        return node.status(node.clock.now())
    except AgentError:
        return None


def sessions_of(request: Request) -> int:
    return request.app.state.canister.num_local_sessions()


def where(request: Request) -> JSONResponse:
    """Say who answers, for programs."""
    status = status_of(request)
    if status is None:
        return JSONResponse({"error": "the agent does not answer"}, 503)
    number_of = request.app.state.settings.number_of
    return JSONResponse(
        {
            "node": request.app.state.settings.node,
            "pid": status.pid,
            "isolated": status.isolated,
            "digest": status.digest,
            "sessions": sessions_of(request),
            "members": [
                {"node": number_of(m.address), "state": m.state, "lag": m.lag} for m in status.members
            ],
        }
    )


def card(request: Request) -> HTMLResponse:
    return HTMLResponse(pages.card(request.app.state.settings, status_of(request), sessions_of(request)))


def count_sessions(request: Request) -> HTMLResponse:
    settings, status = request.app.state.settings, status_of(request)
    page = pages.plain(
        place_of(request),
        f"Sessions on node {settings.node}",
        f"This node holds {sessions_of(request)} live sessions, as every node does when all are linked.",
        "More than the number is not for visitors; from a terminal, `canister sessions` lists them.",
        is_cut=status is not None and status.isolated,
    )
    return HTMLResponse(page)


async def cut(request: Request) -> Response:
    return await isolate(request, on=True)


async def heal(request: Request) -> Response:
    return await isolate(request, on=False)


async def isolate(request: Request, *, on: bool) -> Response:
    await run_in_threadpool(request.app.state.canister.node.isolate, on=on)
    return back_home()


def refusal(request: Request) -> HTMLResponse:
    """Return what a browser gets in place of the session middleware's 503."""
    settings, status = request.app.state.settings, status_of(request)
    is_cut = status is not None and status.isolated
    page = pages.plain(
        place_of(request),
        f"Node {settings.node} cannot tell who you are",
        "Your session is not here, but it may exist on a node that cannot be reached now: you may have "
        "logged in on the other side of a split. Nothing was changed, and your cookie was left as it is, so "
        "over there you are still logged in.",
        "Go on at another node, or heal the split and load this page again.",
        is_cut=is_cut,
        extra=pages.cut_or_heal(is_cut=True) if is_cut else "",
    )
    return HTMLResponse(page, 503, {"Retry-After": "2"})


class ExplainRefusal:
    """Puts a page in place of the session middleware's 503."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refused = False

        async def pass_on(message: Message) -> None:
            nonlocal refused
            refused = refused or (message["type"] == "http.response.start" and message["status"] == 503)
            if not refused:
                await send(message)

        await self.app(scope, receive, pass_on)
        if refused:
            response = await run_in_threadpool(refusal, Request(scope))
            await response(scope, receive, send)


class BrowserRules:
    """Tells browsers to load nothing from elsewhere, and refuses forms that other sites send.

    SameSite does not help where no session is needed: without this, and the check of the host name in
    front of it, any page open in the browser could cut a node off.
    """

    RULES = (
        "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def add_rules(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["Content-Security-Policy"] = self.RULES
            await send(message)

        if scope["type"] == "http" and scope["method"] == "POST":
            request = Request(scope)
            if request.headers.get("Origin", own := f"http://{request.url.netloc}") != own:
                await PlainTextResponse("This form came from another site.\n", 403)(scope, receive, send)
                return
        await self.app(scope, receive, add_rules)
