"""A uvicorn process of streams, run by `test_streams.py`: its argument is a JSON job."""

import asyncio
import json
import logging
import sys
from collections.abc import AsyncIterator
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from canister import Canister
from canister.integrations.asgi import SessionMiddleware, hold_session, session_of
from canister.sessions import CookieSettings

logger = logging.getLogger("streams")
go_on = asyncio.Event()


async def log_in(request: Request) -> Response:
    session_of(request).login("ann")
    return PlainTextResponse(str(session_of(request).handle))


async def show(request: Request) -> Response:
    return PlainTextResponse(f"{session_of(request).user} {session_of(request).handle}")


async def events(note: str, pause: float = 3600.0) -> AsyncIterator[str]:
    logger.info("%s begins", note)
    try:
        while True:
            yield "data: x\n\n"
            await asyncio.sleep(pause)
    finally:
        logger.info("%s ends", note)


async def stream(request: Request) -> Response:
    """Server-sent events, held as the query says."""
    how = request.query_params.get("how", "")
    if "log-in" in how:
        session_of(request).login("ann")
    if "unheld" not in how:
        hold_session(request, keep_alive="keep" in how)
    if "log-in-last" in how:
        session_of(request).login("ann")
    headers = {"Content-Length": "1000"} if "length" in how else {}
    body = events(f"stream {how}", 0.05 if "busy" in how else 3600.0)
    return StreamingResponse(body, media_type="text/event-stream", headers=headers)


async def late(request: Request) -> Response:
    """Held from within the body, which runs in a task of its own."""

    async def body() -> AsyncIterator[str]:
        hold_session(request)
        async for event in events("late"):
            yield event

    return StreamingResponse(body(), media_type="text/event-stream")


async def background(request: Request) -> Response:
    """Work that goes on when the response is whole."""
    hold_session(request)

    async def work() -> None:
        logger.info("background begins")
        await go_on.wait()
        logger.info("background is done")

    return PlainTextResponse("ok", background=BackgroundTask(work))


async def let_go_on(request: Request) -> Response:
    go_on.set()
    return PlainTextResponse("ok")


async def talk(websocket: WebSocket) -> None:
    if "keep" in websocket.query_params:
        hold_session(websocket, keep_alive=True)
    await websocket.accept()
    try:
        while True:
            await websocket.send_text(await websocket.receive_text())
    except WebSocketDisconnect:
        logger.info("talk: the client went")
        await linger(websocket)


async def leave(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.close(3000)
    await linger(websocket)


async def linger(websocket: WebSocket) -> None:
    if "linger" in websocket.query_params:
        await go_on.wait()
    logger.info("lingered to the end")


def main(job: dict[str, Any]) -> None:
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(name)s %(message)s")
    with Canister(job["path"], **job["settings"]) as canister:
        app = Starlette(
            routes=[
                Route("/log-in", log_in, methods=["POST"]),
                Route("/", show),
                Route("/stream", stream),
                Route("/late", late),
                Route("/background", background),
                Route("/go-on", let_go_on, methods=["POST"]),
                WebSocketRoute("/talk", talk),
                WebSocketRoute("/leave", leave),
            ],
            middleware=[
                Middleware(SessionMiddleware, canister=canister, cookie=CookieSettings(plain_http=True))
            ],
        )
        uvicorn.run(app, host="127.0.0.1", port=job["port"], log_config=None, ws="wsproto")


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
