import importlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from canister import Canister

with warnings.catch_warnings():
    # WebOb 1.8 imports the standard library's cgi, or, where that is gone, a package in its place.
    warnings.simplefilter("ignore", DeprecationWarning)
    from webtest import TestApp as Client  # pytest would collect it by its own name

    wsgi_bottle = importlib.import_module("examples.wsgi_bottle")
    pyramid_notes = importlib.import_module("examples.pyramid_notes")

pytestmark = pytest.mark.integration


@pytest.fixture
def canister(tmp_path: Path) -> Iterator[Canister]:
    with Canister(tmp_path / "data") as canister:
        yield canister


def client_of(app: Any) -> Client:
    return Client(app, extra_environ={"HTTP_HOST": "127.0.0.1:8000"})


def test_the_cart_on_bottle(canister: Canister) -> None:
    client = client_of(wsgi_bottle.make_app(canister))
    client.post("/cart/tea")
    client.post("/cart/tea")
    client.post("/log-in/ann")
    assert client.get("/").json == {"user": "ann", "cart": {"tea": 2}}
    client.post("/log-out")
    assert client.get("/").json == {"user": None, "cart": {}}


def test_the_notes_on_pyramid(canister: Canister) -> None:
    client = client_of(pyramid_notes.make_app(canister))
    client.post("/notes/milk", status=403)
    client.post("/log-in/ann")
    client.post("/notes/milk")
    client.post("/notes/eggs")
    shown = client.get("/").json
    assert (shown["user"], set(shown["notes"]), shown["messages"]) == ("ann", {"milk", "eggs"}, ["noted"] * 2)
    assert client.get("/").json["messages"] == []
    client.post("/log-out")
    assert client.get("/").json == {"user": None, "notes": [], "messages": []}
