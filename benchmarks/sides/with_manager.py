"""Canister's session manager without a framework: what a request's load and commit cost."""

import json
import sys
from typing import Any

from serving import VALUE, serve, timed

from canister import Canister
from canister.sessions import SessionManager


class Side:
    """One session, loaded anew at each call; one in ten is changed, as a request would."""

    def __init__(self, job: dict[str, Any]) -> None:
        self._manager = SessionManager(Canister(job["path"]), secret_keys="0123456789abcdef" * 2)
        session = self._manager.load([])
        session["user"] = VALUE
        outcome = self._manager.commit(session)
        self._cookie = (outcome.set_cookie or "").partition("=")[2].partition(";")[0]

    def requests(self, count: int) -> dict[str, float]:
        return timed(self._request, count)

    def _request(self, number: int) -> None:
        session = self._manager.load([self._cookie])
        if session.get("user") != VALUE:
            raise RuntimeError("the session was not found")
        if not number % 10:
            session["user"] = VALUE
        self._manager.commit(session)


if __name__ == "__main__":
    serve(Side(json.loads(sys.argv[1])))
