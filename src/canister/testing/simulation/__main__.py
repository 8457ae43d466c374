"""Runs many scenarios and reports what happened in them; replays and shrinks those that fail."""

import argparse
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from functools import partial

from canister.testing.simulation.checks import Violation
from canister.testing.simulation.scenario import Outcome, Scenario
from canister.testing.simulation.shrink import shrink

Result = Outcome | tuple[int, str]


def main() -> int:
    """Run the command; return 1 if an invariant broke."""
    options = _parse()
    if options.replay is not None:
        return _replay(
            options.replay, options.size or 3, options.steps, frozenset(options.without.split(","))
        )
    began = time.monotonic()
    seeds = range(options.first, options.first + options.seeds)
    total, failed = Outcome(options.first), list[tuple[int, str]]()
    with ProcessPoolExecutor() as pool:
        for result in pool.map(partial(_run, size=options.size, steps=options.steps), seeds, chunksize=20):
            if isinstance(result, tuple):
                failed.append(result)
            else:
                total.operations += result.operations
                total.faults += result.faults
                total.checks += result.checks
    print(f"{len(seeds)} scenarios in {time.monotonic() - began:.0f} s, {len(failed)} failed")
    for name in ("operations", "faults", "checks"):
        _table(name, getattr(total, name))
    for seed, what in failed:
        print(f"\nseed {seed}: {what}")
        _explain(seed, options.size or _size(seed), options.steps)
    return 1 if failed else 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m canister.testing.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="how many scenarios to run")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--size", type=int, help="number of nodes (default: 3 to 5, by the seed)")
    parser.add_argument("--steps", type=int, default=60, help="length of the faulty part")
    parser.add_argument("--replay", type=int, metavar="SEED", help="run one scenario and print its events")
    parser.add_argument("--without", default="", metavar="FAULTS", help="faults to leave out, by name")
    return parser.parse_args()


def _size(seed: int) -> int:
    return 3 + seed % 3


def _run(seed: int, size: int | None, steps: int) -> Result:
    scenario = Scenario(seed, size or _size(seed), steps)
    try:
        outcome = scenario.run()
    except Violation as violation:
        return seed, str(violation)
    outcome.events.clear()
    return outcome


def _replay(seed: int, size: int, steps: int, without: frozenset[str]) -> int:
    scenario = Scenario(seed, size, steps, without)
    try:
        scenario.run()
    except Violation as violation:
        print(*scenario.cluster.events, sep="\n")
        print(violation)
        return 1
    print(*scenario.cluster.events, sep="\n")
    print("no invariant broke")
    return 0


def _explain(seed: int, size: int, steps: int) -> None:
    shrunk = shrink(seed, size, steps)
    if shrunk is not None:
        print(f"  {shrunk.violation}\n  repeat it with: {shrunk.command}\n  " + "\n  ".join(shrunk.trace))


def _table(title: str, counts: Counter[str]) -> None:
    print(f"\n{title}")
    width = max(map(len, counts), default=0)
    for name, count in sorted(counts.items()):
        print(f"  {name.ljust(width)}  {count:>12,}")


if __name__ == "__main__":
    sys.exit(main())
