"""The one loop of a simulated node: on a slow disk every write takes time, and all else waits for it."""

from collections import Counter, deque
from collections.abc import Callable
from typing import TypeVar

from canister.testing.simulation.schedule import Schedule

T = TypeVar("T")
Act = Callable[[], None]


class Loop:
    """What a node is busy with.

    Args:
        schedule: virtual time.
        effects: counts what waited.
        written: returns how many transactions the node's log holds that are later than a stamp, and
            the last stamp.
    """

    def __init__(
        self, schedule: Schedule, effects: Counter[str], written: Callable[[int], tuple[int, int]]
    ) -> None:
        self.latency = 0
        """How long a write takes, in microseconds."""
        self._schedule = schedule
        self._effects = effects
        self._written = written
        self._busy_until = 0
        self._sending: list[Act] | None = None
        self._pending: deque[list[Act]] = deque()

    @property
    def wait(self) -> int:
        """How long what arrives now has to wait, in microseconds."""
        return max(0, self._busy_until - self._schedule.now)

    def run(self, act: Callable[[], T]) -> T:
        """Do something; what it sends leaves once its writes are done."""
        if self._sending is not None or not (self.latency or self._pending):
            return act()
        _, before = self._written(2**62)
        sending = self._sending = []
        try:
            return act()
        finally:
            self._sending = None
            writes, _ = self._written(before)
            self._busy_until = self._schedule.now + self.wait + writes * self.latency
            if sending:
                self._effects["sent late by a slow disk"] += self.wait > 0
                self._pending.append(sending)
                self._schedule.after(self.wait, self._flush)

    def send(self, act: Act) -> None:
        """Send something, now or when the writes before it are done."""
        if self._sending is None:
            act()
        else:
            self._sending.append(act)

    def reset(self) -> None:
        """The node's process ended."""
        self._pending.clear()
        self._busy_until = 0

    def _flush(self) -> None:
        for act in self._pending.popleft() if self._pending else ():
            act()
