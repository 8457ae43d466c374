"""A shopping cart on FastAPI: ``python examples/asgi_fastapi.py``, then http://127.0.0.1:8000/docs.

Serves plain http for the sake of the example; leave out ``plain_http=True`` behind TLS.
"""

from pathlib import Path
from tempfile import gettempdir
from typing import Annotated, Any

import uvicorn
from fastapi import Depends, FastAPI, HTTPException, Request

from canister import Canister
from canister.integrations.asgi import SessionMiddleware
from canister.sessions import CookieSettings, Session


def get_session(request: Request) -> Session:
    return request.scope["session"]


SessionOfRequest = Annotated[Session, Depends(get_session)]


def make_app(canister: Canister) -> FastAPI:
    app = FastAPI()
    app.add_middleware(SessionMiddleware, canister=canister, cookie=CookieSettings(plain_http=True))

    @app.get("/cart")
    def show(session: SessionOfRequest) -> dict[str, int]:  # runs in a thread
        return {name: count for (_, name), count in session.items()}

    @app.post("/cart/{name}")
    async def add(name: str, session: SessionOfRequest) -> dict[str, Any]:
        # A key for each article: what two tabs add at once is all kept.
        session["cart", name] = session.get(("cart", name), 0) + 1
        return {name: session["cart", name]}

    @app.delete("/cart/{name}")
    def remove(name: str, session: SessionOfRequest) -> dict[str, Any]:
        if session.pop(("cart", name), None) is None:
            raise HTTPException(404, f"there is no {name} in the cart")
        return {}

    return app


if __name__ == "__main__":
    with Canister(Path(gettempdir()) / "canister-fastapi") as canister:
        uvicorn.run(make_app(canister), host="127.0.0.1", port=8000)
