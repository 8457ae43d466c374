"""``python -m benchmarks``: measure, print one table, and keep what was measured."""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.catalog import BENCHMARKS
from benchmarks.environments import python_of
from benchmarks.machine import describe
from benchmarks.results import Result, table

_DRAW = Path(__file__).with_name("sides") / "draw_growth.py"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what was asked for."""
    options = _parser().parse_args(arguments)
    about = describe()
    results: list[Result] = []
    try:
        for name in options.only or BENCHMARKS:
            begun = time.monotonic()
            with Bench(
                turns=options.turns, scale=options.scale, rivals=options.rivals, large=options.large
            ) as bench:
                results += BENCHMARKS[name](bench)
            print(f"{name}: {time.monotonic() - begun:.1f} s", file=sys.stderr, flush=True)
    finally:  # what was measured is not lost with what fails, or is broken off, after it
        print("\n".join(f"{what}: {value}" for what, value in about.items()))
        print()
        print(table(results))
        if options.json is not None:
            kept = {"about": about, "results": [result.as_dict() for result in results]}
            options.json.write_text(json.dumps(kept, indent=1) + "\n")
    if options.plot is not None and options.json is not None:
        subprocess.run([python_of("plots"), _DRAW, options.json, options.plot], check=True)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="benchmarks", description="Canister beside its rivals.")
    parser.add_argument("--only", action="append", choices=list(BENCHMARKS), help="may be given again")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep what was measured, turn by turn")
    parser.add_argument(
        "--plot", type=Path, metavar="SVG", help="draw what --only growth measured and --json keeps"
    )
    parser.add_argument("--turns", type=int, default=5, help="how often each side is measured")
    parser.add_argument("--scale", type=int, default=1, help="divide all numbers by this")
    parser.add_argument("--large", action="store_true", help="clusters of a million sessions as well")
    parser.add_argument(
        "--no-rivals", dest="rivals", action="store_false", help="install and measure Canister alone"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
