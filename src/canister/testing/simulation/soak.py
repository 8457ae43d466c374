"""Many scenarios on all cores, and what happened in them taken together."""

import os
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from typing import NamedTuple

from canister.testing.simulation.checks import Violation
from canister.testing.simulation.scenario import Outcome, run_scenario

_CHUNK = 10
"""Scenarios a core is given at once, where there are enough for all."""


class Failure(NamedTuple):
    """A scenario in which something did not hold."""

    seed: int
    what: str


class Plan(NamedTuple):
    """What is the same for all scenarios; *size* None: 3 to 5 nodes, by the seed."""

    size: int | None = None
    steps: int = 60
    sqlite: bool = False

    def size_for(self, seed: int) -> int:
        """Return the number of nodes."""
        return self.size or 3 + seed % 3


class Soaked(NamedTuple):
    """How often everything came about in all scenarios together, and which of them failed."""

    total: Outcome
    failed: list[Failure]


def soak(
    seeds: Sequence[int], plan: Plan, progress: Callable[[int, Failure | None], None] | None = None
) -> Soaked:
    """Run a scenario for each seed; each one depends on nothing but its seed.

    Args:
        seeds: what to run.
        plan: what is the same for all.
        progress: is told how many are done after each one, and its failure if it failed.
    """
    soaked = Soaked(Outcome(seeds[0]), [])
    chunk = min(_CHUNK, -(-len(seeds) // (os.cpu_count() or 1)))
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        results = pool.map(partial(_run, plan=plan), seeds, chunksize=chunk)
        for done, result in enumerate(results, start=1):
            if isinstance(result, Failure):
                soaked.failed.append(result)
            else:
                _add(soaked.total, result)
            if progress is not None:
                progress(done, result if isinstance(result, Failure) else None)
    return soaked


def report(soaked: Soaked) -> None:
    """Print how often each operation, fault, effect and check came about."""
    total = soaked.total
    tables = {
        "operations": total.operations,
        "faults": total.faults,
        "what the faults led to": total.effects,
        "checks (how often each was made)": total.checks,
    }
    for title, counts in tables.items():
        print(f"\n{title}")
        width = max(map(len, counts), default=0)
        for name, count in sorted(counts.items()):
            print(f"  {name.ljust(width)}  {count:>14,}")
    sys.stdout.flush()


def _run(seed: int, plan: Plan) -> Outcome | Failure:
    try:
        outcome = run_scenario(seed, plan.size_for(seed), plan.steps, sqlite=plan.sqlite)
    except Violation as violation:
        return Failure(seed, str(violation))
    outcome.events.clear()
    return outcome


def _add(total: Outcome, one: Outcome) -> None:
    for name in ("operations", "faults", "effects", "checks"):
        counts: Counter[str] = getattr(total, name)
        counts.update(getattr(one, name))
