"""The numbered behaviours and bugs that were measured in the seed, and what happens here instead.

The numbers are those of the list "Behaviours and bugs"; the table of netsplits is in
`test_seed_netsplits.py`. Most nodes share this process, each with its agent in a thread; those that hang
or die are processes of their own. Periodic comparisons are switched off (but where processes are used):
what arrives came in the live flow or when a link came up, not with a later repair.
"""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import FrozenInstanceError
from datetime import UTC, datetime, timedelta
from pathlib import Path
from signal import SIGCONT, SIGSTOP
from typing import Any

import pytest
from tests.integration.cluster import Cluster, Node, await_linked, eventually, now
from tests.integration.local import address, agree, heal, is_split, linked, open_pair, split

from canister import Canister, CannotTellError, SessionDestroyedError, Status, TooLargeError
from canister.clock import to_datetime
from canister.codec import encode_id
from canister.freshness import encode_seen
from canister.record import NodeId, make_version
from canister.replication.replica import Replica
from canister.testing.clock import ManualClock

pytestmark = pytest.mark.integration

Pair = tuple[Canister, Canister]


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    """Yield two linked nodes."""
    with open_pair(tmp_path) as pair:
        yield pair


def in_threads(count: int, work: Callable[[int], object]) -> None:
    """Run *work* in threads at once, and wait for all of them."""
    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def seconds(work: Callable[[], object]) -> float:
    """Return how long *work* takes."""
    start = time.monotonic()
    work()
    return time.monotonic() - start


def statuses(nodes: tuple[Canister, ...], id: str) -> set[Status]:
    return {node.record_status(id).status for node in nodes}


def test_01_logout_is_not_undone_by_a_read(pair: Pair) -> None:
    """A read right after a clear or a destroy finds nothing, although the peer still has the value."""
    one, two = pair
    ids = [f"s{i}" for i in range(400)]
    for id in ids:
        one.put(id, "user", "ann")
    agree(pair)
    undone = raced = 0
    for i, id in enumerate(ids):
        (one.clear if i % 2 else one.destroy)(id)
        undone += one.get(id, "user") is not None
        raced += two.get(id, "user", local=True) is not None
    assert undone == 0
    assert raced > 0
    agree(pair)
    assert [id for id in ids for node in pair if node.get(id, "user") is not None] == []


def test_01_logout_is_not_undone_by_a_read_during_a_split(pair: Pair) -> None:
    """It holds as well while the peer cannot have heard of the logout, and when it comes back."""
    one, two = pair
    for id in ("cleared", "destroyed"):
        one.put(id, "user", "ann")
    agree(pair)
    split(pair)
    one.clear("cleared")
    one.destroy("destroyed")
    for id in ("cleared", "destroyed"):
        assert two.get(id, "user") == "ann"
        assert one.get(id, "user") is None
    heal(pair)
    assert [id for id in ("cleared", "destroyed") for node in pair if node.get(id, "user")] == []


def test_02_no_clear_is_lost(pair: Pair) -> None:
    """Put and clear at full speed leave nothing alive anywhere."""
    one, two = pair
    ids = [f"s{i}" for i in range(1000)]
    for id in ids:
        one.put(id, "k", 1)
        one.clear(id)
    agree(pair)
    assert (one.num_local_sessions(), two.num_local_sessions()) == (0, 0)
    assert [id for id in ids for node in pair if node.get(id, "k") is not None] == []
    assert {status for id in ids for status in statuses(pair, id)} == {Status.CLEARED}


def test_03_no_overtaken_update_wins(pair: Pair) -> None:
    """Bursts of several writers on both nodes end alike everywhere, without a comparison."""
    one, two = pair
    ids = [f"s{i}" for i in range(100)]

    def write(writer: int) -> None:
        node = pair[writer % 2]
        for id in ids:
            for i in range(5):
                node.put(id, "k", (writer, i))

    in_threads(4, write)
    agree(pair)
    values = [one.peek(id, "k") for id in ids]
    assert values == [two.peek(id, "k") for id in ids]
    # The last write of some writer won each time, never one that was already replaced.
    assert {i for _, i in values} == {4}


def test_03_an_older_update_never_wins(pair: Pair) -> None:
    """A copy that arrives late neither overwrites a session nor brings back one that has ended."""
    one, two = pair
    ids = ("written", "cleared", "destroyed")
    for id in ids:
        two.put(id, "k", "old")
    late = [(encode_id(id), two.node.store.load(encode_id(id)).record) for id in ids]
    agree(pair)
    one.put("written", "k", "new")
    one.clear("cleared")
    one.destroy("destroyed")
    agree(pair)
    for node in pair:
        merged = node.node.store.merge([(id, record) for id, record in late if record is not None], {})
        assert merged.changed == 0
        assert node.get("written", "k") == "new"
        assert node.get("cleared", "k") is None
        assert node.get("destroyed", "k") is None
        assert node.record_status("destroyed").status is Status.DESTROYED


def test_04_a_heal_applies_clears_to_both_sides(pair: Pair) -> None:
    """Whichever node cleared during the split, and whichever begins the comparison."""
    one, two = pair
    for id in ("a", "b"):
        one.put(id, "k", 1)
    agree(pair)
    split(pair)
    one.clear("a")
    two.clear("b")
    assert (one.get("b", "k"), two.get("a", "k")) == (1, 1)
    heal(pair)
    assert [id for id in ("a", "b") for node in pair if node.get(id, "k") is not None] == []
    assert statuses(pair, "a") == statuses(pair, "b") == {Status.CLEARED}


def test_05_a_netsplit_loses_no_key(pair: Pair) -> None:
    """Keys written on different sides all survive; on the same key the later write wins."""
    one, two = pair
    one.update("s", {"shared": 0, "removed": 0, "kept": 0})
    agree(pair)
    split(pair)
    one.update("s", {"shared": 1, "first": 1})
    two.update("s", {"shared": 2, "second": 2})
    one.remove("s", "removed")
    heal(pair)
    for node in pair:
        assert node.get_data("s") == {"shared": 2, "kept": 0, "first": 1, "second": 2}


def test_06_a_join_loses_no_session(tmp_path: Path) -> None:
    """A new node gets all sessions, with writes going on and its link cut in the middle."""
    seed, settings = address(), {"digest_interval": "1h"}
    values = {f"s{i}": str(i).zfill(10_000) for i in range(4300)}  # 43 MB, which take their time
    sessions = list(values.items())
    with Canister(tmp_path / "one", listen=seed, **settings) as one:
        for id, value in sessions[:4000]:
            one.put(id, "k", value)
        with Canister(tmp_path / "two", listen=address(), seeds=[seed], **settings) as two:
            eventually(lambda: next(two.all_sessions(), None) is not None)
            two.node.isolate(on=True)
            assert 0 < two.num_local_sessions() < 4000
            for id, value in sessions[4000:4100]:
                one.put(id, "k", value)
            two.node.isolate(on=False)
            for id, value in sessions[4100:]:
                one.put(id, "k", value)
            agree((one, two))
            assert two.num_local_sessions() == 4300
            assert {id: two.peek(id, "k") for id in two.all_sessions()} == values


def test_07_a_stranger_does_not_freeze_membership(tmp_path: Path) -> None:
    """Connections that are no nodes keep nobody from joining, nor from being seen to leave."""
    seed = address()
    host, _, port = seed.rpartition(":")
    with Canister(tmp_path / "one", listen=seed) as one:
        says = [b"", b"GET / HTTP/1.1\r\n\r\n", b"CNST", b"CNST\xff\xff\xff\xff", bytes(range(256)) * 40]
        strangers = [socket.create_connection((host, int(port))) for _ in says]
        try:
            for stranger, said in zip(strangers, says, strict=True):
                stranger.sendall(said)
            with Canister(tmp_path / "two", listen=address(), seeds=[seed]) as two:
                linked((one, two))
                one.put("s", "k", 1)
                eventually(lambda: two.get("s", "k", local=True) == 1)
            eventually(lambda: is_split(one))
        finally:
            for stranger in strangers:
                stranger.close()


def test_08_a_lost_peer_is_dialed_again(tmp_path: Path) -> None:
    """A member that was not there at the start, or went away, is found by who knows it, unasked."""
    first, second = address(), address()
    with Canister(tmp_path / "one", listen=first, seeds=[second]) as one:
        one.put("s", "k", 0)
        # Each of these knows nobody: it cannot be the one who dials.
        for i in (1, 2):
            with Canister(tmp_path / f"two{i}", listen=second) as two:
                assert two.config.seeds == ()
                linked((one, two))
                eventually(lambda two=two, i=i: two.get("s", "k", local=True) == i - 1)
                two.put("s", "k", i)
                eventually(lambda i=i: one.get("s", "k", local=True) == i)
            eventually(lambda: is_split(one))


def test_09_a_hung_peer_stalls_nobody(cluster: Cluster) -> None:
    """With two peers stopped reads and writes go on; only a reader who is ahead of us waits, and once."""
    nodes = cluster.start(3)
    one = nodes[0].store
    await_linked(nodes)
    (peer, *_) = [member.node for member in one.members() if member.state == "up"]
    ahead = encode_seen((make_version(now(), NodeId(bytes.fromhex(peer))),))
    one.put("s", "k", 1)
    for node in nodes[1:]:
        node.process.signal(SIGSTOP)
    eventually(lambda: [node.process.state() for node in nodes[1:]] == ["T", "T"])

    def refused() -> None:
        with pytest.raises(CannotTellError):
            one.get("s", "k", after=ahead)

    # Both are asked at once: one remote_timeout (1 s here) in all, not one for each.
    assert seconds(refused) < 1.8
    assert max(seconds(lambda i=i: one.get(f"unknown{i}", "k")) for i in range(20)) < 0.5
    assert max(seconds(lambda: one.get("s", "unknown")) for _ in range(20)) < 0.5
    assert max(seconds(lambda i=i: one.put("s", "k", i)) for i in range(20)) < 0.5
    eventually(lambda: sorted(nodes[0].states().values()) == ["down", "down", "self"])
    assert max(seconds(lambda i=i: one.get(f"unknown{i}", "k")) for i in range(20)) < 0.5
    for node in nodes[1:]:
        node.process.signal(SIGCONT)
    await_linked(nodes)
    for node in nodes[1:]:
        eventually(lambda node=node: node.store.get("s", "k", local=True) == 19)


def test_10_expiry_is_checked_on_read(tmp_path: Path) -> None:
    """A session that is over is returned by no node, is not made fresh by a read, and needs no sweep."""
    clock = ManualClock()
    with open_pair(tmp_path, clock=clock, session_timeout="20m", touch_interval="1m") as pair:
        one, two = pair
        one.put("s", "k", 1)
        agree(pair)
        clock.advance(timedelta(minutes=21) - timedelta(microseconds=1))
        assert [node.peek("s", "k") for node in pair] == [1, 1]
        clock.advance(1)
        assert [node.get("s", "k") for node in pair] == [None, None]
        clock.advance(timedelta(minutes=4))
        assert [node.get("s", "k") for node in pair] == [None, None]
        assert [node.touch("s") for node in pair] == [False, False]
        assert [node.get_data("s") for node in pair] == [{}, {}]
        assert statuses(pair, "s") == {Status.EXPIRED}
        accessed = one.record_status("s").accessed
        assert accessed is not None
        assert accessed == two.record_status("s").accessed
        assert to_datetime(clock.now()) == accessed + timedelta(minutes=25)


def test_11_a_failure_in_the_agent_does_not_end_it(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An agent that fails starts again by itself, and sends what was written meanwhile."""
    one, two = pair
    tick, failures = Replica.tick, list[str]()

    def fail_once(self: Replica) -> None:
        if self.store.node == one.node.store.node and not failures:
            failures.append("here")
            raise RuntimeError("a fault that was planted")
        tick(self)

    monkeypatch.setattr(Replica, "tick", fail_once)
    one.put("s", "k", 1)
    eventually(lambda: failures)
    eventually(lambda: "the agent failed and starts again" in caplog.text)
    one.put("s", "k", 2)
    eventually(lambda: two.get("s", "k", local=True) == 2)
    linked(pair)


def test_11_an_unknown_call_does_not_end_the_agent(pair: Pair, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever is said on the sockets of the data directory, the agent goes on."""
    one, two = pair
    pid = one.node.status(0).pid
    for said in (b"", b"\x00", b"\x00\x00\x00\x04junk", b"\x00\x00\x00\x01\x80", b"\xff" * 64):
        with socket.socket(socket.AF_UNIX) as control:
            control.connect(str(one.node.store.files.control_socket))
            control.sendall(said)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as wake:
        wake.sendto(b"junk", str(one.node.store.files.wake_socket))
    one.put("s", "k", 1)
    eventually(lambda: two.get("s", "k", local=True) == 1)
    assert one.node.status(0).pid == pid
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


def test_11_a_killed_agent_is_replaced(cluster: Cluster) -> None:
    """When the process with the agent is killed, another one of the node takes over."""
    nodes = cluster.start(2)
    await_linked(nodes)
    first = nodes[0].process
    second = nodes[0].start()
    assert nodes[0].agent() == first.pid
    first.kill()
    nodes[0].store.put("s", "k", 1)
    eventually(lambda: nodes[0].agent() == second.pid)
    eventually(lambda: nodes[1].store.get("s", "k", local=True) == 1)


def test_12_an_aborted_write_is_nowhere(tmp_path: Path) -> None:
    """What a transaction wrote before it failed is on no node."""
    with open_pair(tmp_path, max_value=2500, max_session=3000) as pair:
        one, two = pair
        one.put("s", "k", 1)
        with pytest.raises(TooLargeError):
            one.update("s", {"k": 2, "big": b"x" * 2000, "bigger": b"x" * 2000})

        def fail(record: Any, moment: Any) -> Any:
            raise RuntimeError("a fault that was planted")

        copy = one.node.store.load(encode_id("s")).record
        with pytest.raises(RuntimeError, match="planted"):
            one.node.commit([(encode_id("t"), lambda record, moment: copy), (encode_id("u"), fail)])
        one.put("after", "k", 1)
        eventually(lambda: two.get("after", "k", local=True) == 1)
        agree(pair)
        for node in pair:
            assert sorted(map(str, node.all_sessions())) == ["after", "s"]
            assert node.get_data("s") == {"k": 1}


def test_13_a_destroyed_session_stays_away(pair: Pair) -> None:
    """Neither a read right after nor a comparison brings it back, and nobody can write to it."""
    one, _ = pair
    one.put("s", "k", 1)
    agree(pair)
    one.destroy("s")
    assert one.get("s", "k") is None
    for node in pair:
        node.resync()
    agree(pair)
    for node in pair:
        assert node.get("s", "k") is None
        assert node.record_status("s").status is Status.DESTROYED
        with pytest.raises(SessionDestroyedError):
            node.put("s", "k", 2)


def test_13_forget_is_local_and_loses_nothing(tmp_path: Path) -> None:
    """It drops one copy; till the peers have brought it back, nobody is told that it is absent."""
    with open_pair(tmp_path, when_behind="refuse") as pair:
        one, two = pair
        for id in ("read", "unread"):
            one.put(id, "k", id)
        agree(pair)
        for id in ("read", "unread"):
            assert one.forget(id)
            assert two.get(id, "k", local=True) == id

        def first_answer() -> list[str]:
            try:
                return [one.get("read", "k")]
            except CannotTellError:
                return []

        assert eventually(first_answer) == ["read"]
        eventually(lambda: one.get("unread", "k", local=True) == "unread")


def test_14_a_clear_applies_to_the_local_node_first(pair: Pair) -> None:
    """Whichever node clears or destroys, it has done so itself when the call returns, then the other has."""
    for node in pair:
        for end, status in ((node.clear, Status.CLEARED), (node.destroy, Status.DESTROYED)):
            id = f"{status}{node.node.config.listen}"
            node.put(id, "k", 1)
            agree(pair)
            end(id)
            assert node.record_status(id).status is status
            agree(pair)
            assert statuses(pair, id) == {status}


def test_15_a_touch_never_moves_back(pair: Pair) -> None:
    """A touch with an older time changes no live session, no tombstone and no unknown id, on any node."""
    one, two = pair
    for id in ("live", "cleared", "destroyed"):
        one.put(id, "k", 1)
    one.clear("cleared")
    one.destroy("destroyed")
    agree(pair)
    ids = ("live", "cleared", "destroyed", "unknown")
    before = {id: one.record_status(id) for id in ids}
    answers = {id: [node.touch(id, datetime(1970, 1, 2, tzinfo=UTC)) for node in pair] for id in ids}
    assert answers["live"] == [True, True]
    assert answers["destroyed"] == answers["unknown"] == [False, False]
    one.put("after", "k", 1)
    eventually(lambda: two.get("after", "k", local=True) == 1)
    agree(pair)
    for node in pair:
        assert {id: node.record_status(id) for id in ids} == before


def test_15_of_two_touches_the_later_access_wins(tmp_path: Path) -> None:
    """An access recorded on one side of a split is not moved back by an older one recorded after it."""
    clock = ManualClock()
    with open_pair(tmp_path, clock=clock) as pair:
        one, two = pair
        one.put("s", "k", 1)
        agree(pair)
        split(pair)
        clock.advance(timedelta(minutes=10))
        latest = to_datetime(clock.now())
        assert one.touch("s", latest)
        clock.advance(timedelta(seconds=1))
        assert two.touch("s", latest - timedelta(minutes=5))
        assert two.last_access_time("s") == latest - timedelta(minutes=5)
        heal(pair)
        assert [node.last_access_time("s") for node in pair] == [latest, latest]


def test_16_node_interval_takes_effect(cluster: Cluster, tmp_path: Path) -> None:
    """The setting is what was set, cannot be changed in vain, and decides when a peer is given up."""
    with Canister(tmp_path / "single", node_interval="3s") as single:
        assert single.config.node_interval == timedelta(seconds=3)
        with pytest.raises(FrozenInstanceError):
            single.config.node_interval = timedelta(seconds=4)
    nodes = cluster.start(2, node_interval="500ms")
    await_linked(nodes)
    stopped: Node = nodes[1]
    stopped.process.signal(SIGSTOP)
    gone = seconds(lambda: eventually(lambda: nodes[0].states()[stopped.address] == "down"))
    stopped.process.signal(SIGCONT)
    assert gone < 5  # the default is 8 s


def test_17_num_local_sessions_counts_no_tombstones(pair: Pair) -> None:
    """A cleared, a destroyed and an expired session are not counted, on any node."""
    one, two = pair
    for i in range(7):
        two.put(f"s{i}", "k", i)
    agree(pair)
    assert [node.num_local_sessions() for node in pair] == [7, 7]
    for i, end in enumerate((one.clear, one.destroy, lambda id: one.set_expiry(id, until=datetime.now(UTC)))):
        end(f"s{i}")
        agree(pair)
        assert [node.num_local_sessions() for node in pair] == [6 - i, 6 - i]
        assert [len(list(node.all_sessions())) for node in pair] == [6 - i, 6 - i]


def test_18_a_clear_of_an_unknown_session_leaves_its_mark(pair: Pair) -> None:
    """It covers what was written before and arrives later, and all its times are known."""
    one, two = pair
    split(pair)
    two.put("s", "k", 1)
    assert one.record_status("s").status is Status.UNKNOWN
    one.clear("s")
    assert one.record_status("s").status is Status.CLEARED
    heal(pair)
    for node in pair:
        assert node.get("s", "k") is None
        found = node.record_status("s")
        assert found.status is Status.CLEARED
        assert None not in found
        info = node.session_info("s")
        assert info is not None
        assert (info.data, info.cleared) == ({}, node.deleted_time("s"))
        assert node.session_info("unknown") is None
    assert one.record_status("s") == two.record_status("s")


def test_19_cleared_never_set_and_none_are_told_apart(pair: Pair) -> None:
    """A stored None is a value; a cleared session, a removed key and an unknown id are three things."""
    one, _ = pair
    missing = object()
    one.update("live", {"none": None, "removed": 1})
    one.remove("live", "removed")
    one.put("cleared", "none", None)
    one.clear("cleared")
    agree(pair)
    for node in pair:
        assert node.get("live", "none", missing) is None
        assert node.get("live", "removed", missing) is missing
        assert node.get("cleared", "none", missing) is missing
        assert node.get("unknown", "none", missing) is missing
        found = [node.record_status(id).status for id in ("live", "cleared", "unknown")]
        assert found == [Status.LIVE, Status.CLEARED, Status.UNKNOWN]
