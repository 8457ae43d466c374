"""Making a failing run small enough to read: fewer steps, fewer kinds of faults.

Delta debugging in its simplest form (Zeller and Hildebrandt, "Simplifying and Isolating
Failure-Inducing Input", 2002): leave something out, keep it out if the run still fails.
"""

from typing import NamedTuple

from canister.testing.simulation.checks import Violation
from canister.testing.simulation.faults import FAULTS
from canister.testing.simulation.scenario import Scenario


class Shrunk(NamedTuple):
    """A small failing run: how to repeat it, what broke, and the events that matter."""

    command: str
    violation: Violation
    trace: list[str]


class _Failure(NamedTuple):
    violation: Violation
    events: list[str]


def shrink(seed: int, size: int, steps: int) -> Shrunk | None:
    """Return a smaller run that fails as the given one does, None if that one does not fail."""
    failure = _run(seed, size, steps, frozenset())
    if failure is None:
        return None
    for fewer in range(1, steps):
        found = _run(seed, size, fewer, frozenset())
        if found is not None:
            failure, steps = found, fewer
            break
    without = frozenset[str]()
    for fault in FAULTS:
        found = _run(seed, size, steps, without | {fault})
        if found is not None:
            failure, without = found, without | {fault}
    command = f"python -m canister.testing.simulation --replay {seed} --size {size} --steps {steps}"
    if without:
        command += f" --without '{','.join(sorted(without))}'"
    return Shrunk(command, failure.violation, _relevant(failure))


def _run(seed: int, size: int, steps: int, without: frozenset[str]) -> _Failure | None:
    scenario = Scenario(seed, size, steps, without)
    try:
        scenario.run()
    except Violation as violation:
        return _Failure(violation, scenario.cluster.events)
    return None


def _relevant(failure: _Failure) -> list[str]:
    """Return the events about the session that broke, and all faults."""
    session = failure.violation.session
    name = repr(session) if session is not None else ""
    return [event for event in failure.events if "fault: " in event or " heal" in event or name in event]
