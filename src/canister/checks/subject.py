"""What is checked: an application's settings, tried out on a store of their own."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from canister.canister import Canister
from canister.clock import SystemClock, micros
from canister.config import Config
from canister.sessions import CookieSettings, Event, Outcome, Session, SessionManager
from canister.sessions.users import AtCap

_KEY = "for-this-check-only-0123456789-abcdefghijkl"
_NAMES = (
    "session_timeout absolute_lifetime touch_interval grace_period "
    "lock_timeout renewal_timeout renewal_window"
)


@dataclass(frozen=True, slots=True)
class Settings:
    """What an application has set.

    Attributes:
        config: the canister's settings.
        cookie: the cookies' attributes.
        max_sessions: how many sessions a user may have.
        at_cap: what happens beyond that.
        canister: where the application's own sessions are; None where only its settings are known.
    """

    config: Config
    cookie: CookieSettings
    max_sessions: int | None = None
    at_cap: AtCap = "evict"
    canister: Canister | None = None

    @classmethod
    def of(cls, manager: SessionManager) -> "Settings":
        """Return the settings of an application's session manager."""
        users = manager.users
        canister = manager.canister
        return cls(canister.config, manager.cookie, users.most, users.at_cap, canister)


class SetClock:
    """A clock that stands until it is set forward."""

    def __init__(self) -> None:
        self._at = SystemClock().now()

    def now(self) -> int:
        """Return microseconds since 1970."""
        return self._at

    def advance(self, by: timedelta) -> None:
        """Go forward."""
        self._at += micros(by)


class Subject:
    """An application's settings, and a session manager that has them and nobody's sessions.

    Args:
        settings: what the application has set.
        canister: a store for this check alone.
        clock: its time.
    """

    def __init__(self, settings: Settings, canister: Canister, clock: SetClock) -> None:
        self.config = settings.config
        self.cookie = settings.cookie
        self.settings = settings
        self.canister = canister
        self.clock = clock
        self.manager = SessionManager(
            canister,
            secret_keys=_KEY,
            cookie=settings.cookie,
            max_sessions=settings.max_sessions,
            at_cap=settings.at_cap,
            strict=False,
        )
        self.events: list[Event] = []
        self.manager.events.subscribe(self.events.append)

    def open(self, token: str | None = None) -> Session:
        """Begin a request that shows *token*."""
        return self.manager.load([token] if token is not None else [])

    def close(self, session: Session) -> str | None:
        """End the request; return the token that the client is sent."""
        sent = self.outcome(session).set_cookie
        return sent.partition(";")[0].partition("=")[2] if sent else None

    def outcome(self, session: Session) -> Outcome:
        """End the request; return what the client is sent."""
        return self.manager.commit(session)

    def created(self, user: object = None) -> str:
        """Return the token of a new session, its user logged in if there is one."""
        session = self.open()
        session["key"] = "value"
        if user is not None:
            session.login(user)
        token = self.close(session)
        assert token  # a session that was written to has one
        return token

    def is_live(self, token: str | None) -> bool:
        """Tell whether a token opens a session."""
        return bool(token) and self.open(token).handle is not None

    def stored(self) -> bytes:
        """Return all that the store's files hold."""
        files = self.canister.node.store.files.path
        return b"".join(path.read_bytes() for path in sorted(files.glob("canister.db*")))


@contextmanager
def subject(settings: Settings) -> Generator[Subject, None, None]:
    """Try settings out on a store of their own."""
    times: dict[str, Any] = {name: getattr(settings.config, name) for name in _NAMES.split()}
    clock = SetClock()
    with TemporaryDirectory(prefix="canister-check-") as directory:
        path = Path(directory) / "data"
        with Canister(path, agent=False, clock=clock, **times, preset=None, serves=False) as canister:
            yield Subject(settings, canister, clock)
