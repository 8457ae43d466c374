"""Making a failing run small enough to read: fewer steps, fewer kinds of faults.

Delta debugging in its simplest form (Zeller and Hildebrandt, "Simplifying and Isolating
Failure-Inducing Input", 2002): leave something out, keep it out if the run still fails.
"""

from typing import NamedTuple

from canister.testing.simulation.checks import Violation
from canister.testing.simulation.faults import FAULTS
from canister.testing.simulation.scenario import run_scenario
from canister.testing.simulation.soak import Plan


class Shrunk(NamedTuple):
    """A small failing run: how to repeat it, what broke, and the events that matter."""

    command: str
    violation: Violation
    trace: list[str]


class _Failure(NamedTuple):
    violation: Violation
    events: list[str]


def shrink(seed: int, plan: Plan) -> Shrunk | None:
    """Return a smaller run that fails as the given one does, None if that one does not fail."""
    failure = _run(seed, plan, frozenset())
    if failure is None:
        return None
    for fewer in range(1, plan.steps):
        found = _run(seed, plan._replace(steps=fewer), frozenset())
        if found is not None:
            failure, plan = found, plan._replace(steps=fewer)
            break
    without = frozenset[str]()
    for fault in FAULTS:
        found = _run(seed, plan, without | {fault})
        if found is not None:
            failure, without = found, without | {fault}
    command = "python -m canister.testing.simulation"
    command += f" --replay {seed} --nodes {plan.size_for(seed)} --steps {plan.steps}"
    if plan.sqlite:
        command += " --sqlite"
    if without:
        command += f" --without '{','.join(sorted(without))}'"
    return Shrunk(command, failure.violation, _relevant(failure))


def _run(seed: int, plan: Plan, without: frozenset[str]) -> _Failure | None:
    events: list[str] = []
    try:
        run_scenario(seed, plan.size_for(seed), plan.steps, without, sqlite=plan.sqlite, events=events)
    except Violation as violation:
        return _Failure(violation, events)
    return None


def _relevant(failure: _Failure) -> list[str]:
    """Return the events about the session that broke, and all faults."""
    session = failure.violation.session
    name = repr(session) if session is not None else ""
    return [event for event in failure.events if "fault: " in event or " heal" in event or name in event]
