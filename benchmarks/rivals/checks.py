"""The checks: each tries an attack or a race over HTTP, and tells whether the sessions withstood it.

An application answers ``GET /show`` with its session's keys as JSON, ``POST /put/<key>/<value>``, ``POST
/login/<user>`` (which sets the key ``user`` and renews the id as its documentation has it), ``POST
/logout``, and the slow ``GET /slow/read`` and ``POST /slow/put/<key>/<value>``, which use the session and
then wait at the gate.
"""

import http.client
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.rivals.serving import PATIENCE, Gate

Plant = Callable[[str, bytes], None]
"""Puts bytes where the session of a cookie's value is stored."""


class Subject(NamedTuple):
    """An application to be checked.

    Attributes:
        port: where it is served.
        gate: where its slow routes wait.
        cookie: the name of its cookie.
        plant: how to write into its store; None if there is no store.
        directory: an empty directory.
    """

    port: int
    gate: Gate
    cookie: str
    plant: Plant | None
    directory: Path


class Visitor:
    """Somebody with a cookie jar, who sends cookies whatever their attributes."""

    def __init__(self, subject: Subject, jar: dict[str, str] | None = None) -> None:
        self.subject = subject
        self.jar = dict(jar or {})

    @property
    def token(self) -> str:
        """The session cookie's value."""
        return self.jar.get(self.subject.cookie, "")

    def send(self, method: str, path: str) -> str:
        """Send a request, keep its cookies, return the body; an error's is empty."""
        connection = http.client.HTTPConnection("127.0.0.1", self.subject.port, timeout=PATIENCE)
        try:
            cookies = "; ".join(f"{name}={value}" for name, value in self.jar.items())
            connection.request(method, path, headers={"Cookie": cookies} if cookies else {})
            response = connection.getresponse()
            body = response.read().decode()
            for header in response.headers.get_all("Set-Cookie", []):
                name, _, value = header.partition(";")[0].partition("=")
                self.jar[name] = value
                lowered = header.lower()
                if not value or "max-age=0" in lowered or "1970" in lowered:
                    del self.jar[name]
            return body if response.status == 200 else ""
        finally:
            connection.close()

    def post(self, path: str) -> None:
        """Post, and see to it that it was done."""
        assert self.send("POST", path) == "ok", path

    def show(self) -> dict[str, Any]:
        """Return the session's keys; those of an error are none."""
        keys: dict[str, Any] = json.loads(self.send("GET", "/show") or "{}")
        return keys


def refuses_chosen_ids(subject: Subject) -> bool:
    """An id that the client made up never becomes a session's."""
    for chosen in ("made-up-by-the-attacker", "a" * 32, "0" * 64, "b" * 43):
        jar = {subject.cookie: chosen}
        Visitor(subject, jar).send("POST", "/put/secret/1")
        if Visitor(subject, jar).show():
            return False
    return True


def ends_the_old_id(subject: Subject) -> bool:
    """Whoever knew the id of before a log-in has nothing with it."""
    attacker = Visitor(subject)
    attacker.post("/put/a/1")
    victim = Visitor(subject, attacker.jar)
    victim.post("/login/victim")
    assert victim.show()["user"] == "victim"
    return "user" not in attacker.show()


def ends_the_old_id_again(subject: Subject) -> bool:
    """Who logs in again, as before something sensitive, leaves no older id behind that is logged in."""
    visitor = Visitor(subject)
    visitor.post("/login/ann")
    before = dict(visitor.jar)
    visitor.post("/login/ann")
    assert visitor.show()["user"] == "ann"
    return "user" not in Visitor(subject, before).show()


def stays_logged_out(subject: Subject) -> bool:
    """A request that only reads, and ends after the log-out, does not bring the session back."""
    visitor = Visitor(subject)
    visitor.post("/login/ann")
    old = dict(visitor.jar)
    with subject.gate.held(lambda: Visitor(subject, old).send("GET", "/slow/read")):
        visitor.post("/logout")
    return "user" not in Visitor(subject, old).show()


def keeps_both_writes(subject: Subject) -> bool:
    """Of two requests that write different keys at once, neither is lost."""
    visitor = Visitor(subject)
    visitor.post("/put/first/1")
    # Two tabs have one jar: what the slow response sets comes last.
    slow = Visitor(subject, visitor.jar)
    with subject.gate.held(lambda: slow.send("POST", "/slow/put/a/1")):
        visitor.post("/put/b/1")
    return Visitor(subject, visitor.jar | slow.jar).show().keys() >= {"a", "b"}


class _Mark:
    def __init__(self, file: Path) -> None:
        self._file = file

    def __reduce__(self) -> Any:
        return Path.touch, (self._file,)


def runs_no_pickle(subject: Subject) -> bool | None:
    """Who can write into the store cannot have code run by it; None where there is no store."""
    if subject.plant is None:
        return None
    mark = subject.directory / "code-was-run"
    visitor = Visitor(subject)
    visitor.post("/put/a/1")
    subject.plant(visitor.token, pickle.dumps(_Mark(mark)))
    visitor.send("GET", "/show")
    return not mark.exists()


CHECKS: dict[str, Callable[[Subject], bool | None]] = {
    "refuses a chosen id": refuses_chosen_ids,
    "old id ends at log-in": ends_the_old_id,
    "and at the next one": ends_the_old_id_again,
    "stays logged out": stays_logged_out,
    "keeps both writes": keeps_both_writes,
    "runs no planted pickle": runs_no_pickle,
}
