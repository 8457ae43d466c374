"""Draws the curves of `docs/explanation/limits.md`: points in JSON on standard input, SVG files out.

Run by the Python of an environment of its own, which has matplotlib; needs nothing else of this project.
"""

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams.update(
    {"svg.fonttype": "none", "svg.hashsalt": "canister", "font.size": 9, "axes.grid": True, "grid.alpha": 0.3}
)
from matplotlib import pyplot  # noqa: E402 - the back end is chosen first

Points = list[dict[str, Any]]
Curve = tuple[str, str, str]
"""Engine, figure, and what the legend calls it."""

_SESSIONS: list[tuple[str, list[Curve]]] = [
    (
        "memory, MB",
        [
            ("mesh", "memory", "mesh: agent of a node"),
            ("Redis Cluster", "memory of a master", "Redis Cluster: one of 3 masters"),
        ],
    ),
    (
        "disk, MB",
        [
            ("mesh", "disk", "mesh: each node"),
            ("Redis Cluster", "disk of a master", "Redis Cluster: one of 3 masters"),
        ],
    ),
]
_WRITES: list[tuple[str, list[Curve]]] = [
    (
        "writes a second, whole cluster",
        [
            ("mesh", "writes at full speed", "mesh, until all are equal"),
            ("Redis Cluster", "writes at full speed", "Redis Cluster, by clients"),
        ],
    ),
    (
        "processor of a write, us, all processes",
        [
            ("mesh", "a write at full speed, all nodes", "mesh: all nodes together"),
            ("mesh", "a write, each other agent", "mesh: each other node, 200/s"),
            ("Redis Cluster", "a write, its process", "Redis Cluster: the client"),
            ("Redis Cluster", "a write, all servers", "Redis Cluster: the servers"),
        ],
    ),
]
_NETWORK: list[tuple[str, list[Curve]]] = [
    (
        "idle: bytes a second and node, in and out",
        [
            ("mesh, simulated", "idle, network of a node", "mesh, simulated"),
            ("mesh", "idle, network of a node", "mesh, real nodes"),
        ],
    ),
    (
        "bytes of a write to each other node",
        [
            ("mesh, simulated", "a write, network to each other node", "mesh, simulated"),
            ("mesh", "a write, network to each other node", "mesh, real nodes"),
        ],
    ),
]


def main(folder: Path) -> None:
    """Draw all there is."""
    points: Points = [point for point in json.load(sys.stdin) if point["size"] == 200]
    folder.mkdir(parents=True, exist_ok=True)
    _draw(points, "sessions", _SESSIONS, folder / "limits-sessions.svg", log=True)
    _draw(points, "nodes", _WRITES, folder / "limits-writes.svg", log=False)
    _draw(points, "nodes", _NETWORK, folder / "limits-network.svg", log=False)


def _draw(points: Points, by: str, panels: list[tuple[str, list[Curve]]], file: Path, *, log: bool) -> None:
    figure, places = pyplot.subplots(1, len(panels), figsize=(9, 3.4), layout="constrained")
    for place, (title, curves) in zip(places, panels, strict=True):
        for engine, name, legend in curves:
            found = sorted(
                (point[by], point["value"])
                for point in points
                if (point["engine"], point["figure"]) == (engine, name)
            )
            if found:
                place.plot(*zip(*found, strict=True), marker="o", markersize=3, label=legend)
        if log:
            place.set_xscale("log")
            place.set_yscale("log")
        else:
            place.set_ylim(bottom=0)
        place.set(title=title, xlabel=by)
        place.legend(fontsize=8)
    figure.savefig(file, metadata={"Date": None})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
