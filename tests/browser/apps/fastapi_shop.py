"""The shop on FastAPI, as a server of a site with TLS runs it."""

import os

from examples.asgi_fastapi import make_app

from canister import Canister

app = make_app(Canister(os.environ["CANISTER_PATH"]))
