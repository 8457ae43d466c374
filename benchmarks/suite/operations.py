"""One caller, one node that is alone: reads and writes beside Redis and diskcache."""

from benchmarks.bench import Bench, Turn
from benchmarks.nodes import await_equal, cluster
from benchmarks.results import Result
from benchmarks.side import Side

_SESSIONS = 2_000
_WANTED = {
    "get": "8 x Redis, 2 x the floor",
    "load": "8 x Redis, 2 x the floor",
    "put": "2 x Redis, 1.5 x the floor",
}


def get(bench: Bench) -> list[Result]:
    """Read one key of a session."""
    results = _compare(bench, "get", "get, one key of 200 bytes", 5_000)
    floor = bench.floor(sessions=bench.size(_SESSIONS))
    figures = bench.compare({"dict": lambda: floor.do("get_dict", count=bench.size(5_000))})
    for result in results[:1]:
        dict_row = Result("get", "get, one key of 200 bytes", "us", result.ours, "a dict and decoding")
        dict_row.theirs = figures["dict"]["p50"]
        results.append(dict_row)
    return results


def load(bench: Bench) -> list[Result]:
    """Read a session of ten keys."""
    return _compare(bench, "load", "load, 10 keys of 100 bytes", 5_000)


def get_unknown(bench: Bench) -> list[Result]:
    """Read what is not there, alone and in a healthy cluster; beside rivals and beside what is there."""
    results = _compare(bench, "get_unknown", "get of an unknown id", 5_000)
    sessions = bench.size(_SESSIONS)
    alone = bench.canister(bench.fresh("node"), sessions=sessions)
    alone.do("fill")
    nodes = cluster(bench, 3)
    member = nodes[0].worker(sessions)
    member.do("fill")
    await_equal(nodes)
    results.append(_beside_hits(bench, alone, "get of an unknown id, alone"))
    results.append(_beside_hits(bench, member, "get of an unknown id, one of 3 nodes"))
    return results


def _beside_hits(bench: Bench, side: Side, operation: str) -> Result:
    count = bench.size(5_000)
    figures = bench.compare({name: _turn(side, name, count) for name in ("get", "get_unknown")})
    ours, hits = figures["get_unknown"]["p50"], figures["get"]["p50"]
    return Result("get_unknown", operation, "us", ours, "a hit", hits, wanted="a hit")


def put(bench: Bench) -> list[Result]:
    """Write one key."""
    return _compare(bench, "put", "put, one key of 200 bytes", 2_000)


def update(bench: Bench) -> list[Result]:
    """Write three keys in one transaction."""
    return _compare(bench, "update", "update of 3 keys of 200 bytes", 2_000)


def _compare(bench: Bench, name: str, operation: str, count: int) -> list[Result]:
    sessions, count = bench.size(_SESSIONS), bench.size(count)
    sides = {
        "canister": bench.canister(bench.fresh("node"), sessions=sessions),
        "floor": bench.floor(sessions=sessions),
    }
    if bench.has_rivals:
        sides["Redis"] = bench.rival("redis", port=bench.redis_port(), sessions=sessions)
        if name != "update":
            sides["diskcache"] = bench.rival("diskcache", sessions=sessions)
    for side in sides.values():
        side.do("fill_wide" if name == "load" else "fill")
    turns = {title: _turn(side, name, count) for title, side in sides.items()}
    figures = bench.compare(turns)
    rivals = [title for title in sides if title not in ("canister", "floor")]
    return [
        Result(
            name,
            operation,
            "us",
            figures["canister"]["p50"],
            rival,
            figures[rival]["p50"] if rival else [],
            figures["floor"]["p50"],
            wanted=_WANTED.get(name, "") if rival in ("Redis", "") else "",
        )
        for rival in rivals or [""]
    ]


def _turn(side: Side, name: str, count: int) -> Turn:
    return lambda: side.do(name, count=count)
