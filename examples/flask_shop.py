"""A shopping cart on Flask with Flask-Login: ``python examples/flask_shop.py``, then http://127.0.0.1:5000/.

Serves plain http for the sake of the example; leave out ``CANISTER_INSECURE_COOKIES`` behind TLS.
"""

from pathlib import Path
from tempfile import gettempdir
from typing import Any

from flask import Flask, flash, get_flashed_messages, jsonify, session
from flask_login import LoginManager, UserMixin, current_user, login_required, login_user, logout_user

from canister import Canister
from canister.integrations.flask import CanisterSessions


class User(UserMixin):
    def __init__(self, name: str) -> None:
        self.id = name


def make_app(canister: Canister) -> Flask:
    app = Flask(__name__)
    app.config["CANISTER_INSECURE_COOKIES"] = True
    sessions = CanisterSessions(app, canister=canister)
    LoginManager(app).user_loader(User)

    @app.get("/")
    def show() -> Any:
        cart = {key.removeprefix("cart:"): n for key, n in session.items() if key.startswith("cart:")}
        return jsonify(user=current_user.get_id(), cart=cart, messages=get_flashed_messages())

    @app.post("/cart/<article>")
    def add(article: str) -> str:
        # A key for each article: what two tabs add at once is all kept.
        session[f"cart:{article}"] = session.get(f"cart:{article}", 0) + 1
        return "ok\n"

    @app.post("/log-in/<name>")
    def log_in(name: str) -> str:
        login_user(User(name))  # the session goes on under a new id, the cart with it
        flash(f"Hello, {name}")
        return "ok\n"

    @app.post("/log-out")
    def log_out() -> str:
        logout_user()  # and the session is over, on every node
        return "ok\n"

    @app.get("/devices")
    @login_required
    def devices() -> Any:
        return jsonify([one.last_seen for one in sessions.manager.users.sessions(current_user.get_id())])

    return app


if __name__ == "__main__":
    with Canister(Path(gettempdir()) / "canister-flask") as canister:
        make_app(canister).run()
