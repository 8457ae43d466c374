"""The measurements of limits run with tiny numbers, and what `canister plan` says is near to them."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from benchmarks.limits.__main__ import main
from benchmarks.limits.points import Point
from tests.redis_servers import need_redis

from canister.cli.sizing import MEASURED, MeshPlan, RedisPlan, Site, plan_mesh, plan_redis

ROOT = Path(__file__).parents[2]
SESSIONS = 2_000
TINY = ["--nodes", "3", "--simulated", "3", "12", "--sessions", str(SESSIONS), "--seconds", "12"]
"""Idle, 12 seconds hold one comparison of each pair of nodes or two: they are 10 apart."""

Measured = Callable[..., float]

pytestmark = pytest.mark.integration


def measure(folder: Path, *parts: str) -> Measured:
    """Run the measurements; return what finds one."""
    if shutil.which("ss") is None:
        pytest.skip("ss is not installed (Debian: iproute2)")
    kept = folder / "points.json"
    only = [word for part in parts for word in ("--only", part)]
    command = [sys.executable, "-m", "benchmarks.limits", *TINY, "--writes", "300", *only, "--json", kept]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    points = json.loads(kept.read_text())["points"]
    assert all(f"| {point['engine']} | {point['figure']} |" in ran.stdout for point in points)

    def value(engine: str, figure: str, **wanted: int) -> float:
        wanted = {"size": 200, **wanted}
        fits = {"engine": engine, "figure": figure, **wanted}
        found: list[dict[str, Any]] = [p for p in points if fits.items() <= p.items()]
        assert len(found) == 1, (fits, found)
        return float(found[0]["value"])

    return value


def mesh_plan(**changes: float) -> MeshPlan:
    return plan_mesh(Site(3, SESSIONS, 0, 200)._replace(**changes))


def redis_plan(**changes: float) -> RedisPlan:
    return plan_redis(Site(3, SESSIONS, 0, 200)._replace(**changes))


def near(measured: float, planned: float, factor: float) -> bool:
    return measured / factor <= planned <= measured * factor


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Measured:
    return measure(tmp_path_factory.mktemp("mesh"), "mesh", "simulated")


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Measured:
    need_redis()
    return measure(tmp_path_factory.mktemp("redis"), "redis")


@pytest.mark.parametrize("nodes", [3, 12])
def test_the_network_of_the_mesh_is_as_simulated(mesh: Measured, nodes: int) -> None:
    """The simulator counts exactly, so the model must be close."""
    quiet = mesh_plan(nodes=nodes).node.network
    assert near(mesh("mesh, simulated", "idle, network of a node", nodes=nodes), quiet, 1.1)
    each = (mesh_plan(nodes=nodes, writes_per_second=nodes).node.network - quiet) / 2 / (nodes - 1)
    assert near(mesh("mesh, simulated", "a write, network to each other node", nodes=nodes), each, 1.1)


def test_real_nodes_are_as_planned(mesh: Measured) -> None:
    """Bytes are within a factor of two, those of a few seconds idle within three."""
    plan = mesh_plan()
    assert near(mesh("mesh", "memory", sessions=SESSIONS), plan.node.memory / 1e6, 2)
    assert near(mesh("mesh", "disk", sessions=SESSIONS), plan.node.disk / 1e6, 2)
    assert near(mesh("mesh", "idle, network of a node", nodes=3), plan.node.network, 3)
    written = (mesh_plan(writes_per_second=3).node.network - plan.node.network) / 4
    assert near(mesh("mesh", "a write, network to each other node", nodes=3), written, 2)


def test_processor_times_are_in_proportion(mesh: Measured) -> None:
    """Times differ from machine to machine; what one part takes of the others' does so less."""
    writing = mesh("mesh", "a write, its process", nodes=3)
    applying = mesh("mesh", "a write, each other agent", nodes=3)
    planned = MEASURED["mesh.write.apply"].value / MEASURED["mesh.write.process"].value
    assert near(applying / writing, planned, 3)


def test_a_redis_cluster_is_as_planned(redis: Measured) -> None:
    """What a server holds and what it sends and receives is within a factor of two."""
    plan = redis_plan()
    assert near(redis("Redis Cluster", "memory of a master", sessions=SESSIONS), plan.server.memory / 1e6, 2)
    assert near(redis("Redis Cluster", "disk of a master", sessions=SESSIONS), plan.server.disk / 1e6, 2)
    assert near(redis("Redis Cluster", "idle, network of a server"), plan.server.network, 3)
    busy = redis_plan(writes_per_second=3)
    servers = (busy.server.network - plan.server.network) * 2
    assert near(redis("Redis Cluster", "a write, network of all servers", nodes=3), servers, 2)
    assert near(redis("Redis Cluster", "a write, network of its process", nodes=3), busy.node.network, 2)


def test_of_what_was_kept_twice_the_later_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    point = Point("mesh", "disk", "MB", 1234.0, 1, 10)
    files = [tmp_path / "a.json", tmp_path / "b.json"]
    for file, value in zip(files, (1111.0, 2222.0), strict=True):
        file.write_text(json.dumps({"points": [point._replace(value=value)._asdict()]}))
    assert main(["--kept", *map(str, files)]) == 0
    printed = capsys.readouterr().out
    assert "2,222" in printed
    assert "1,111" not in printed
