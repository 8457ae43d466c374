"""A small shop on Flask: ``python examples/flask_shop.py``, then http://localhost:5000/.

With Flask-Login for the users and Flask-WTF for the forms. The pages are in ``templates/``. Serves plain
http for the sake of the example; leave out ``CANISTER_INSECURE_COOKIES`` behind TLS.
"""

from pathlib import Path
from tempfile import gettempdir
from typing import Any

from flask import Blueprint, Flask, flash, get_flashed_messages, redirect, render_template, request, session
from flask_login import LoginManager, UserMixin, current_user, login_required, login_user, logout_user
from flask_wtf.csrf import CSRFError, CSRFProtect, generate_csrf

from canister.integrations.flask import CanisterSessions

ARTICLES = ["Green tea", "Rye bread", "Heather honey", "Mountain cheese"]

shop = Blueprint("shop", __name__)
sessions = CanisterSessions()


class User(UserMixin):
    def __init__(self, name: str) -> None:
        self.id = name


@shop.get("/")
def home() -> str:
    cart = [(key.removeprefix("cart:"), n) for key, n in session.items() if key.startswith("cart:")]
    return render_template("shop.html", articles=ARTICLES, cart=sorted(cart))


@shop.post("/add")
def add() -> Any:
    article = request.form["article"]
    if article in ARTICLES:
        # A key for each article: what two tabs add at once is all kept.
        session[f"cart:{article}"] = session.get(f"cart:{article}", 0) + 1
    return redirect("/", 303)


@shop.post("/remove")
def remove() -> Any:
    session.pop(f"cart:{request.form['article']}", None)
    return redirect("/", 303)


@shop.post("/log-in")
def log_in() -> Any:
    name = request.form["name"]  # a real shop asks for a password, too
    login_user(User(name))  # the session goes on under a new id, the cart with it
    flash(f"Hello, {name}.")
    return redirect("/", 303)


@shop.post("/log-out")
def log_out() -> Any:
    logout_user()  # and the session is over, on every node
    return redirect("/", 303)


@shop.get("/devices")
@login_required
def devices() -> str:
    found = sessions.manager.users.sessions(current_user.get_id())
    listed = [(one.handle, one.identity.agent, f"{one.last_seen:%d %B, %H:%M} UTC") for one in found]
    return render_template("devices.html", devices=listed, own=session.handle)


@shop.post("/devices/end")
@login_required
def end_device() -> Any:
    sessions.manager.users.end(current_user.get_id(), request.form["handle"])
    return redirect("/devices", 303)


@shop.app_context_processor
def for_every_page() -> dict[str, Any]:
    return {
        "framework": "Flask",
        "user": current_user.get_id(),
        "messages": get_flashed_messages(),
        "csrf_field": "csrf_token",
        "csrf_token": generate_csrf(),
    }


@shop.app_errorhandler(CSRFError)
def refuse(error: CSRFError) -> Any:
    flash("That page was out of date; nothing was changed.")  # from before a log-in or a log-out, say
    return redirect("/", 303)


def make_app(path: Path, **config: Any) -> Flask:
    app = Flask(__name__)
    app.config["CANISTER_PATH"] = path
    app.config["CANISTER_RECORD_CLIENT"] = True  # for the list of devices
    app.config["SECRET_KEY"] = "an example's key, which everybody knows: make your own"
    app.config.update(config)
    sessions.init_app(app)
    CSRFProtect(app)
    users = LoginManager(app)
    users.user_loader(User)
    users.login_view = "shop.home"
    app.register_blueprint(shop)
    return app


if __name__ == "__main__":
    make_app(Path(gettempdir()) / "canister-flask", CANISTER_INSECURE_COOKIES=True).run("localhost")
