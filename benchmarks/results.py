"""What was measured, turn by turn, and how it is told."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any, Literal

_HEADINGS = (
    "operation",
    "unit",
    "canister",
    "beside it",
    "",
    "better by (spread)",
    "floor",
    "of floor",
    "wanted",
)


@dataclass
class Result:
    """One row: Canister beside one rival, and the floor, in the same turns.

    *ratio* says by how much Canister is better: of times the rival's by ours, of rates ours by theirs.
    """

    name: str
    operation: str
    unit: str
    ours: list[float]
    rival: str = ""
    theirs: list[float] = field(default_factory=list)
    floor: list[float] = field(default_factory=list)
    better: Literal["less", "more"] = "less"
    wanted: str = ""
    at: float | None = None
    """Where on a curve the row is a point."""

    def ratios(self) -> list[float]:
        """Return the ratio of each turn."""
        pairs = zip(self.ours, self.theirs, strict=False)
        return [theirs / ours if self.better == "less" else ours / theirs for ours, theirs in pairs]

    def of_floor(self) -> list[float]:
        """Return for each turn what Canister takes as a multiple of the floor; of rates, the reverse."""
        pairs = zip(self.ours, self.floor, strict=False)
        return [ours / floor if self.better == "less" else floor / ours for ours, floor in pairs]

    def as_dict(self) -> dict[str, Any]:
        """Return the row with its medians, for a file."""
        medians = {"ours": self.ours, "theirs": self.theirs, "floor": self.floor}
        return {**asdict(self), "medians": {k: median(v) for k, v in medians.items() if v}}

    def cells(self) -> tuple[str, ...]:
        """Return the row as text."""
        ratios = self.ratios()
        spread = f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})" if ratios else ""
        floor = self.of_floor()
        return (
            self.operation if self.at is None else f"{self.operation}: {self.at:,.0f}",
            self.unit,
            _shown(self.ours),
            self.rival,
            _shown(self.theirs),
            spread,
            _shown(self.floor),
            f"{median(floor):.2f}" if floor else "",
            self.wanted,
        )


def table(results: Sequence[Result]) -> str:
    """Return all rows as one table in Markdown."""
    rows = [_HEADINGS, *(result.cells() for result in results)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(_HEADINGS))]
    lines = [" | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    lines.insert(1, "-|-".join("-" * width for width in widths))
    return "\n".join(f"| {line} |" if i != 1 else f"|-{line}-|" for i, line in enumerate(lines))


def _shown(values: Sequence[float]) -> str:
    if not values:
        return ""
    value = median(values)
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
