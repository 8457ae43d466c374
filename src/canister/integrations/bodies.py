"""Response bodies as WSGI has them: iterables that may have something to close."""

from typing import Any


def close_body(body: Any) -> None:
    """Close what an application returned, if there is anything to close."""
    close = getattr(body, "close", None)
    if close is not None:
        close()
