"""How cost grows: with the sessions of a node, the keys of a session, the nodes, and the writers."""

from benchmarks.bench import Bench
from benchmarks.nodes import cluster
from benchmarks.results import Result

_KEYS = (1, 3, 10, 30, 100)
_BY_KEYS = {"load": "load, by keys of 100 bytes", "put_key": "put of one key, by keys of 100 bytes"}


def growth(bench: Bench) -> list[Result]:
    """Measure one thing after the other, each at several sizes."""
    return [*_with_sessions(bench), *_with_keys(bench), *_with_nodes(bench), *_with_writers(bench)]


def _with_sessions(bench: Bench) -> list[Result]:
    rows: list[Result] = []
    for sessions in map(bench.size, bench.counts):
        side = bench.canister(bench.fresh("node"), sessions=sessions)
        side.do("fill")
        count = bench.size(3_000)
        # Each turn takes other sessions, which the process has not read before.
        for operation in ("get", "put"):
            taken = [
                side.do(operation, count=count, begin=turn * count)["p50"] for turn in range(bench.turns)
            ]
            rows.append(_row(f"{operation}, by sessions", "us", sessions, taken))
    return rows


def _with_keys(bench: Bench) -> list[Result]:
    rows: list[Result] = []
    side = bench.canister(bench.fresh("node"), sessions=bench.size(200))
    for keys in _KEYS:
        side.do("fill_wide", keys=keys)
        for operation, title in _BY_KEYS.items():
            taken = [side.do(operation, count=bench.size(1_000))["p50"] for _ in range(bench.turns)]
            rows.append(_row(title, "us", keys, taken))
    return rows


def _with_nodes(bench: Bench) -> list[Result]:
    rows: list[Result] = []
    for nodes in (1, 2, 3, 4):
        side = cluster(bench, nodes)[0].worker(bench.size(2_000))
        side.do("fill")
        rates = [side.do("put_for", seconds=bench.seconds(1))["rate"] for _ in range(bench.turns)]
        rows.append(_row("puts of one process, by nodes on the same cores", "1/s", nodes, rates))
    return rows


def _with_writers(bench: Bench) -> list[Result]:
    path = bench.fresh("node")
    sides = [bench.canister(path, sessions=bench.size(2_000)) for _ in range(4)]
    sides[0].do("fill")
    rows: list[Result] = []
    for writers in (1, 2, 4):
        rates: list[float] = []
        for _ in range(bench.turns):
            for side in sides[:writers]:
                side.begin("put_for", seconds=bench.seconds(1))
            rates.append(sum(side.end()["rate"] for side in sides[:writers]))
        rows.append(_row("puts of a node, by writing processes", "1/s", writers, rates))
    return rows


def _row(operation: str, unit: str, at: float, ours: list[float]) -> Result:
    return Result("growth", operation, unit, ours, at=at)
