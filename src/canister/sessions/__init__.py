"""Sessions of a web application: tokens, cookies and the session manager over a canister."""

from canister.sessions.cookie import CookieSettings
from canister.sessions.manager import SessionManager
from canister.sessions.outcome import Outcome
from canister.sessions.session import Session, SessionStatus

__all__ = ["CookieSettings", "Outcome", "Session", "SessionManager", "SessionStatus"]
