"""What one process asks its peers: how often about one session, and what it has got already."""

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable

from canister.forks import Mutex
from canister.freshness import Seen, as_seen, covers
from canister.record import Version

RATE = 32
"""Look-ups a second for one session in one process, and how many may come at once."""
MOST_SESSIONS = 4096
"""Sessions remembered; the one not used for longest is forgotten."""


class LookupLimits:
    """A token bucket for each session, and what look-ups have brought. Safe to share between threads.

    Args:
        now: the time in seconds, never going back.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._lock = Mutex()
        self._buckets: OrderedDict[bytes, tuple[float, float]] = OrderedDict()
        self._fetched: OrderedDict[bytes, Seen] = OrderedDict()

    def may_ask(self, session: bytes) -> bool:
        """Tell whether the peers may be asked for a session now; if so, that is one look-up."""
        with self._lock:
            now = self._now()
            left, since = self._buckets.pop(session, (float(RATE), now))
            left = min(RATE, left + (now - since) * RATE)
            self._buckets[session] = (left - 1 if left >= 1 else left, now)
            if len(self._buckets) > MOST_SESSIONS:
                self._buckets.popitem(last=False)
        return left >= 1

    def fetched(self, session: bytes, versions: Iterable[Version]) -> None:
        """Note that a look-up has brought all of the session that *versions* name."""
        with self._lock:
            self._fetched[session] = as_seen(self._fetched.pop(session, ()), first=tuple(versions))
            if len(self._fetched) > MOST_SESSIONS:
                self._fetched.popitem(last=False)

    def has(self, session: bytes, version: Version) -> bool:
        """Tell whether an earlier look-up has brought all of the session that *version* names."""
        with self._lock:
            return covers(self._fetched.get(session, ()), (version,))
