"""A full disk, a real one: a small file system in memory."""

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.cluster import Cluster, await_equal, eventually

from canister import Canister, DiskFullError
from canister.store.cache import FILE_BYTES

pytestmark = pytest.mark.fault

ROOM = 3 * 1024 * 1024
SIZE = ROOM + FILE_BYTES
FULL = 4.0
"""Seconds for which the disk stays full: the agent has work that writes every second."""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Return a directory on a disk with 3 MiB for what is stored."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting a small file system needs root")
    path = tmp_path / "disk"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(path)]
    mounted = subprocess.run(command, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"mounting a small file system is not permitted: {mounted.stderr.strip()}")
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


@pytest.fixture
def cluster(small_disk: Path, cluster: Cluster) -> Cluster:
    """Return a cluster that ends before its disk does."""
    return cluster


def test_a_full_disk_loses_nothing(cluster: Cluster, small_disk: Path) -> None:
    """Puts on a full disk raise DiskFullError, reads go on; with space again all goes on, nothing is lost."""
    full = cluster.add(path=small_disk / "node")
    full.log_file = small_disk.with_name("full.log")
    full.stderr_file = small_disk.with_name("full.stderr")
    full.start()
    peer = cluster.add(seeds=[full])
    peer.start()
    eventually(lambda: full.states().get(peer.address) == "up")

    acknowledged: dict[str, int] = {}
    ballast = small_disk / "ballast"

    def put_until_full() -> None:
        for number in range(len(acknowledged), 100_000):
            full.store.put(f"s-{number}", "k", number)
            acknowledged[f"s-{number}"] = number

    ballast.write_bytes(b"x" * (ROOM // 2))
    with pytest.raises(DiskFullError, match="free some space"):
        put_until_full()
    assert acknowledged
    for id, number in acknowledged.items():
        assert full.store.peek(id, "k") == number
    peer.store.put("meanwhile", "k", "from the peer" * 1000)
    kept: dict[str, int] = {}  # a checkpoint may make room for one more now and then
    refused = 0
    end = time.monotonic() + FULL
    while time.monotonic() < end:
        try:
            full.store.update("still", {"full": refused, "ballast": "x" * 10_000})
            kept["full"] = refused
        except DiskFullError:
            refused += 1
        assert full.store.get("s-0", "k") == 0
        assert peer.store.get("meanwhile", "k")
        time.sleep(0.05)

    assert refused > FULL
    assert full.store.get("still", "full") == kept.get("full")
    assert full.open().get_data("s-0") == {"k": 0}  # a process that starts meanwhile can read too

    ballast.unlink()
    eventually(lambda: full.states()[peer.address] == "up", 10)
    full.store.put("after", "k", "space again")
    acknowledged_now = {id: {"k": number} for id, number in acknowledged.items()}
    await_equal([full, peer])
    for node in (full, peer):
        for id, data in acknowledged_now.items():
            assert node.store.get_data(id, local=True) == data
        assert node.store.get_data("after", local=True) == {"k": "space again"}
        assert node.store.get_data("meanwhile", local=True) == {"k": "from the peer" * 1000}


def test_opening_on_a_full_disk_says_so(small_disk: Path) -> None:
    """A node opened on a full disk when nobody else has it open raises DiskFullError, not a riddle."""
    path = small_disk / "node"
    with Canister(path) as store:
        store.put("s", "k", 1)
    ballast = small_disk / "ballast"
    with contextlib.suppress(OSError):
        ballast.write_bytes(bytes(SIZE))
    assert os.statvfs(small_disk).f_bavail == 0
    with pytest.raises(DiskFullError, match="free some space"):
        Canister(path)
    ballast.unlink()
    with Canister(path) as store:
        assert store.get("s", "k") == 1
