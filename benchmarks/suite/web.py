"""Requests of a web application, each loading its session, one in ten writing it.

What is compared is the processor time of the application's process: that of Redis itself is not counted.
"""

from collections.abc import Mapping
from statistics import median

from benchmarks.bench import Bench, Turn
from benchmarks.results import Result
from benchmarks.side import PYTHON, Side

_REQUESTS = 500


def starlette(bench: Bench) -> list[Result]:
    """What sessions add to an empty handler of Starlette; the handler without any is taken off."""
    ours = {
        kind: bench.script("with_starlette", PYTHON, kind=kind, path=str(bench.fresh("node")))
        for kind in ("none", "canister")
    }
    sides = dict(ours)
    if bench.has_rivals:
        port = bench.redis_port()
        for kind, title in (
            ("starsessions", "starsessions on Redis"),
            ("signed", "Starlette's signed cookies"),
        ):
            sides[title] = bench.rival("starlette", kind=kind, port=port)
    return _added(bench, "starlette", "Starlette request: what its session adds", sides)


def sessions(bench: Bench) -> list[Result]:
    """Load and commit of a session without a framework, beside those of Django."""
    sides = {"canister": bench.script("with_manager", PYTHON, path=str(bench.fresh("node")))}
    if bench.has_rivals:
        port = bench.redis_port()
        for kind in ("db", "cached_db", "signed_cookies"):
            sides[f"Django's {kind}"] = bench.rival("django", kind=kind, port=port)
    figures = bench.compare(_turns(bench, sides))
    operation = "session loaded, saved one time in ten"
    return [
        Result("sessions", operation, "us CPU", figures["canister"]["cpu"], title, figures[title]["cpu"])
        for title in sides
        if title != "canister"
    ] or [Result("sessions", operation, "us CPU", figures["canister"]["cpu"])]


def flask(bench: Bench) -> list[Result]:
    """What sessions add to an empty view of Flask, beside what the manager takes."""
    sides = {"canister": bench.script("with_manager", PYTHON, path=str(bench.fresh("node")))}
    if bench.has_rivals:
        port = bench.redis_port()
        for kind, title in (
            ("none", "none"),
            ("redis", "Flask-Session on Redis"),
            ("cookie", "signed cookies"),
        ):
            sides[title] = bench.rival("flask", kind=kind, port=port)
    figures = bench.compare(_turns(bench, sides))
    ours = figures["canister"]["cpu"]
    operation = "session of a request; the rival's is what Flask takes longer with it"
    rows = [
        Result(
            "flask", operation, "us CPU", ours, title, _less(figures[title]["cpu"], figures["none"]["cpu"])
        )
        for title in sides
        if title not in ("canister", "none")
    ]
    return rows or [Result("flask", operation, "us CPU", ours)]


def _added(bench: Bench, name: str, operation: str, sides: Mapping[str, Side]) -> list[Result]:
    figures = bench.compare(_turns(bench, sides))
    without = figures["none"]["cpu"]
    ours = _less(figures["canister"]["cpu"], without)
    rivals = [title for title in sides if title not in ("none", "canister")]
    rows = [Result(name, operation, "us CPU", ours, "the whole request without", without)]
    for title in rivals:
        rows.append(Result(name, operation, "us CPU", ours, title, _less(figures[title]["cpu"], without)))
    return rows


def _less(values: list[float], without: list[float]) -> list[float]:
    base = median(without)
    return [max(0.1, value - base) for value in values]


def _turns(bench: Bench, sides: Mapping[str, Side]) -> dict[str, Turn]:
    count = bench.size(_REQUESTS)
    return {title: (lambda side=side: side.do("requests", count=count)) for title, side in sides.items()}
