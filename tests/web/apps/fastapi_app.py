"""FastAPI, with handlers that run in threads."""

import os
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse

from canister import Canister
from canister.integrations.asgi import SessionMiddleware, session_of
from canister.sessions import CookieSettings, Session


def get_session(request: Request) -> Session:
    return session_of(request)


SessionOfRequest = Annotated[Session, Depends(get_session)]

app = FastAPI(default_response_class=PlainTextResponse)
app.add_middleware(
    SessionMiddleware,
    canister=Canister(os.environ["CANISTER_PATH"]),
    cookie=CookieSettings(plain_http=True),
)


@app.get("/plain")
def plain() -> str:
    return "plain"


@app.get("/pid")
def pid() -> str:
    return str(os.getpid())


@app.get("/show", response_class=JSONResponse)
def show(session: SessionOfRequest) -> Any:
    return {"user": session.user, "data": dict(session), "handle": session.handle}


@app.post("/put/{key}/{value}")
def put(key: str, value: str, session: SessionOfRequest) -> str:
    session[key] = value
    return "ok"


@app.post("/login/{user}")
def login(user: str, session: SessionOfRequest) -> str:
    session.login(user)
    return "ok"


@app.post("/logout")
def logout(session: SessionOfRequest) -> str:
    session.logout()
    return "ok"


@app.post("/clear")
def clear(session: SessionOfRequest) -> str:
    session.clear()
    return "ok"
