"""A Flask application for the tests on real servers: the routes that every framework's has."""

import os
from typing import Any

from flask import Flask, jsonify, session

from canister.integrations.flask import CanisterSessions

app = Flask(__name__)
app.config["CANISTER_PATH"] = os.environ["CANISTER_PATH"]
app.config["CANISTER_INSECURE_COOKIES"] = True
CanisterSessions(app)


@app.get("/plain")
def plain() -> str:
    return "plain"


@app.get("/show")
def show() -> Any:
    current: Any = session
    return jsonify(user=current.user, data=dict(session), handle=current.handle)


@app.post("/put/<key>/<value>")
def put(key: str, value: str) -> str:
    session[key] = value
    return "ok"


@app.post("/login/<user>")
def login(user: str) -> str:
    current: Any = session
    current.login(user)
    return "ok"


@app.post("/logout")
def logout() -> str:
    current: Any = session
    current.logout()
    return "ok"


@app.post("/clear")
def clear() -> str:
    session.clear()
    return "ok"


@app.get("/pid")
def pid() -> str:
    return str(os.getpid())
