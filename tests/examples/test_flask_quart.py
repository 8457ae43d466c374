"""The examples for Flask and Quart, with the frameworks' test clients."""

import asyncio
from pathlib import Path

from canister import Canister
from examples import flask_shop, quart_visits


def test_the_flask_shop(tmp_path: Path) -> None:
    with Canister(tmp_path / "data") as canister:
        app = flask_shop.make_app(canister)
        client, phone = app.test_client(), app.test_client()
        client.post("/cart/tea")
        client.post("/cart/tea")
        client.post("/log-in/ann")
        phone.post("/log-in/ann")
        assert client.get("/").json == {"user": "ann", "cart": {"tea": 2}, "messages": ["Hello, ann"]}
        assert len(client.get("/devices").json) == 2
        client.post("/log-out")
        assert client.get("/").json == {"user": None, "cart": {}, "messages": []}
        assert client.get("/devices").status_code == 401
        assert len(phone.get("/devices").json) == 1


def test_the_quart_counter(tmp_path: Path) -> None:
    async def visit_twice(canister: Canister) -> object:
        client = quart_visits.make_app(canister).test_client()
        assert "; Max-Age=" in (await client.get("/")).headers["Set-Cookie"]
        return await (await client.get("/")).get_json()

    with Canister(tmp_path / "data") as canister:
        assert asyncio.run(visit_twice(canister)) == {"visits": 2}
