"""Comparing with peers: the pulls of this node on all its links, and what each heal came to."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from canister.clock import Clock
from canister.replication.digests import View
from canister.replication.healing import HealLog, HealReport, explain
from canister.replication.link import Link
from canister.replication.messages import Digests, Listing, Root, Rows, decode_row
from canister.replication.pull import Pull
from canister.replication.runtime import Runtime
from canister.replication.trust import Batch
from canister.store.base import ReplicatedStore


class Comparisons:
    """Runs the pulls of one node, one at a time on each link.

    Args:
        store: the node's sessions.
        clock: where the time comes from.
        runtime: what sends.
        view: what this node holds, after the live flow has caught up.
        merge: merges what a peer sent.
    """

    def __init__(
        self,
        store: ReplicatedStore,
        clock: Clock,
        runtime: Runtime,
        view: Callable[[], AbstractContextManager[View]],
        merge: Callable[[Link, Batch], object],
    ) -> None:
        self.heals = HealLog()
        self.exchanged = 0
        """Sessions received because a comparison found them to differ."""
        self._store = store
        self._clock = clock
        self._runtime = runtime
        self._view = view
        self._merge = merge
        self._round = 0

    def start(self, link: Link) -> None:
        """Begin a comparison on a link; one under way there is given up.

        The first one, as after a split, takes fewer round trips: much may differ, and readers wait for it.
        """
        self._round += 1
        now = self._clock.now()
        with self._view() as view:
            below = b"" if link.reconciled_at else view.below(now)
        link.pull = Pull(self._round, now, below)
        self._ask(link, link.pull)

    def answered(self, link: Link, message: Root | Digests | Listing | Rows) -> Pull | None:
        """Take an answer and ask on; return the comparison once it is complete."""
        pull = link.pull
        if pull is None or message.round != pull.round:
            return None
        with self._view() as view:
            rows = pull.answered(message, view)
        if rows is not None:
            self._take(link, [decode_row(row) for row in rows])
        if not pull.queued:
            link.pull = None
            link.reconciled_at = pull.at
            link.was_equal = pull.was_equal
            return pull
        self._ask(link, pull)
        return None

    def finished(self, link: Link, pull: Pull, links: Sequence[Link], members: int) -> HealReport | None:
        """Note that a comparison is complete; return a report if it ended a heal."""
        equal = [other.reconciled_at for other in links if other.was_equal]
        if len(equal) == members and members:
            self.heals.last_equal = max(self.heals.last_equal, min(equal))
        now = self._clock.now()
        return self.heals.healed(link.address, now, equal=pull.was_equal, peer_lacked=pull.peer_lacked)

    def _ask(self, link: Link, pull: Pull) -> None:
        for question in pull.ask():
            self._runtime.send([link.number], question)

    def _take(self, link: Link, batch: Batch) -> None:
        self.exchanged += len(batch)
        named = batch[: self.heals.room(link.address)]
        before = [self._store.load(session).record for session, _ in named]
        self._merge(link, batch)
        self.heals.found_more(link.address, len(batch) - len(named))
        for (session, incoming), was in zip(named, before, strict=True):
            now = self._store.load(session).record
            self.heals.found(link.address, explain(session, was, incoming, now))
