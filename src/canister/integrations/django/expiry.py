"""Django's expiry of a session as the session's own times, and as the age of its cookie."""

from datetime import UTC, datetime, timedelta
from typing import Any, cast

from django.conf import settings
from django.contrib.sessions.backends.base import SessionBase
from django.utils import timezone

from canister.clock import to_datetime
from canister.life import hard_end
from canister.sessions import Session, SessionManager

_KEY = "_session_expiry"
"""Where Django keeps what ``set_expiry`` was given: seconds, an ISO date, or nothing."""
_dict: Any = dict
_SHORTEST, _LONGEST = timedelta(seconds=1), timedelta(days=400)


def times(session: Session, manager: SessionManager) -> tuple[timedelta | None, datetime | None]:
    """Return idle timeout and end of a session, None for the default.

    Neither goes past the session's absolute lifetime: it ends then in any case.
    """
    value = _value(session)
    now = to_datetime(manager.canister.engine.clock.now())
    span = manager.canister.config.absolute_lifetime  # of a new session, such as the next new key's
    end = now + span
    record = session.state.kept_record
    if record is not None and record.birth is not None:  # fixed when it began, by what was configured then
        span = min(span, timedelta(microseconds=record.birth.absolute))
        end = min(end, to_datetime(hard_end(record)))
    if isinstance(value, str):
        until = datetime.fromisoformat(value)
        until = timezone.make_aware(until) if timezone.is_naive(until) else until
        return None, min(until.astimezone(UTC), end)
    if not value:
        return None, None
    idle = timedelta(seconds=value)
    return (min(idle, span), None) if idle > timedelta(0) else (None, now + idle)


def cookie_age(store: SessionBase, session: Session) -> timedelta | None:
    """Return how long the browser keeps the session's cookie; None: until it is closed."""
    value = _value(session)
    if value == 0 if value is not None else settings.SESSION_EXPIRE_AT_BROWSER_CLOSE:
        return None
    if value is None:
        age = timedelta(seconds=cast("Any", store).get_session_cookie_age())
    else:
        age = timedelta(seconds=store.get_expiry_age(expiry=value))
    return min(max(age, _SHORTEST), _LONGEST)


def _value(session: Session) -> Any:
    return _dict.get(session, _KEY)  # looking at it is no access
