"""The examples for Flask and Quart, with the frameworks' test clients."""

import asyncio
from contextlib import closing
from pathlib import Path

from tests.examples.shopping import Visitor, go_shopping

from canister import Canister
from examples import flask_shop, quart_visits


def test_the_flask_shop(tmp_path: Path) -> None:
    app = flask_shop.make_app(tmp_path / "data", CANISTER_INSECURE_COOKIES=True)
    with closing(app.extensions["canister"].canister):
        go_shopping(app.test_client(), app.test_client())
        visitor = Visitor(app.test_client())
        visitor.send("/log-in", name="ann")
        assert "Hello, ann." in visitor.page


def test_the_quart_counter(tmp_path: Path) -> None:
    async def visit_twice(canister: Canister) -> object:
        client = quart_visits.make_app(canister).test_client()
        assert "; Max-Age=" in (await client.get("/")).headers["Set-Cookie"]
        return await (await client.get("/")).get_json()

    with Canister(tmp_path / "data") as canister:
        assert asyncio.run(visit_twice(canister)) == {"visits": 2}
