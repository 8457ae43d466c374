"""Nodes that get other addresses, with the data that they have."""

import pytest

from canister import edits
from canister.codec import encode_id, encode_value, key_slot
from canister.life import NEVER
from canister.record import stamp_of
from canister.replication.acks import Holders
from canister.testing.simulation import Cluster, SimNode
from canister.testing.simulation.disks import MemoryDisk


def put(node: SimNode, session: str) -> int:
    """Put one key; return the stamp."""
    cells = {key_slot("k"): encode_value(1)}
    version = node.commit(encode_id(session), lambda r, m: edits.write(r, m, node.cluster.policy, cells))
    assert version is not None
    return stamp_of(version)


def assert_whole(cluster: Cluster) -> None:
    """Check that all members are those that run, that all hold the same, and that a write reaches all."""
    assert len(cluster.digests()) == 1
    for node in cluster.nodes.values():
        assert node.replica is not None
        members = [m.address for m in (node.replica.membership.me, *node.replica.membership.others())]
        assert sorted(members) == sorted(cluster.nodes), node.address
        assert 0 < node.replica.gate() < NEVER
        told: list[Holders] = []
        node.replica.await_acks(put(node, node.address), "all", told.append)
        cluster.run(2)
        assert [sorted(holders.members) for holders in told] == [sorted(cluster.nodes)]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "moves",
    [
        [{"n1": "m1"}],
        [{"n1": "m1"}, {"m1": "n1"}, {"n1": "m1"}],
        [{"n1": "n2", "n2": "n1"}],
        [{"n1": "m1"}, {"n2": "n1"}, {"n1": "n2", "m1": "n1"}],
        [{"n1": "m1", "n2": "m2"}],
    ],
    ids=["away", "and back", "swap", "follow", "two at once"],
)
def test_a_node_that_moves_is_one_member(moves: list[dict[str, str]], seed: int) -> None:
    """Its former address holds up nothing, on any node, and it may return there."""
    cluster = Cluster(4, seed)
    cluster.run(3)
    for number, addresses in enumerate(moves):
        put(cluster.nodes["n3"], f"before {number}")
        cluster.rename(**addresses)
        for address in addresses.values():
            put(cluster.nodes[address], f"at once {number} {address}")
        cluster.run(12)
        assert_whole(cluster)


def test_who_moves_on_after_another_one_took_its_address_is_not_called_removed() -> None:
    """Of its addresses only that which it had left before is known by then."""
    cluster = Cluster(4, seed=1)
    cluster.run(3)
    cluster.rename(n1="m1")
    cluster.run(5)
    moved = cluster.nodes.pop("m1")
    moved.crash()
    cluster.rename(n2="m1")
    cluster.run(5)
    moved.address = "new"
    cluster.nodes["new"] = moved
    moved.boot()
    cluster.run(12)
    assert_whole(cluster)


@pytest.mark.parametrize("seed", range(4))
def test_who_moves_behind_a_split_is_one_member_after_it(seed: int) -> None:
    """A peer that knows its old address alone, and was told by nobody, brings it back nowhere."""
    cluster = Cluster(4, seed)
    cluster.run(3)
    moved, *others = (cluster.nodes[name] for name in ("n1", "n0", "n2", "n3"))
    cluster.network.cut([moved], others)
    cluster.network.cut(others, [moved])
    cluster.rename(n1="m1")
    put(moved, "alone")
    put(others[0], "without it")
    cluster.run(12)
    cluster.network.heal()
    cluster.run(12)
    assert_whole(cluster)


@pytest.mark.parametrize("address", ["n1", "new"])
def test_a_node_that_was_removed_does_not_return_by_moving(address: str) -> None:
    """It need not have heard of it: its peers have."""
    cluster = Cluster(3, seed=1)
    cluster.run(3)
    cluster.rename(n1="m1")
    cluster.run(5)
    remover, moved = cluster.nodes["n0"], cluster.nodes["m1"]
    assert remover.replica is not None
    assert remover.replica.remove_member("m1")
    cluster.run(3)
    cluster.rename(m1=address)
    cluster.run(5)
    assert [member.address for member in remover.replica.membership.others()] == ["n2"]
    assert moved.replica is not None
    assert not moved.replica.links


def test_a_copy_that_goes_by_the_same_node_id_is_kept_out() -> None:
    """Else it would take the original for its own former address, and have it leave."""
    cluster = Cluster(3, seed=1)
    cluster.run(3)
    original = cluster.nodes["n1"]
    copy = cluster.add("copy")
    assert isinstance(original.disk, MemoryDisk)
    assert isinstance(copy.disk, MemoryDisk)
    copy.disk.store = original.disk.store.copy()
    copy.boot()
    cluster.run(5)
    assert copy.replica is not None
    assert not copy.replica.links
    del cluster.nodes["copy"]
    assert_whole(cluster)
