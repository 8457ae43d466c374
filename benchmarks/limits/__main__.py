"""``python -m benchmarks.limits``: measure, print what came of it, keep it, draw it."""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.environments import python_of
from benchmarks.limits import mesh, redis_cluster
from benchmarks.limits.points import Point, table
from benchmarks.limits.simulated import simulated
from benchmarks.machine import describe
from benchmarks.redis_server import RedisCluster

PARTS = ("mesh", "simulated", "redis")


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what was asked for."""
    options = _parser().parse_args(arguments)
    points = _kept(options.kept) if options.kept else _measured(options)
    print(table(points))
    if options.plots is not None:
        draw(points, options.plots)
    return 0


def _kept(files: Sequence[Path]) -> list[Point]:
    """Return what was kept; of what was measured twice the later one."""
    found = [Point(**point) for file in files for point in json.loads(file.read_text())["points"]]
    return list({point._replace(value=0.0): point for point in found}.values())


def _measured(options: argparse.Namespace) -> list[Point]:
    about = describe()
    points: list[Point] = []
    with Bench(turns=1, scale=1, rivals=True) as bench:
        for found in _measure(bench, options):
            points += found
            print(table(found), file=sys.stderr, flush=True)
    about["load at the end"] = f"{os.getloadavg()[0]:.1f}"
    print("\n".join(f"{what}: {value}" for what, value in about.items()), end="\n\n")
    if options.json is not None:
        kept = {"about": about, "points": [point._asdict() for point in points]}
        options.json.write_text(json.dumps(kept, indent=1) + "\n")
    return points


def draw(points: Sequence[Point], folder: Path) -> None:
    """Draw the curves, with matplotlib in an environment of its own."""
    script = Path(__file__).with_name("draw.py")
    told = json.dumps([point._asdict() for point in points])
    subprocess.run([python_of("plots"), script, folder], input=told, text=True, check=True)


def _measure(bench: Bench, options: argparse.Namespace) -> Iterator[list[Point]]:
    parts = options.only or PARTS
    if "simulated" in parts:
        for count in options.simulated:
            yield simulated(count, options.writes // 100)
    if "mesh" in parts:
        for count in options.nodes:
            yield mesh.by_nodes(bench, count, options.seconds, options.writes)
        for sessions in options.sessions:
            yield mesh.by_sessions(bench, sessions)
        yield mesh.by_sessions(bench, options.sessions[0], mesh.LONG_VALUE)
    if "redis" in parts:
        yield from _measure_redis(bench, options)


def _measure_redis(bench: Bench, options: argparse.Namespace) -> Iterator[list[Point]]:
    servers = RedisCluster(bench.fresh("redis-cluster"))
    try:
        yield redis_cluster.idle(servers, options.seconds)
        for count in options.nodes:
            yield redis_cluster.by_clients(bench, servers, count, options.writes)
    finally:
        servers.close()
    for sessions in options.sessions:
        yield redis_cluster.by_sessions(bench, sessions)
    yield redis_cluster.by_sessions(bench, options.sessions[0], mesh.LONG_VALUE)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="benchmarks.limits", description="What nodes and sessions cost.")
    parser.add_argument("--only", action="append", choices=PARTS, help="may be given again")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep what was measured")
    parser.add_argument(
        "--kept", type=Path, nargs="+", metavar="FILE", help="take what was kept before, and measure nothing"
    )
    parser.add_argument("--plots", type=Path, metavar="FOLDER", help="draw the curves, with matplotlib")
    numbers: list[tuple[str, list[int], str]] = [
        ("--nodes", [1, 2, 3, 5, 8], "sizes of real clusters, and numbers of clients of Redis"),
        ("--simulated", [3, 8, 20, 30, 60, 100], "sizes of simulated clusters"),
        ("--sessions", [10_000, 100_000, 1_000_000], "how many sessions"),
    ]
    for name, default, about in numbers:
        parser.add_argument(name, type=int, nargs="+", default=default, metavar="N", help=about)
    parser.add_argument("--seconds", type=float, default=30.0, help="how long clusters are watched idle")
    parser.add_argument("--writes", type=int, default=5_000, help="writes of each measurement")
    return parser


if __name__ == "__main__":
    sys.exit(main())
