"""A process of a web application whose sessions move, run by `tests.integration.test_migrate_live`.

It answers one request a command, as an adapter would: cookies in, what the session holds and cookies out.
"""

import json
import logging
import signal
import sys
from typing import Any

from tests.integration.worker import Worker

from canister import Canister
from canister.sessions import SessionManager

KEY = "key-0123456789-abcdefghijklmnopqrs"


class WebWorker(Worker):
    """A worker with a session manager."""

    def __init__(self, store: Canister, channels: list[int]) -> None:
        super().__init__(store, channels)
        self._manager = SessionManager(store, secret_keys=KEY, when_behind="refuse", strict=False)

    def do_request(
        self, cookies: dict[str, str], login: str | None = None, put: Any = None, logout: bool = False
    ) -> dict[str, Any]:
        """Serve a request, and show the session as the request found it."""
        header = "; ".join(f"{name}={value}" for name, value in cookies.items())
        session = self._manager.open([header] if header else [])
        shown = {"user": session.user, "data": dict(session), "count": session.count("requests")}
        if login is not None:
            session.login(login)
        if put is not None:
            session[put[0]] = put[1]
            session.increment("requests")
        if logout:
            session.logout()
        return {**shown, "cookies": self._manager.commit(session).cookies}


def main(job: dict[str, Any]) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    logging.basicConfig(
        level=logging.INFO,
        filename=job["log"],
        format="%(asctime)s %(process)d %(levelname)s %(name)s %(message)s",
    )
    logging.captureWarnings(capture=True)
    with Canister(job["place"], **job["settings"]) as store:
        worker = WebWorker(store, job["channels"])
        try:
            worker.serve()
        finally:
            worker.close()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
