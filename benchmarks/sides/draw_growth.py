"""Draws how cost grows, from what the harness kept: run by the Python of an environment with matplotlib."""

import json
import sys
from pathlib import Path
from statistics import median

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams.update({"svg.hashsalt": "canister", "font.size": 8, "axes.grid": True, "grid.alpha": 0.3})
from matplotlib import pyplot  # noqa: E402 - the back end is chosen first

PANELS = {
    "by sessions": "sessions of the node",
    "by keys": "keys of the session",
    "by nodes": "nodes on the same cores",
    "by writing": "writing processes",
}


def main(kept: str, drawing: str) -> None:
    """Draw one panel for each thing that grows."""
    rows = [row for row in json.loads(Path(kept).read_text())["results"] if row["name"] == "growth"]
    figure, axes = pyplot.subplots(2, 2, figsize=(8, 5.5), layout="constrained")
    for axis, (word, title) in zip(axes.flat, PANELS.items(), strict=True):
        curves: dict[str, list[tuple[float, list[float]]]] = {}
        for row in rows:
            if word in row["operation"]:
                curves.setdefault(row["operation"].partition(", by")[0], []).append((row["at"], row["ours"]))
        for name, points in curves.items():
            xs = [at for at, _ in points]
            axis.plot(xs, [median(values) for _, values in points], marker="o", label=name)
            axis.fill_between(xs, [min(v) for _, v in points], [max(v) for _, v in points], alpha=0.15)
        unit = {"us": "microseconds", "1/s": "a second"}[
            next(r["unit"] for r in rows if word in r["operation"])
        ]
        axis.set(xlabel=title, ylabel=unit, ylim=(0, None))
        if word in ("by sessions", "by keys"):
            axis.set_xscale("log")
        else:
            axis.set_xticks(xs)
        axis.legend()
    figure.savefig(drawing, metadata={"Date": None})


if __name__ == "__main__":
    main(*sys.argv[1:])
