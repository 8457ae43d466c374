"""Moving the sessions of a site that is in use, either way, one process after the other."""

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.integration.cluster import eventually
from tests.integration.moving_site import ROOT, SPREADING, Crowd, Site, running_site
from tests.integration.test_cli_kit import CANISTER
from tests.redis_servers import RedisServer, running_redis

from canister import Canister
from canister.codec import encode_id
from canister.migration.board import Board
from canister.migration.copying import content_digest

pytestmark = pytest.mark.integration

HOSTS = 2
CLIENTS = 4
OTHERS = 2000
"""Sessions that nobody uses while they move."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with running_redis(tmp_path / "redis") as server:
        yield server


@pytest.fixture
def site(tmp_path: Path, server: RedisServer) -> Iterator[Site]:
    with running_site(tmp_path, server.url, HOSTS) as site:
        yield site


def migrate(places: tuple[str, str], *words: str) -> dict[str, Any]:
    """Run the command; return what it tells."""
    done = subprocess.run(
        [*CANISTER, "migrate", *places, *words, "--json"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def fill(place: str, settings: dict[str, Any]) -> None:
    """Put sessions that are just there."""
    with Canister(place, agent=False, **settings) as canister:
        for number in range(OTHERS):
            canister.put(f"other-{number}", "n", number)


def broken_off_copy(places: tuple[str, str], url: str) -> int:
    """Begin a copy, kill it (-9) in the middle, and return how many sessions it has told to be carried."""
    board = Board(url, "canister", 5)
    with subprocess.Popen([*CANISTER, "migrate", *places, "copy", "--json"], cwd=ROOT) as copying:
        eventually(lambda: board.read().position, 30, "a page was copied")
        copying.send_signal(signal.SIGKILL)
        assert copying.wait(20) == -signal.SIGKILL
    copied = board.read().copied
    board.close()
    return copied


def digest(canister: Canister) -> int:
    """Return the digest of all live sessions that an engine holds."""
    now, whole = canister.engine.clock.now(), 0
    for session in canister.all_sessions():
        encoded = encode_id(session)
        whole ^= content_digest(encoded, canister.engine.store.load(encoded).record, now)
    return whole


@pytest.mark.parametrize("way", [("mesh", "redis"), ("redis", "mesh")], ids=["to redis", "to the mesh"])
def test_a_site_in_use_moves(way: tuple[str, str], site: Site, server: RedisServer) -> None:
    """Nobody is logged out, nothing that was told to be stored is missing, nobody who left is back."""
    source, target = way
    data = {"mesh": str(site.hosts[0].data), "redis": server.url}
    places = (data[source], data[target])
    site.deploy(source)
    fill(data[source], site.hosts[0].mesh if source == "mesh" else {})
    crowd = Crowd(site, CLIENTS)
    crowd.start()
    try:
        crowd.await_more()
        migrate(places, "begin")
        site.deploy(source, migrate_to=target)
        crowd.await_more()
        migrate(places, "switch")
        crowd.await_more()
        carried = broken_off_copy(places, server.url)
        crowd.await_more()
        assert migrate(places, "copy")["carried"] > carried
        crowd.await_more()
        told = migrate(places, "finish")
        assert told["digest_of_both"] == told["digest_of_target"]
        assert told["sessions"] >= OTHERS
        crowd.await_more()
        site.deploy(target)
        crowd.await_more()
    finally:
        crowd.stop()
    failures = crowd.failures()
    assert failures == []
    check_afterwards(crowd, data[target], site.hosts[0].mesh if target == "mesh" else {})


def check_afterwards(crowd: Crowd, place: str, settings: dict[str, Any]) -> None:
    """See that everybody's sessions are as they must be, and that there are no others."""
    time.sleep(SPREADING)
    live = 0
    for client in crowd.clients:
        assert client.ended
        if client.logged_in:
            client.check()
            live += 1
        client.check_ended()
    failures = crowd.failures()
    assert failures == []
    with Canister(place, agent=False, **settings) as canister:
        assert canister.num_local_sessions() == OTHERS + live
        assert [canister.get(f"other-{n}", "n") for n in range(OTHERS)] == list(range(OTHERS))
