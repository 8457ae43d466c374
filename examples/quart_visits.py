"""A visit counter on Quart: ``python examples/quart_visits.py``, then http://127.0.0.1:5000/.

Serves plain http for the sake of the example; leave out ``CANISTER_INSECURE_COOKIES`` behind TLS.
"""

from pathlib import Path
from tempfile import gettempdir
from typing import Any

from quart import Quart, jsonify, session

from canister import Canister
from canister.integrations.quart import CanisterSessions


def make_app(canister: Canister) -> Quart:
    app = Quart(__name__)
    app.config["CANISTER_INSECURE_COOKIES"] = True
    CanisterSessions(app, canister=canister)

    @app.get("/")
    async def visit() -> Any:
        session.permanent = True  # outlives the browser, for PERMANENT_SESSION_LIFETIME
        session["visits"] = session.get("visits", 0) + 1
        return jsonify(visits=session["visits"])

    return app


if __name__ == "__main__":
    with Canister(Path(gettempdir()) / "canister-quart") as canister:
        make_app(canister).run()
