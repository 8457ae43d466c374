"""A cart on Litestar: ``python examples/litestar_shop.py``, then http://127.0.0.1:8000/schema.

Sessions, the rate limiter and the response cache all lie in the canister. Serves plain http for the sake of
the example; leave out ``plain_http=True`` behind TLS.
"""

from pathlib import Path
from tempfile import gettempdir
from typing import Any

import uvicorn
from litestar import Litestar, Request, get, post
from litestar.exceptions import NotAuthorizedException
from litestar.middleware.rate_limit import RateLimitConfig
from litestar.stores.registry import StoreRegistry

from canister import Canister
from canister.integrations.litestar import CanisterSessionConfig, CanisterStore, session_of
from canister.sessions import CookieSettings


@post("/cart/{name:str}", status_code=200)
async def add(request: Request[Any, Any, Any]) -> dict[str, int]:
    # A key for each article: what two tabs add at once is all kept.
    article = ("cart", request.path_params["name"])
    session_of(request).update_key(article, lambda count: count + 1, default=0)
    return cart_of(request)


@post("/log-in/{user:str}")
async def log_in(request: Request[Any, Any, Any]) -> None:
    session_of(request).login(request.path_params["user"])  # check a password first


@post("/log-out")
async def log_out(request: Request[Any, Any, Any]) -> None:
    request.clear_session()


@get("/me")
async def me(request: Request[Any, Any, Any]) -> dict[str, Any]:
    user = session_of(request).user
    if user is None:
        raise NotAuthorizedException
    return {"user": user, "cart": cart_of(request)}


@get("/news", cache=60)
async def news() -> str:
    return "Green tea is back."


def cart_of(request: Request[Any, Any, Any]) -> dict[str, int]:
    return {key[1]: count for key, count in session_of(request).items() if key[0] == "cart"}


def make_app(canister: Canister) -> Litestar:
    sessions = CanisterSessionConfig(canister, cookie=CookieSettings(plain_http=True))
    limit = RateLimitConfig(rate_limit=("minute", 600))
    return Litestar(
        [add, log_in, log_out, me, news],
        middleware=[sessions.middleware, limit.middleware],
        stores=StoreRegistry(default_factory=CanisterStore(canister).with_namespace),
    )


if __name__ == "__main__":
    with Canister(Path(gettempdir()) / "canister-litestar") as canister:
        uvicorn.run(make_app(canister), host="127.0.0.1", port=8000)
