"""The mesh beyond what one machine holds: what nodes send each other, counted in the simulator."""

from random import Random

from benchmarks.limits.points import VALUE, Point
from canister import edits
from canister.codec import encode_id, encode_value, key_slot
from canister.config import Config
from canister.edits import Moment
from canister.record import Record
from canister.testing.simulation import Cluster, SimNode

_SETTLE = 5.0
_IDLE = 20.0
"""Virtual seconds: two comparisons with each peer."""
_PAUSE = 0.05
"""Virtual seconds between two writes."""


def simulated(count: int, writes: int) -> list[Point]:
    """Count messages and bytes of so many nodes with the default settings, idle and by write."""
    cluster = Cluster(count, seed=1, config=Config(cluster="simulated"))
    chance = Random(1)
    nodes = list(cluster.nodes.values())
    cluster.run(_SETTLE)
    for node in nodes:
        _write(cluster, node)
    cluster.run(_SETTLE)
    network, before = cluster.network, (cluster.network.messages.total(), cluster.network.bytes.total())
    cluster.run(_IDLE)
    messages = (network.messages.total() - before[0]) / _IDLE / count
    size = (network.bytes.total() - before[1]) / _IDLE / count
    live = network.messages["Live"], network.bytes["Live"]
    for _ in range(writes):
        _write(cluster, chance.choice(nodes))
        cluster.run(_PAUSE)
    sent = network.messages["Live"] - live[0], network.bytes["Live"] - live[1]
    if len(cluster.digests()) != 1:
        raise RuntimeError(f"{count} simulated nodes are not equal")
    copies = writes * (count - 1)
    # A node sends what is counted here, and receives as much.
    return [
        Point("mesh, simulated", "idle, messages of a node", "1/s", 2 * messages, count),
        Point("mesh, simulated", "idle, network of a node", "B/s", 2 * size, count),
        Point("mesh, simulated", "a write, messages to each other node", "", sent[0] / copies, count),
        Point("mesh, simulated", "a write, network to each other node", "B", sent[1] / copies, count),
    ]


def _write(cluster: Cluster, node: SimNode) -> None:
    cells = {key_slot("user"): encode_value("v" * VALUE)}

    def edit(record: Record | None, moment: Moment) -> Record | None:
        return edits.write(record, moment, cluster.policy, cells)

    node.commit(encode_id(f"{node.address:0>32}"), edit)
