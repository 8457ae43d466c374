"""Whether a node's wall clock is right: compared with those of its peers, however late their messages are."""

from collections.abc import Collection

from canister.clock import Clock, Steady
from canister.replication.link import Link
from canister.replication.messages import Heartbeat
from canister.replication.runtime import Runtime
from canister.store.base import ReplicatedStore

_CLOCK_OFF = (
    "this node's clock is further from its peers' than max_clock_drift allows; "
    "writes are refused here until it is right"
)


class Clocks:
    """Compares a node's wall clock with those of its peers.

    Args:
        store: what tells the node's processes whether the clock is off.
        clock: the node's wall clock.
        steady: the clock that nobody sets.
        drift: greatest clock difference between members, in microseconds.
        answer: microseconds for which what a peer tells of this clock may be from before that was set.
        runtime: what alarms go to.
    """

    def __init__(
        self, store: ReplicatedStore, clock: Clock, steady: Steady, drift: int, answer: int, runtime: Runtime
    ) -> None:
        self._store = store
        self._clock = clock
        self._steady = steady
        self._drift = drift
        self._answer = answer
        self._runtime = runtime
        self._is_off = False
        self._lead = self._measured()
        self._set_at: int | None = None
        """When this node's clock was set last, by the steady one."""

    def hear(self, link: Link, message: Heartbeat) -> None:
        """Take in what a peer says of its clock and of this one."""
        link.ahead = message.now - self._clock.now()
        link.told_ahead = None if self._was_set() else message.ahead

    def check(self, links: Collection[Link]) -> None:
        """Compare this node's clock with the middle of its peers'; if it is off, writes wait."""
        if self._was_set():
            for link in links:
                link.told_ahead = None
        ordered = sorted(link.clock_offset for link in links)
        # Of two in the middle the one nearer to this clock: one peer of two does not outvote the other.
        middle = ordered[max(0, len(ordered) - 1) // 2 : len(ordered) // 2 + 1]
        off = min(map(abs, middle), default=0) > self._drift
        if off != self._is_off:
            self._is_off = off
            self._store.set_clock_off(off)
            self._runtime.alarm(_CLOCK_OFF if off else "this node's clock agrees with its peers' again")

    def _was_set(self) -> bool:
        """Tell whether this node's clock was set a moment ago."""
        lead, before = self._measured(), self._lead
        self._lead = lead
        if abs(lead - before) > self._drift:
            self._set_at = self._steady()
        return self._set_at is not None and self._steady() - self._set_at < self._answer

    def _measured(self) -> int:
        return self._clock.now() - self._steady()
