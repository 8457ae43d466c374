"""What a heal did: how long two nodes were apart, which sessions differed, and what came of each.

Kept in memory for an operator to read; nothing is decided by it.
"""

from collections import Counter, deque

import msgspec

from canister.life import has_keys
from canister.record import KEY, Record, Slot

_MOST_REPORTS = 50
_MOST_SESSIONS = 1000
"""Sessions named in one report; the rest are counted."""


class Difference(msgspec.Struct, frozen=True):
    """What a comparison changed about one session, and why.

    Attributes:
        session: its encoded id.
        outcome: ``arrived``, ``merged``, ``cleared``, ``destroyed``, ``touched``, ``kept`` (this
            node had all of it already), ``held`` (dated too far ahead to be shown yet) or
            ``dropped`` (over, past its retention).
        why: one sentence.
        taken: slots of the keys whose value came from the peer.
        kept: slots of the keys that differed and whose value stayed as it was here.
    """

    session: bytes
    outcome: str
    why: str
    taken: list[Slot] = msgspec.field(default_factory=list[Slot])
    kept: list[Slot] = msgspec.field(default_factory=list[Slot])


class HealReport(msgspec.Struct):
    """One heal with one peer. Instants are microseconds since 1970 UTC.

    *differences* names at most 1,000 sessions that the peer sent, *more* counts those beyond. *equal* tells
    whether both held the same when the comparison began, *peer_lacked* whether it met sessions that the peer
    did not have: the peer takes them in a comparison of its own.
    """

    peer: str
    parted: int
    linked: int
    healed: int = 0
    differences: list[Difference] = msgspec.field(default_factory=list[Difference])
    more: int = 0
    equal: bool = False
    peer_lacked: bool = False

    def summary(self) -> str:
        """Return what came of the sessions that differed, in a few words."""
        counts = Counter(difference.outcome for difference in self.differences)
        taken = [f"{count} {outcome}" for outcome, count in sorted(counts.items())]
        if self.more:
            taken.append(f"{self.more} more")
        nothing = "nothing differed" if self.equal else "nothing to take"
        return (", ".join(taken) or nothing) + ("; the peer lacked some" if self.peer_lacked else "")


def explain(session: bytes, before: Record | None, incoming: Record, after: Record | None) -> Difference:
    """Return what merging *incoming* into *before* did.

    Args:
        session: the encoded id.
        before: what readers saw here, None if nothing.
        incoming: what the peer sent.
        after: what readers see now, None if nothing.
    """
    if after is None:
        if before is None and incoming.birth is not None:
            return Difference(session, "held", "it is over, or dated further ahead than may be shown yet")
        return Difference(session, "dropped", "it is over on every node")
    if after.destroy is not None:
        return _explain_destroyed(session, before, incoming)
    if before is None:
        return Difference(session, "arrived", "it was created on the other side")
    differ = [s for s, c in incoming.cells.items() if s[0] == KEY[0] and c != before.cells.get(s)]
    taken = [slot for slot in differ if after.cells.get(slot) == incoming.cells[slot]]
    kept = [slot for slot in differ if slot not in taken]
    if after.clear != before.clear:
        why = "the other side cleared it" + (" and wrote on" if has_keys(after) else "")
        return Difference(session, "cleared", why, taken, kept)
    if taken:
        return Difference(session, "merged", "of each key the later version stays", taken, kept)
    if after != before:
        return Difference(session, "touched", "the other side used it later, or set its times", [], kept)
    return Difference(session, "kept", "what is here is the same or later", [], kept)


def _explain_destroyed(session: bytes, before: Record | None, incoming: Record) -> Difference:
    if before is not None and before.destroy is not None:
        if incoming.destroy is not None:
            return Difference(session, "kept", "both sides destroyed it")
        return Difference(
            session, "destroyed", "it was destroyed here, which wins over what the other side had"
        )
    why = "the other side destroyed it" + ("; what was written here is gone" if before else "")
    return Difference(session, "destroyed", why)


class HealLog:
    """The reports of one node, and when all members were last seen equal."""

    def __init__(self) -> None:
        self.reports: deque[HealReport] = deque(maxlen=_MOST_REPORTS)
        self.last_equal = 0
        """As of which instant this node and all members were last found equal; 0 if never."""
        self._parted: dict[str, int] = {}
        self._open: dict[str, HealReport] = {}

    def parted(self, address: str, now: int) -> None:
        """A link to a member is gone."""
        self._open.pop(address, None)
        self._parted.setdefault(address, now)

    def linked(self, address: str, now: int) -> None:
        """A link to a member is up again; what its first comparison finds belongs to the heal."""
        since = self._parted.get(address)
        if since is not None:
            self._open[address] = HealReport(address, since, now)

    def room(self, address: str) -> int:
        """Return how many sessions that a member sends can still be named; none where nothing is healed."""
        report = self._open.get(address)
        return 0 if report is None else _MOST_SESSIONS - len(report.differences)

    def found(self, address: str, difference: Difference) -> None:
        """Name a session that differed. There must be room."""
        self._open[address].differences.append(difference)

    def found_more(self, address: str, count: int) -> None:
        """Count sessions that differed and are not named."""
        report = self._open.get(address)
        if report is not None:
            report.more += count

    def healed(self, address: str, now: int, *, equal: bool, peer_lacked: bool) -> HealReport | None:
        """A comparison is complete; return the report if it ended a heal."""
        report = self._open.pop(address, None)
        if report is not None:
            del self._parted[address]
            report.healed, report.equal, report.peer_lacked = now, equal, peer_lacked
            self.reports.append(report)
        return report
