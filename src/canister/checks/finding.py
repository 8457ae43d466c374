"""What a check says."""

from collections.abc import Callable
from enum import StrEnum
from typing import NamedTuple

from canister.checks.subject import Subject


class Verdict(StrEnum):
    """How a point stands."""

    PASS = "pass"
    FAIL = "fail"
    YOURS = "yours to do"


class Finding(NamedTuple):
    """How one point of the guidance stands.

    Attributes:
        point: its number there: ``O`` for the OWASP Session Management Cheat Sheet, ``V`` for ASVS 5.0,
            ``N`` for NIST SP 800-63B, ``C`` for RFC 6265bis; ``M`` for what the members of a cluster need.
        asks: what it asks, in short.
        verdict: how it stands.
        evidence: what was found, or what the application has to do.
    """

    point: str
    asks: str
    verdict: Verdict
    evidence: str


Result = tuple[bool | None, str]
"""Whether a point holds, None if that cannot be told here, and the evidence."""

Check = Callable[[Subject], Result]


class Point(NamedTuple):
    """One point of the guidance: what it asks, and how it is checked; a text is left to the application."""

    number: str
    asks: str
    check: Check | str

    def finding(self, verdict: Verdict, evidence: str) -> Finding:
        """Return how the point stands."""
        return Finding(self.number, self.asks, verdict, evidence)
