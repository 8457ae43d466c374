"""Runs many scenarios and reports what happened in them; replays and shrinks those that fail."""

import argparse
import os
import sys
import time

from canister.testing.simulation.checks import Violation
from canister.testing.simulation.scenario import run_scenario
from canister.testing.simulation.shrink import shrink
from canister.testing.simulation.soak import Failure, Plan, report, soak

_PROGRESS = 1000


def main() -> int:
    """Run the command; return 1 if an invariant broke."""
    options = _parse()
    plan = Plan(options.nodes, options.steps, options.sqlite)
    if options.replay is not None:
        return _replay(options.replay, plan, frozenset(filter(None, options.without.split(","))))
    began = time.monotonic()
    seeds = range(options.first, options.first + options.seeds)
    soaked = soak(seeds, plan, _tell)
    seconds = time.monotonic() - began
    print(f"\nseeds {seeds[0]} to {seeds[-1]}: {len(seeds):,} scenarios in {seconds:.0f} s", end="")
    print(f" on {os.cpu_count()} cores, {len(soaked.failed)} failed")
    report(soaked)
    for failure in soaked.failed:
        print(f"\nseed {failure.seed}: {failure.what}")
        _explain(failure.seed, plan)
    return 1 if soaked.failed else 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m canister.testing.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="how many scenarios to run")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--nodes", type=int, help="number of nodes (default: 3 to 5, by the seed)")
    parser.add_argument("--steps", type=int, default=60, help="length of the faulty part")
    parser.add_argument("--sqlite", action="store_true", help="keep the sessions in SQLite files")
    parser.add_argument("--replay", type=int, metavar="SEED", help="run one scenario and print its events")
    parser.add_argument("--without", default="", metavar="FAULTS", help="faults to leave out, by name")
    return parser.parse_args()


def _tell(done: int, failure: Failure | None) -> None:
    if failure is not None:
        print(f"seed {failure.seed} failed: {failure.what.splitlines()[0]}", flush=True)
    if done % _PROGRESS == 0:
        print(f"{done:,} done", flush=True)


def _replay(seed: int, plan: Plan, without: frozenset[str]) -> int:
    events: list[str] = []
    failed = 0
    try:
        run_scenario(seed, plan.size_for(seed), plan.steps, without, sqlite=plan.sqlite, events=events)
        what = "no invariant broke"
    except Violation as violation:
        what, failed = str(violation), 1
    print(*events, what, sep="\n")
    return failed


def _explain(seed: int, plan: Plan) -> None:
    shrunk = shrink(seed, plan)
    if shrunk is not None:
        print(f"  {shrunk.violation}\n  repeat it with: {shrunk.command}\n  " + "\n  ".join(shrunk.trace))


if __name__ == "__main__":
    sys.exit(main())
