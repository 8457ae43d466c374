"""A small shop on FastAPI: ``python examples/asgi_fastapi.py``, then http://localhost:8000/.

Needs jinja2, python-multipart and uvicorn; the pages are in ``templates/``. Serves plain http for the sake
of the example; leave out ``plain_http=True`` behind TLS.
"""

from pathlib import Path
from tempfile import gettempdir
from typing import Annotated, Any

import uvicorn
from fastapi import APIRouter, Depends, FastAPI, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.templating import Jinja2Templates

from canister import Canister
from canister.integrations.asgi import SessionMiddleware
from canister.integrations.fastapi import (
    CsrfProtected,
    CsrfToken,
    CurrentManager,
    CurrentSession,
    CurrentUser,
)
from canister.sessions import CookieSettings

ARTICLES = ["Green tea", "Rye bread", "Heather honey", "Mountain cheese"]

pages = Jinja2Templates(Path(__file__).with_name("templates"))
shop = APIRouter(dependencies=[CsrfProtected], default_response_class=HTMLResponse)

Field = Annotated[str, Form()]


def for_every_page(session: CurrentSession, csrf_token: CsrfToken) -> dict[str, Any]:
    return {
        "framework": "FastAPI",
        "user": session.user,
        "csrf_field": "csrf_token",
        "csrf_token": csrf_token,
    }


ForEveryPage = Annotated[dict[str, Any], Depends(for_every_page)]


@shop.get("/")
def home(request: Request, session: CurrentSession, context: ForEveryPage) -> Any:  # runs in a thread
    cart = [(article, n) for (_, article), n in session.items()]
    context |= {"articles": ARTICLES, "cart": sorted(cart)}
    return pages.TemplateResponse(request, "shop.html", context)


@shop.post("/add")
async def add(session: CurrentSession, article: Field) -> Any:  # runs in the event loop
    if article in ARTICLES:
        # A key for each article: what two tabs add at once is all kept.
        session["cart", article] = session.get(("cart", article), 0) + 1
    return RedirectResponse("/", 303)


@shop.post("/remove")
async def remove(session: CurrentSession, article: Field) -> Any:
    session.pop(("cart", article), None)
    return RedirectResponse("/", 303)


@shop.post("/log-in")
async def log_in(request: Request, session: CurrentSession, name: Field) -> Any:
    # A real shop asks for a password, too. The session goes on under a new id, the cart with it.
    session.login(name, agent=request.headers.get("user-agent", "")[:200])
    return RedirectResponse("/", 303)


@shop.post("/log-out")
async def log_out(session: CurrentSession) -> Any:
    session.logout()  # it is over, on every node
    return RedirectResponse("/", 303)


@shop.get("/devices")
def devices(
    request: Request,
    user: CurrentUser,
    session: CurrentSession,
    manager: CurrentManager,
    context: ForEveryPage,
) -> Any:
    found = manager.users.sessions(user)
    listed = [(one.handle, one.identity.agent, f"{one.last_seen:%d %B, %H:%M} UTC") for one in found]
    context |= {"devices": listed, "own": session.handle}
    return pages.TemplateResponse(request, "devices.html", context)


@shop.post("/devices/end")
def end_device(user: CurrentUser, manager: CurrentManager, handle: Field) -> Any:
    manager.users.end(user, handle)
    return RedirectResponse("/devices", 303)


def go_home(request: Request, error: Exception) -> RedirectResponse:
    """Answer who is not logged in, and a page from before a log-in or a log-out, whose token is void."""
    return RedirectResponse("/", 303)


def make_app(canister: Canister, **options: Any) -> FastAPI:
    app = FastAPI(exception_handlers={401: go_home, 403: go_home})
    app.add_middleware(SessionMiddleware, canister=canister, **options)
    app.include_router(shop)
    return app


if __name__ == "__main__":
    with Canister(Path(gettempdir()) / "canister-fastapi") as canister:
        app = make_app(canister, cookie=CookieSettings(plain_http=True))
        uvicorn.run(app, host="localhost", port=8000)
