"""What happens to sessions, told to whoever subscribes."""

import logging
from collections.abc import Callable
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple

from canister.forks import Mutex

logger = logging.getLogger("canister.sessions")


class EventKind(StrEnum):
    """What happened."""

    CREATED = "created"
    RENEWED = "renewed"
    DESTROYED = "destroyed"
    EXPIRED = "expired"
    RETIRED_TOKEN_USED = "retired-token-used"
    UNKNOWN_TOKEN = "unknown-token"


class Event(NamedTuple):
    """One thing that happened to a session, or with a cookie that names none.

    Attributes:
        kind: what happened.
        at: when this process saw it.
        handle: the session's id, no secret; None for a cookie that names no session.
        user: who was logged in, None if nobody was or it is not known any more.
        here: whether this session manager did it. What others did may be told more than once; others are
            the library's own verbs too, such as `Canister.destroy` in this process.
    """

    kind: EventKind
    at: datetime
    handle: str | None = None
    user: Any = None
    here: bool = True


Subscriber = Callable[[Event], object]


class Events:
    """The subscribers of one session manager. Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = Mutex()
        self._subscribers: tuple[tuple[object, Subscriber], ...] = ()

    def __bool__(self) -> bool:
        return bool(self._subscribers)

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Call *subscriber* with each event; return what ends that.

        It runs in the thread that saw the event, between a request's commit and its answer: it should
        hand on what takes time. What it raises is logged and changes nothing.
        """
        with self._lock:
            own = object(), subscriber  # one function may have subscribed twice
            self._subscribers = (*self._subscribers, own)

        def unsubscribe() -> None:
            with self._lock:
                self._subscribers = tuple(s for s in self._subscribers if s is not own)

        return unsubscribe

    def tell(self, event: Event) -> None:
        """Call all subscribers."""
        for _, subscriber in self._subscribers:
            try:
                subscriber(event)
            except Exception:
                logger.exception(
                    "a subscriber failed on the event %s of session %s", event.kind, event.handle
                )
