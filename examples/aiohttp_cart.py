"""A cart on aiohttp: ``python examples/aiohttp_cart.py``, then http://127.0.0.1:8000/.

Serves plain http for the sake of the example; leave out ``plain_http=True`` behind TLS.
"""

from pathlib import Path
from tempfile import gettempdir

from aiohttp import web
from aiohttp_session import get_session

from canister import Canister
from canister.integrations.aiohttp import session_of, setup
from canister.sessions import CookieSettings

routes = web.RouteTableDef()


@routes.get("/")
async def show(request: web.Request) -> web.Response:
    session = await session_of(request)
    cart = {key[1]: count for key, count in session.items() if key[0] == "cart"}
    return web.json_response({"user": session.user, "cart": cart})


@routes.post("/cart/{name}")
async def add(request: web.Request) -> web.Response:
    # A key for each article: what two tabs add at once is all kept.
    article = ("cart", request.match_info["name"])
    (await session_of(request)).update_key(article, lambda count: count + 1, default=0)
    raise web.HTTPSeeOther("/")


@routes.post("/log-in/{user}")
async def log_in(request: web.Request) -> web.Response:
    (await session_of(request)).login(request.match_info["user"])  # check a password first
    raise web.HTTPSeeOther("/")


@routes.post("/log-out")
async def log_out(request: web.Request) -> web.Response:
    (await get_session(request)).invalidate()
    raise web.HTTPSeeOther("/")


@routes.get("/talk")
async def talk(request: web.Request) -> web.WebSocketResponse:
    user = (await session_of(request)).user
    socket = web.WebSocketResponse()
    await socket.prepare(request)  # commits; from here on the socket ends with the session
    async for message in socket:
        await socket.send_str(f"{user}: {message.data}")
    return socket


def make_app(canister: Canister) -> web.Application:
    app = web.Application()
    app.add_routes(routes)
    setup(app, canister, cookie=CookieSettings(plain_http=True))
    return app


if __name__ == "__main__":
    with Canister(Path(gettempdir()) / "canister-aiohttp") as canister:
        web.run_app(make_app(canister), host="127.0.0.1", port=8000)
