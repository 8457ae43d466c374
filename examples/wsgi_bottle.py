"""A shopping cart on Bottle: ``python examples/wsgi_bottle.py``, then http://127.0.0.1:8000/.

Serves plain http for the sake of the example; leave out ``plain_http=True`` behind TLS.
"""

from pathlib import Path
from tempfile import gettempdir
from typing import Any

import bottle

from canister import Canister
from canister.integrations.wsgi import SessionMiddleware, session_of
from canister.sessions import CookieSettings


def make_app(canister: Canister) -> SessionMiddleware:
    app = bottle.Bottle()

    @app.get("/")
    def show() -> dict[str, Any]:
        session = session_of(bottle.request.environ)
        return {"user": session.user, "cart": {name: count for (_, name), count in session.items()}}

    @app.post("/cart/<name>")
    def add(name: str) -> dict[str, int]:
        # A key for each article: what two tabs add at once is all kept.
        session = session_of(bottle.request.environ)
        session["cart", name] = session.get(("cart", name), 0) + 1
        return {name: session["cart", name]}

    @app.post("/log-in/<user>")
    def log_in(user: str) -> dict[str, str]:
        session_of(bottle.request.environ).login(user)  # a new id; the cart goes along
        return {"user": user}

    @app.post("/log-out")
    def log_out() -> dict[str, str]:
        session_of(bottle.request.environ).logout()
        return {}

    return SessionMiddleware(app, canister=canister, cookie=CookieSettings(plain_http=True))


if __name__ == "__main__":
    with Canister(Path(gettempdir()) / "canister-bottle") as canister:
        bottle.run(make_app(canister), host="127.0.0.1", port=8000)
