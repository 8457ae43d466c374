"""A Quart application for the tests on real servers: the routes that every framework's has."""

import os
from typing import Any

from quart import Quart, jsonify, session

from canister.integrations.quart import CanisterSessions

app = Quart(__name__)
app.config["CANISTER_PATH"] = os.environ["CANISTER_PATH"]
app.config["CANISTER_INSECURE_COOKIES"] = True
CanisterSessions(app)


@app.get("/plain")
async def plain() -> str:
    return "plain"


@app.get("/show")
async def show() -> Any:
    current: Any = session
    return jsonify(user=current.user, data=dict(session), handle=current.handle)


@app.post("/put/<key>/<value>")
async def put(key: str, value: str) -> str:
    session[key] = value
    return "ok"


@app.post("/login/<user>")
async def login(user: str) -> str:
    current: Any = session
    current.login(user)
    return "ok"


@app.post("/logout")
async def logout() -> str:
    current: Any = session
    current.logout()
    return "ok"


@app.post("/clear")
async def clear() -> str:
    session.clear()
    return "ok"


@app.get("/pid")
async def pid() -> str:
    return str(os.getpid())
