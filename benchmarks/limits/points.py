"""What was measured: one number each, with how much of everything there was."""

from typing import Literal, NamedTuple

Engine = Literal["mesh", "mesh, simulated", "Redis Cluster"]

VALUE = 200
"""Bytes of a session's value, where nothing else is said."""


class Point(NamedTuple):
    """One measurement.

    Args:
        engine: what was measured.
        figure: what about it.
        unit: what *value* counts.
        value: the number.
        nodes: nodes of the mesh, or processes that use the Redis Cluster.
        sessions: how many there were.
        size: bytes of a session's value.
    """

    engine: Engine
    figure: str
    unit: str
    value: float
    nodes: int
    sessions: int = 0
    size: int = VALUE


def table(points: list[Point]) -> str:
    """Return all points as a table in Markdown."""
    lines = ["| engine | figure | nodes | sessions | value size | | unit |", "|---|---|---|---|---|---|---|"]
    for point in points:
        counts = f"{point.nodes} | {point.sessions:,} | {point.size}"
        lines.append(f"| {point.engine} | {point.figure} | {counts} | {_shown(point.value)} | {point.unit} |")
    return "\n".join(lines)


def _shown(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
