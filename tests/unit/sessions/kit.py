"""What the tests of the session manager share."""

from datetime import timedelta
from typing import Any

from canister import Canister
from canister.record import NodeId, make_version
from canister.sessions import CookieSettings, SessionManager
from canister.sessions.keys import KeyRing
from canister.sessions.token import Token, draft
from canister.testing.clock import ManualClock

KEY = "key-0123456789-abcdefghijklmnopqrs"
OTHER_KEY = "other-0123456789-abcdefghijklmnopq"
END = CookieSettings().end()
MINUTE = timedelta(minutes=1)
OTHER_NODE = NodeId(b"node-B..")


def create(manager: SessionManager, **values: Any) -> str:
    """Store a session as one request does; return the cookie's value."""
    session = manager.load([])
    session.update(values)
    return sent(manager.commit(session).set_cookie)


def sent(set_cookie: str | None) -> str:
    assert set_cookie is not None
    assert set_cookie != END
    return set_cookie.partition(";")[0].partition("=")[2]


def log_of(canister: Canister) -> list[Any]:
    with canister.node.store.snapshot() as snapshot:
        return snapshot.log(0)


def forged(cookie: str) -> str:
    return cookie[:-1] + ("A" if cookie[-1] != "A" else "B")


def in_doubt(canister: Canister) -> None:
    """Make the node one that has not compared itself with another member, whom it cannot ask."""
    canister.node.store.set_doubts(1)


def token_of_elsewhere(clock: ManualClock) -> Token:
    """Return a token that another node issued just now."""
    return draft(KeyRing([KEY])).seal(make_version(clock.now(), OTHER_NODE))
