"""How far a node believes what peers claim."""

from collections.abc import Mapping, Sequence

from canister.clock import Clock
from canister.record import NodeId, Record
from canister.replication.link import Link
from canister.replication.runtime import Runtime
from canister.store.base import Merged, ReplicatedStore

Batch = Sequence[tuple[bytes, Record]]

_NOTHING: Mapping[NodeId, int] = {}
_MOST_HEARD = 10_000
"""Node ids of which anything is noted as heard."""


class Trust:
    """Bounds what the word of a peer can do.

    Args:
        store: the node's sessions.
        clock: where the time comes from.
        drift: greatest clock difference between members, in microseconds.
        runtime: what alarms go to.
    """

    def __init__(self, store: ReplicatedStore, clock: Clock, drift: int, runtime: Runtime) -> None:
        self._store = store
        self._clock = clock
        self._drift = drift
        self._runtime = runtime

    def merge(self, link: Link, batch: Batch, heard: Mapping[NodeId, int] = _NOTHING) -> Merged:
        """Merge what a peer sent, with what it lets this node call heard.

        Versions dated too far ahead are held back by the store; the first on a link is an alarm.
        """
        merged = self._store.merge(batch, heard)
        if merged.held and not link.has_sent_future:
            link.has_sent_future = True
            self._runtime.alarm(
                f"{link.address} sends versions dated further ahead than max_clock_drift; "
                "they are kept and shown when their time has come; check the clocks"
            )
        return merged

    def vouch(self, link: Link) -> None:
        """Note as heard what the live commits of a link vouch for."""
        heard = self.credible(link.vouched())
        if heard and self._store.heard_of(link.node) < link.live_upto:
            self._store.merge([], heard)

    def renounce(self, link: Link, heard: int) -> None:
        """Believe a peer that has heard of commits of this node, up to a stamp, that are not here (R5).

        The whole data directory was put back then, with all in it that would tell.
        """
        self._store.renounce(heard)
        self._runtime.alarm(
            f"{link.address} has commits of this node that are not here: an older state of its data was put "
            "back; they are fetched, what no member has is lost; restart all processes of this node, it then "
            "takes a new node id"
        )

    def is_future(self, at: int) -> bool:
        """Tell whether an instant is further ahead than a right clock can be."""
        return at > self._clock.now() + self._drift

    def credible(self, heard: Mapping[NodeId, int]) -> dict[NodeId, int]:
        """Return what may be believed as heard, and was not yet.

        Nothing ahead of the clock: it would vouch for what is still to be written.
        """
        limit = self._clock.now() + self._drift
        believed = {node: stamp for node, stamp in heard.items() if stamp <= limit}
        if len(believed) > 1:
            with self._store.snapshot() as snapshot:
                known = snapshot.heard()
            believed = {node: stamp for node, stamp in believed.items() if stamp > known.get(node, 0)}
            new = [node for node in believed if node not in known]
            for node in new[max(0, _MOST_HEARD - len(known)) :]:
                del believed[node]
        return believed
