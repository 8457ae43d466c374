"""Sessions of a web application: tokens, cookies and the session manager over a canister."""

from canister.sessions.cookie import CookieSettings
from canister.sessions.events import Event, EventKind
from canister.sessions.identity import Identity
from canister.sessions.manager import ManagerOptions, SessionManager
from canister.sessions.outcome import Outcome
from canister.sessions.session import Session
from canister.sessions.state import SessionStatus
from canister.sessions.users import UserSession
from canister.sessions.watch import Lease

__all__ = [
    "CookieSettings",
    "Event",
    "EventKind",
    "Identity",
    "Lease",
    "ManagerOptions",
    "Outcome",
    "Session",
    "SessionManager",
    "SessionStatus",
    "UserSession",
]
