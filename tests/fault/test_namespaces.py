"""Real networks that fail: three nodes on a host each, and what is dropped is dropped silently.

The bounds are those that the product promises; what was measured is printed.
"""

import os
import signal
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from statistics import median

import pytest
from tests.fault.namespaces import (
    HostCluster,
    HostNode,
    Load,
    NetworkError,
    decline,
    open_network,
    wait_until,
)
from tests.integration.cluster import Node, await_equal, await_linked, digests, eventually

pytestmark = pytest.mark.fault

NODE_INTERVAL = 2.0
"""What the tests set; the default is 8 seconds."""
SLACK = 1.0
"""Seconds after the node interval within which a silent peer has to be down."""
HEALED = 2.0
"""Seconds after a heal within which all nodes have to be equal."""
BLOCKED = 0.05
"""Seconds that a put may take because of a peer."""
EACH_SIDE = 500
"""Sessions that each side of a cut creates meanwhile."""
GROWTH = 50 * 1024 * 1024
"""Bytes by which a node may grow because of a peer that hangs."""

long = pytest.mark.skipif(not os.environ.get("CANISTER_LONG_FAULTS"), reason="long: set CANISTER_LONG_FAULTS")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[HostCluster]:
    """Return a cluster of three hosts without nodes; all of it ends with the test."""
    network, hosts = open_network(3)
    cluster = HostCluster(tmp_path, network, hosts)
    try:
        yield cluster
        trouble = cluster.trouble()
    finally:
        cluster.close()
        network.close()
    assert not trouble, "\n".join(trouble)


def put_on(nodes: Iterable[Node], name: str, seconds: float, value: str = "") -> list[Load]:
    """Begin to put as many sessions on each node as each side of a cut creates, spread over the time."""
    return [
        Load(node.store, f"{name}-{node.name}", EACH_SIDE / seconds, EACH_SIDE, value, limit=EACH_SIDE)
        for node in nodes
    ]


def slowest(loads: list[Load]) -> tuple[float, float]:
    """Wait until all is put; return the median and the greatest of the seconds that puts took."""
    taken = [seconds for load in loads for seconds in load.finish().taken]
    return median(taken), max(taken)


def assert_not_blocked(during: tuple[float, float], usual: tuple[float, float]) -> str:
    """Check that puts took as long as usual; return what to print."""
    told = ", ".join(f"{1000 * seconds:.2f}" for seconds in (*during, *usual))
    assert during[1] < max(BLOCKED, 2 * usual[1]), told
    return f"puts took, in ms: median, most, and both without the fault: {told}"


def await_down(pairs: list[tuple[Node, Node]], since: float, node_interval: float = NODE_INTERVAL) -> float:
    """Wait until of each pair the first calls the second down; return the seconds that the last one took."""

    def noticed() -> bool:
        return all(watcher.states()[lost.address] == "down" for watcher, lost in pairs)

    return wait_until(noticed, since, node_interval + SLACK, "the silent ones are down")


def await_healed(nodes: list[Node], since: float, deadline: float = HEALED) -> str:
    """Wait until all are equal, then until all links are up; return what to print."""
    equal = wait_until(lambda: len(set(digests(nodes))) == 1, since, deadline, "digests are equal")
    await_linked(nodes)
    return f"equal {equal:.2f} s after the heal, all links up {time.monotonic() - since:.2f} s after it"


def assert_held(nodes: list[Node], loads: list[Load]) -> None:
    """Check on every node each twentieth of the sessions that loads have put."""
    for node in nodes:
        for load in loads:
            for number in range(0, EACH_SIDE, 20):
                held = node.store.get_data(load.session(number), local=True)
                assert held == {"k": f"{number} {load.value}"}, (node.name, load.session(number))


def lacking(node: Node, load: Load) -> int:
    """Return how many of the sessions that a load has put are not here."""
    return sum(not node.store.get_data(load.session(n), local=True) for n in range(EACH_SIDE))


@pytest.mark.parametrize("seconds", [3, 15, pytest.param(60, marks=long)])
def test_a_host_without_network(cluster: HostCluster, seconds: int) -> None:
    """Both sides notice, write on as fast as ever, and are equal soon after the heal."""
    nodes = cluster.start(3)
    first, second, third = nodes
    usual = slowest(put_on([second, third], "before", min(seconds, 15)))
    await_equal(nodes)

    cluster.cut([third], [first, second])
    begun = time.monotonic()
    loads = put_on([second, third], "meanwhile", seconds * 0.9)
    noticed = await_down([(first, third), (second, third), (third, first), (third, second)], begun)
    during = slowest(loads)
    time.sleep(max(0.0, begun + seconds - time.monotonic()))
    assert lacking(third, loads[0]) == lacking(second, loads[1]) == EACH_SIDE
    healed = time.monotonic()
    cluster.network.heal()
    told = await_healed(nodes, healed)
    assert_held(nodes, loads)
    print(f"\n{seconds} s cut: noticed after {noticed:.2f} s, {told}; {assert_not_blocked(during, usual)}")


def test_a_cut_that_nobody_notices(cluster: HostCluster) -> None:
    """A cut shorter than the node interval leaves the links be; they carry on soon after it."""
    nodes = cluster.start(3, node_interval="8s")
    first, second, third = nodes
    cluster.cut([third], [first, second])
    begun = time.monotonic()
    loads = put_on([second, third], "meanwhile", 4.5)
    during = slowest(loads)
    time.sleep(max(0.0, begun + 5 - time.monotonic()))
    assert lacking(third, loads[0]) == lacking(second, loads[1]) == EACH_SIDE
    healed = time.monotonic()
    cluster.network.heal()
    told = await_healed(nodes, healed)
    assert_held(nodes, loads)
    print(f"\n5 s cut of 8 s: {told}; most put {1000 * during[1]:.2f} ms")


def test_two_hosts_that_cannot_see_each_other(cluster: HostCluster) -> None:
    """Changes cross by the third host within about the digest interval; all links return with the heal."""
    digest_interval = 2.0
    nodes = cluster.start(3, digest_interval=f"{digest_interval}s")
    _, second, third = nodes
    cluster.cut([second], [third])
    noticed = await_down([(second, third), (third, second)], time.monotonic())

    crossed: list[float] = []
    for number in range(6):
        for writer, reader in ((second, third), (third, second)):
            session, begun = f"{writer.name}-{number}", time.monotonic()
            writer.store.put(session, "k", number)
            crossed.append(
                wait_until(
                    lambda reader=reader, session=session: bool(reader.store.get_data(session, local=True)),
                    begun,
                    1.1 * digest_interval + SLACK,
                    "a change crosses",
                )
            )
    assert second.states()[third.address] == third.states()[second.address] == "down"
    healed = time.monotonic()
    cluster.network.heal()
    told = await_healed(nodes, healed)
    most = max(crossed)
    print(f"\npartial: noticed after {noticed:.2f} s; crossed in {median(crossed):.2f}, most {most:.2f} s; {told}")


@pytest.mark.parametrize("whole", [False, True], ids=["one pair", "one host"])
def test_packets_lost_one_way(cluster: HostCluster, *, whole: bool) -> None:
    """Who is heard, but hears nothing, is given up on both sides; all is made up for after the heal."""
    nodes = cluster.start(3)
    first, second, third = nodes
    deaf = [first, second] if whole else [second]
    usual = slowest(put_on([second, third], "before", 4))
    await_equal(nodes)
    cluster.cut([third], deaf, one_way=True)
    begun = time.monotonic()
    loads = put_on([second, third], "meanwhile", 4)
    pairs = [(other, third) for other in deaf] + [(third, other) for other in deaf]
    noticed = await_down(pairs, begun)
    during = slowest(loads)
    assert all(watcher.states()[lost.address] == "down" for watcher, lost in pairs)
    if whole:  # what was put before the link was given up may have arrived
        assert lacking(second, loads[1]) > EACH_SIDE / 4
    healed = time.monotonic()
    cluster.network.heal()
    told = await_healed(nodes, healed)
    assert_held(nodes, loads)
    print(f"\none way: noticed after {noticed:.2f} s, {told}; {assert_not_blocked(during, usual)}")


def test_a_slow_and_lossy_network(cluster: HostCluster) -> None:
    """With 100 ms each way and a packet in fifty lost, no link ends; a cut heals there too."""
    nodes = cluster.start(3)
    _, second, third = nodes
    try:
        cluster.network.slow_down(0.1, 0.02)
    except NetworkError as error:
        decline(error)
    ended_before = [node.logged("closed:") for node in nodes]  # links that had crossed
    loads = put_on(nodes, "slow", 4)
    usual = slowest(loads)
    ended = time.monotonic()
    equal = wait_until(lambda: len(set(digests(nodes))) == 1, ended, HEALED, "digests are equal")
    assert_held(nodes, loads)
    assert [node.logged("closed:") for node in nodes] == ended_before

    cluster.cut([third], nodes[:2])
    begun = time.monotonic()
    loads = put_on([second, third], "meanwhile", 3)
    await_down([(second, third), (third, second)], begun)
    during = slowest(loads)
    healed = time.monotonic()
    cluster.network.heal()
    told = await_healed(nodes, healed, 2 * HEALED)
    assert_held(nodes, loads)
    relayed, lost = cluster.network.relayed()
    assert lost > relayed / 100
    print(
        f"\nslow, {lost} of {lost + relayed} packets lost: equal {equal:.2f} s after the last put; after a cut "
        f"{told}; {assert_not_blocked(during, usual)}"
    )


def test_a_peer_that_hangs_under_load(cluster: HostCluster) -> None:
    """A stopped peer is given up; the others stay as fast and hardly grow; afterwards it makes up for it."""
    nodes = cluster.start(3, node_interval="8s")
    first, second, third = nodes
    healthy = [node for node in (first, second) if isinstance(node, HostNode)]
    usual = slowest([*put_on([second], "before", 15), put_much(first)])
    await_equal(nodes)

    resident = [node.resident() for node in healthy]
    peak = list(resident)
    third.process.signal(signal.SIGSTOP)
    eventually(lambda: third.process.state() == "T", 2)
    begun = time.monotonic()
    loads = put_on([second], "meanwhile", 15)
    much = put_much(first)
    noticed = await_down([(first, third), (second, third)], begun, 8)
    while time.monotonic() - begun < 15:
        peak = [max(was, node.resident()) for was, node in zip(peak, healthy, strict=True)]
        time.sleep(0.1)
    during = slowest([*loads, much])
    assert third.process.state() == "T"
    assert first.logged("bytes are waiting for it")  # more than the network holds was waiting
    growth = [most - was for most, was in zip(peak, resident, strict=True)]
    assert max(growth) < GROWTH
    await_equal([first, second], HEALED)

    continued = time.monotonic()
    third.process.signal(signal.SIGCONT)
    told = await_healed(nodes, continued)
    assert_held(nodes, loads)
    grown = ", ".join(f"{size / 1e6:.1f}" for size in growth)
    print(
        f"\nhung peer: noticed after {noticed:.2f} s, grown by {grown} MB, {told}; "
        f"{assert_not_blocked(during, usual)}"
    )


def put_much(node: Node) -> Load:
    """Begin to put 80 MB, into few sessions, within the default node interval."""
    return Load(node.store, f"much-{node.name}", pace=80, count=5, value="x" * 150_000, limit=540)
