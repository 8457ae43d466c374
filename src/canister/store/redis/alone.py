"""One at a time: threads, and the calls that event loops make."""

import threading

from greenlet import getcurrent, greenlet

from canister.errors import SessionError
from canister.store.redis.waiting import Turns, is_call

_PATIENCE = 60.0
"""Seconds of one wait; whoever waits goes on after it."""


class Alone:
    """A context that lets in one thread, or one call of an event loop, at a time.

    Who is in may come in again.
    """

    def __init__(self) -> None:
        self._turns = Turns(1)
        self._owner: greenlet | None = None
        self._thread = 0
        self._depth = 0

    def __enter__(self) -> None:
        """Come in.

        Raises:
            SessionError: this would stop the event loop that whoever is in needs to get out.
        """
        current = getcurrent()
        if self._owner is not current:
            owner, here = self._owner, threading.get_ident()
            if owner is not None and is_call(owner) and self._thread == here and not is_call(current):
                raise SessionError(
                    "another task of this event loop is storing the session; await acommit() here"
                )
            while not self._turns.take(_PATIENCE):
                pass
            self._owner, self._thread = current, here
        self._depth += 1

    def __exit__(self, *error: object) -> None:
        """Go out."""
        self._depth -= 1
        if not self._depth:
            self._owner = None
            self._turns.give_back()
