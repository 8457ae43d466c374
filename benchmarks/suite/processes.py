"""Several processes of one node at once, beside Redis with as many clients."""

from collections.abc import Mapping, Sequence

from benchmarks.bench import Bench, Turn
from benchmarks.nodes import cluster
from benchmarks.results import Result
from benchmarks.side import Side

_SESSIONS = 10_000
_PROCESSES = 4


def mixed(bench: Bench) -> list[Result]:
    """Nine loads to one put, from four processes."""
    sessions, seconds = bench.size(_SESSIONS), bench.seconds(2)
    path = bench.fresh("node")
    ours = [bench.canister(path, sessions=sessions) for _ in range(_PROCESSES)]
    ours[0].do("fill")
    floor = _floor(bench, sessions)
    turns = {
        "canister": lambda: {"rate": _together(ours, "mixed_for", seconds)},
        "floor": _tidied(floor, lambda: {"rate": _together(floor, "mixed_for", seconds)}),
    }
    if bench.has_rivals:
        port = bench.redis_port()
        theirs = [bench.rival("redis", port=port, sessions=sessions) for _ in range(_PROCESSES)]
        theirs[0].do("fill_sessions")
        turns["Redis"] = lambda: {"rate": _together(theirs, "mixed_for", seconds)}
    figures = bench.compare(turns)
    row = Result("mixed", "4 processes, 90 % loads 10 % puts", "1/s", figures["canister"]["rate"])
    row.better, row.wanted, row.floor = "more", "5 x Redis", figures["floor"]["rate"]
    if bench.has_rivals:
        row.rival, row.theirs = "Redis", figures["Redis"]["rate"]
    return [row]


def worst(bench: Bench) -> list[Result]:
    """The slowest of many puts by four writers at half of what they could do."""
    path = bench.fresh("node")
    ours = [bench.canister(path, sessions=bench.size(_SESSIONS)) for _ in range(_PROCESSES)]
    ours[0].do("fill")
    rate = _together(ours, "put_for", bench.seconds(2)) / 2
    floor = _floor(bench, bench.size(_SESSIONS))
    turns = {
        "canister": lambda: _paced(ours, bench.size(10_000), rate),
        "floor": _tidied(floor, lambda: _paced(floor, bench.size(10_000), rate)),
    }
    if bench.has_rivals:
        port = bench.redis_port()
        theirs = [bench.rival("redis", port=port, sessions=bench.size(_SESSIONS)) for _ in range(_PROCESSES)]
        turns["Redis"] = lambda: _paced(theirs, bench.size(10_000), rate)
    figures = bench.compare(turns)
    rows: list[Result] = []
    for figure, limit in (("p50", ""), ("p999", "5"), ("max", "20")):
        operation = f"put by 4 writers, {rate:,.0f}/s in all, {figure}"
        row = Result("worst", operation, "ms", [us / 1000 for us in figures["canister"][figure]])
        row.wanted = limit and f"{limit} ms"
        row.floor = [us / 1000 for us in figures["floor"][figure]]
        if bench.has_rivals:
            row.rival, row.theirs = "Redis", [us / 1000 for us in figures["Redis"][figure]]
        rows.append(row)
    return rows


def peers(bench: Bench) -> list[Result]:
    """What two live peers on the same cores leave of the rate of puts."""
    sessions, seconds = bench.size(_SESSIONS), bench.seconds(2)
    alone = bench.canister(bench.fresh("node"), sessions=sessions)
    linked = cluster(bench, 3)[0].worker(sessions)
    linked.do("fill")
    alone.do("fill")
    figures = bench.compare(
        {
            "linked": lambda: linked.do("put_for", seconds=seconds),
            "alone": lambda: alone.do("put_for", seconds=seconds),
        }
    )
    row = Result("peers", "puts with 2 live peers on the same cores", "1/s", figures["linked"]["rate"])
    row.rival, row.theirs, row.better = "alone", figures["alone"]["rate"], "more"
    row.wanted = "0.6 x alone, 9,200/s"
    return [row]


def _floor(bench: Bench, sessions: int) -> list[Side]:
    """Return as many processes of a floor, which takes turns by a lock and never moves its log."""
    path = bench.fresh("floor")
    sides = [bench.floor(sessions=sessions, path=path) for _ in range(_PROCESSES)]
    sides[0].do("fill")
    return sides


def _tidied(sides: Sequence[Side], turn: Turn) -> Turn:
    """Let the processes of a floor begin each turn with a short log."""

    def tidied() -> Mapping[str, float]:
        sides[0].do("tidy")
        return turn()

    return tidied


def _together(sides: Sequence[Side], operation: str, seconds: float) -> float:
    """Have all sides do something at once; return how often a second in all."""
    for side in sides:
        side.begin(operation, seconds=seconds)
    return sum(side.end()["rate"] for side in sides)


def _paced(sides: Sequence[Side], count: int, rate: float) -> dict[str, float]:
    """Put from all sides at once; return the worst of their figures, and the middle of their medians."""
    for side in sides:
        side.begin("put_paced", count=count // len(sides), rate=rate / len(sides))
    figures = [side.end() for side in sides]
    return {name: max(figure[name] for figure in figures) for name in ("p50", "p999", "max")}
