"""Checks of what sessions do: tried out, on a store of their own and a clock that is set forward."""

import contextlib
from datetime import timedelta

from canister.checks.finding import Result
from canister.checks.subject import Subject
from canister.config import load_config
from canister.errors import TooManySessionsError
from canister.presets import PRESETS, preset_named
from canister.sessions.events import EventKind

_MOMENT = timedelta(seconds=1)
_OWASP_IDLE = timedelta(minutes=31, seconds=30)
"""Thirty minutes, the most for low risk, and a touch interval."""


def never_issued(subject: Subject) -> Result:
    """An id that was never issued is refused, replaced and told of."""
    chosen = "A" * 112
    session = subject.open(chosen)
    session["a"] = 1
    token = subject.close(session)
    told = any(event.kind is EventKind.UNKNOWN_TOKEN for event in subject.events)
    return token not in (
        None,
        chosen,
    ) and told, "a client's own value got a new id, and an unknown-token event"


def untrusted(subject: Subject) -> Result:
    """Whatever a cookie holds, it is checked before it is used."""
    token = subject.created()
    forged = token[:-1] + ("A" if token[-1] != "A" else "B")
    values = ["", "'; DROP TABLE sessions", "\x00", "A" * 100_000, forged]
    opened = [value for value in values if subject.is_live(value)]
    return not opened, f"{len(values)} malformed and forged values opened nothing"


def new_at_log_in(subject: Subject) -> Result:
    """A log-in, and a second one, gives a new token; the one before opens nothing."""
    tokens = [subject.created()]
    for _ in range(2):
        session = subject.open(tokens[-1])
        session.login("ada")
        tokens.append(subject.close(session) or "")
    ok = len(set(tokens)) == 3 and [subject.is_live(token) for token in tokens] == [False, False, True]
    return ok, "two log-ins gave two new ids; the tokens of before opened nothing at once"


def ends_at_log_out(subject: Subject) -> Result:
    """Log-out ends the session on the server."""
    token = subject.created("ada")
    session = subject.open(token)
    session.logout()
    subject.close(session)
    return not subject.is_live(token), "the token of before opened nothing after the log-out"


def idle(subject: Subject) -> Result:
    """An idle session ends on the server."""
    token = subject.created()
    limit = min(subject.config.session_timeout + _interval(subject), subject.config.absolute_lifetime)
    subject.clock.advance(limit - _MOMENT)
    before = subject.is_live(token)
    subject.clock.advance(_MOMENT)
    return before and not subject.is_live(token), f"ended {limit} after the last access"


def idle_is_short(subject: Subject) -> Result:
    """The idle timeout is within the ranges the guidance names."""
    holds, evidence = idle(subject)
    limit = subject.config.lock_timeout or subject.config.session_timeout
    return (
        holds and limit <= _OWASP_IDLE,
        f"{evidence}; the guidance: 2 to 5 minutes for high value, 15 to 30 for low",
    )


def absolute(subject: Subject) -> Result:
    """A session ends however long its idle timeout is."""
    lifetime = subject.config.absolute_lifetime
    session = subject.open()
    session["key"] = "value"
    session.set_expiry(idle=lifetime)
    token = subject.close(session)
    subject.clock.advance(lifetime - _MOMENT)
    before = subject.is_live(token)
    subject.clock.advance(_MOMENT)
    return before and not subject.is_live(token), f"ended {lifetime} after it began"


def renewal(subject: Subject) -> Result:
    """The secret is replaced in use, and the old one ends soon."""
    due = subject.config.renewal_timeout
    if due is None:
        return False, "renewal_timeout is not set: a token stays the same for as long as the session lives"
    if due >= subject.config.absolute_lifetime:
        return False, f"renewal_timeout ({due}) is no shorter than absolute_lifetime"
    token = subject.created()
    session = subject.open(token)
    session.set_expiry(idle=subject.config.absolute_lifetime)
    subject.close(session)
    subject.clock.advance(due)
    session = subject.open(token)
    session.get("key")
    renewed = subject.close(session)
    both = subject.is_live(token) and subject.is_live(renewed)
    session = subject.open(renewed)
    session.get("key")
    subject.close(session)
    ok = both and subject.is_live(renewed) and not subject.is_live(token)
    return ok, f"replaced after {due}; the old secret was good until the new one showed up"


def hashed(subject: Subject) -> Result:
    """The store never holds a secret that opens a session."""
    token = subject.created("ada")
    return (
        token.encode() not in subject.stored(),
        "the store holds a keyed hash of the secret, the log the id alone",
    )


def events(subject: Subject) -> Result:
    """Creation, renewal, end and misuse are told, without secrets."""
    token = subject.created("ada")
    session = subject.open(token)
    session.renew()
    renewed = subject.close(session)
    session = subject.open(renewed)
    session.logout()
    subject.close(session)
    subject.open("rubbish")
    kinds = {event.kind for event in subject.events}
    wanted = {EventKind.CREATED, EventKind.RENEWED, EventKind.DESTROYED, EventKind.UNKNOWN_TOKEN}
    text = repr(subject.events)
    return (
        wanted <= kinds and token not in text,
        f"events: {', '.join(sorted(kinds))}; they carry the id, no secret",
    )


def cap(subject: Subject) -> Result:
    """Log-ons beside each other are limited, or allowed and seen by the user."""
    most = subject.settings.max_sessions
    if most is None:
        holds, evidence = lists(subject)
        return holds, f"max_sessions is not set: any number is allowed, listed and ended by {evidence}"
    with contextlib.suppress(TooManySessionsError):  # the other way to keep the cap
        for _ in range(most + 1):
            subject.created("ada")
    alive = len(subject.manager.users.sessions("ada"))
    return alive == most, f"of {most + 1} log-ins {alive} stood ({subject.settings.at_cap})"


def ends_all(subject: Subject) -> Result:
    """All sessions of a user can be ended, or all but one."""
    tokens = [subject.created("ada") for _ in range(min(3, subject.settings.max_sessions or 3))]
    kept = subject.open(tokens[-1])
    subject.manager.users.end_all("ada", keep=kept)
    others = [subject.is_live(token) for token in tokens]
    subject.manager.users.end_all("ada")
    ok = others == [False] * (len(tokens) - 1) + [True] and not subject.is_live(tokens[-1])
    return ok, "manager.users.end_all(user) ended all, with keep= all but one"


def lists(subject: Subject) -> Result:
    """A user's sessions can be listed, and each one ended."""
    token = subject.created("ada")
    handle = subject.open(token).handle or ""
    listed = [one.handle for one in subject.manager.users.sessions("ada")]
    ended = subject.manager.users.end("ada", handle)
    return handle in listed and ended and not subject.is_live(
        token
    ), "manager.users.sessions(user) and end(user, handle)"


def csrf(subject: Subject) -> Result:
    """A form's token is verified, and another session's is not."""
    first, second = subject.open(subject.created()), subject.open(subject.created())
    token = first.csrf_token()
    return first.is_csrf_token(token) and not second.is_csrf_token(
        token
    ), "session.csrf_token(), is_csrf_token()"


def reset_by_log_in(subject: Subject) -> Result:
    """A re-authentication begins both time-outs anew."""
    token = subject.created("ada")
    before = subject.open(token).ends
    subject.clock.advance(subject.config.session_timeout / 2)
    session = subject.open(token)
    session.login("ada")
    after = subject.open(subject.close(session)).ends
    return (
        before is not None and after is not None and after > before,
        f"the end moved from {before} to {after}",
    )


def level(subject: Subject) -> Result:
    """The times are within an assurance level's."""
    met = [name for name in PRESETS if name.startswith("nist") and _within(subject, name)]
    config = subject.config
    shown = f"idle {config.session_timeout} + {_interval(subject)}, in all {config.absolute_lifetime}"
    return bool(met), f"{shown}: within {', '.join(met) or 'none; the widest is nist-aal1 (30 days in all)'}"


def _within(subject: Subject, preset: str) -> bool:
    limits = load_config(preset_named(preset), environ={})
    spare = limits.touch_interval or timedelta(0)
    config = subject.config
    return (
        config.session_timeout + _interval(subject) <= limits.session_timeout + spare
        or preset.startswith("nist-aal1")
    ) and config.absolute_lifetime <= limits.absolute_lifetime


def _interval(subject: Subject) -> timedelta:
    return timedelta(microseconds=subject.manager.canister.node.policy.interval)
