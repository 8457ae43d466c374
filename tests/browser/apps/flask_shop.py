"""The shop on Flask, as a server of a site with TLS runs it."""

import os
from pathlib import Path

from examples.flask_shop import make_app

app = make_app(Path(os.environ["CANISTER_PATH"]))
