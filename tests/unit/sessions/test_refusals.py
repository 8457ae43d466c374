"""What a request is answered that no application answers for itself, alike for all frameworks."""

import logging

import pytest

from canister.errors import (
    CanisterError,
    CannotTellError,
    OldSystemError,
    SessionDestroyedError,
    SessionEndedError,
    SessionLockedError,
    StoreUnavailableError,
    TooManySessionsError,
)
from canister.sessions.outcome import refuse


@pytest.mark.parametrize(
    ("kind", "status", "reason"),
    [
        (CannotTellError, 503, "Service unavailable"),
        (OldSystemError, 503, "Service unavailable"),
        (StoreUnavailableError, 503, "Service unavailable"),
        (SessionDestroyedError, 409, "Conflict"),
        (SessionEndedError, 409, "Conflict"),
        (SessionLockedError, 403, "Forbidden"),
        (TooManySessionsError, 403, "Forbidden"),
    ],
)
def test_a_refusal_says_why_is_not_cached_and_is_logged(
    kind: type[CanisterError], status: int, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    page = refuse(kind("it is so"), "GET /cart")
    assert (page.status, page.reason) == (status, reason)
    assert page.text == f"{reason}: {page.why}\n"
    assert "it is so" not in page.text, "an error may name members, and what other systems say"
    assert page.headers == {
        "Content-Type": "text/plain; charset=utf-8",
        "Retry-After": "2",
        "Cache-Control": "no-store",
    }
    assert caplog.record_tuples == [("canister.sessions", logging.WARNING, "GET /cart was refused: it is so")]


def test_a_path_forges_no_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    refuse(CannotTellError("it is so"), "GET /a\nERROR:root:b\x1b[2J\u2028é\\n")
    assert caplog.messages == [r"GET /a\nERROR:root:b\x1b[2J\u2028\xe9\\n was refused: it is so"]
    caplog.clear()
    refuse(CannotTellError("it is so"), "GET /café")
    assert caplog.messages == ["GET /café was refused: it is so"]
