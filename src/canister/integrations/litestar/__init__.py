"""Litestar: a session backend, and a store for its rate limiter, response cache and the like."""

from canister.integrations.litestar.sessions import CanisterSessionBackend, CanisterSessionConfig, session_of
from canister.integrations.litestar.store import CanisterStore

__all__ = ["CanisterSessionBackend", "CanisterSessionConfig", "CanisterStore", "session_of"]
