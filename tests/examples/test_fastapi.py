"""The shop on FastAPI, with its test client."""

import warnings
from pathlib import Path

from starlette.exceptions import StarletteDeprecationWarning
from tests.examples.shopping import go_shopping

from canister import Canister
from canister.sessions import CookieSettings
from examples import asgi_fastapi

with warnings.catch_warnings():
    warnings.simplefilter("ignore", StarletteDeprecationWarning)
    from starlette.testclient import TestClient


def test_the_shop(tmp_path: Path) -> None:
    with Canister(tmp_path / "data") as canister:
        app = asgi_fastapi.make_app(canister, cookie=CookieSettings(plain_http=True))
        laptop, phone = (TestClient(app, base_url="http://localhost:8000") for _ in range(2))
        go_shopping(laptop, phone)
