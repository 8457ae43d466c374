"""What a heal says of itself, on virtual time."""

import pytest

from canister import edits
from canister.codec import encode_id, encode_value, key_slot
from canister.testing.simulation import Cluster, SimNode


def put(node: SimNode, session: str) -> None:
    cells = {key_slot("k"): encode_value(1)}
    node.commit(encode_id(session), lambda r, m: edits.write(r, m, node.cluster.policy, cells))


@pytest.mark.parametrize("seed", range(5))
def test_who_had_all_is_not_called_equal_with_who_lacked_some(seed: int) -> None:
    """Nothing is pulled where the peer only lacks something; equal are both once that has arrived."""
    cluster = Cluster(2, seed)
    one, other = cluster.nodes.values()
    cluster.run(3)
    cluster.network.cut([one], [other])
    cluster.network.cut([other], [one])
    put(one, "s")
    cluster.run(15)
    written = cluster.schedule.now
    cluster.network.heal()
    cluster.run(3)
    assert one.replica is not None
    assert other.replica is not None
    (report,) = one.replica.comparisons.heals.reports
    assert (report.differences, report.equal, report.peer_lacked) == ([], False, True)
    assert one.replica.comparisons.heals.last_equal < written
    (report,) = other.replica.comparisons.heals.reports
    assert ([d.outcome for d in report.differences], report.peer_lacked) == (["arrived"], False)
    cluster.run(15)
    assert one.replica.comparisons.heals.last_equal > written
