"""Requests of a web application, each loading its session, one in ten writing it.

What is compared is the processor time of the application's process: that of Redis itself is not counted.
Each framework is measured without sessions, with its own session machinery and nothing behind it, with
Canister and with rivals; then once more with a page that computes for a millisecond.
"""

from collections.abc import Mapping
from statistics import median

from benchmarks.bench import Bench, Figures, Turn
from benchmarks.results import Result
from benchmarks.side import PYTHON, Side

_REQUESTS = 500
_NOOP = "its session machinery, nothing behind it"


def starlette(bench: Bench) -> list[Result]:
    """What sessions add to a handler of Starlette."""
    rivals = {"starsessions": "starsessions on Redis", "signed": "Starlette's signed cookies"}
    return _framework(bench, "starlette", rivals)


def django(bench: Bench) -> list[Result]:
    """What sessions add to a view of Django behind its session middleware."""
    return _framework(bench, "django", {k: f"Django's {k}" for k in ("db", "cached_db", "signed_cookies")})


def flask(bench: Bench) -> list[Result]:
    """What sessions add to a view of Flask."""
    return _framework(bench, "flask", {"redis": "Flask-Session on Redis", "cookie": "Flask's signed cookies"})


def _framework(bench: Bench, name: str, rivals: Mapping[str, str]) -> list[Result]:
    script = f"with_{name}"
    sides: dict[str, Side] = {}
    for kind, title in (("none", "none"), ("canister", "canister"), ("noop", _NOOP)):
        sides[title] = bench.script(script, PYTHON, kind=kind, path=str(bench.fresh(kind)))
    if bench.has_rivals:
        port = bench.redis_port()
        for kind, title in rivals.items():
            sides[title] = bench.rival(name, kind=kind, port=port)
    floor = bench.floor(sessions=bench.size(2_000))
    floor.do("fill")
    turns = _turns(bench, sides)
    turns["floor"] = lambda: floor.do("request", count=bench.size(5_000))
    figures = bench.compare(turns)
    rows = [_added(name, figures, title) for title in sides if title not in ("none", "canister")]
    return [*rows, _working(bench, name, script)]


def _added(name: str, figures: Mapping[str, Figures], rival: str) -> Result:
    """Return what Canister adds to a request beside what a rival adds."""
    base = median(figures["none"]["cpu"])
    ours, theirs = ([max(0.1, cpu - base) for cpu in figures[side]["cpu"]] for side in ("canister", rival))
    row = Result(name, f"{name.capitalize()} request: what its session adds", "us CPU", ours, rival, theirs)
    row.floor, row.wanted = figures["floor"]["cpu"], "3 x the floor"
    return row


def _working(bench: Bench, name: str, script: str) -> Result:
    """Return what a page that computes for a millisecond takes with and without sessions."""
    sides = {
        kind: bench.script(script, PYTHON, kind=kind, path=str(bench.fresh(kind)), works=True)
        for kind in ("none", "canister")
    }
    figures = bench.compare(_turns(bench, sides))
    operation = f"{name.capitalize()} request with 1 ms of work"
    row = Result(name, operation, "us CPU", figures["canister"]["cpu"], "no sessions", figures["none"]["cpu"])
    row.wanted = "0.91"
    return row


def _turns(bench: Bench, sides: Mapping[str, Side]) -> dict[str, Turn]:
    count = bench.size(_REQUESTS)
    return {title: (lambda side=side: side.do("requests", count=count)) for title, side in sides.items()}
