"""Whole clusters on virtual time, under random faults; any failure is repeated by its seed."""

from collections import Counter

import pytest

from canister.testing.simulation import run_scenario
from canister.testing.simulation.faults import FAULTS
from canister.testing.simulation.shrink import shrink

from . import planted

SEEDS = range(120)
GROUP = 20


@pytest.mark.parametrize("first", range(SEEDS.start, SEEDS.stop, GROUP))
def test_invariants_hold_under_faults(first: int) -> None:
    """No seed breaks I1 to I5, I8, I9 or I11; a failure names its seed."""
    for seed in range(first, first + GROUP):
        try:
            run_scenario(seed, size=3 + seed % 3)
        except AssertionError as error:
            pytest.fail(
                f"python -m canister.testing.simulation --replay {seed} --size {3 + seed % 3}: {error}"
            )


def test_every_fault_and_check_comes_about() -> None:
    """The scenarios are worth their time: each fault, operation and check happens."""
    faults: Counter[str] = Counter()
    checks: Counter[str] = Counter()
    operations: Counter[str] = Counter()
    for seed in range(30):
        outcome = run_scenario(seed, size=3)
        faults += outcome.faults
        checks += outcome.checks
        operations += outcome.operations
    assert set(faults) == set(FAULTS)
    assert min(faults.values()) >= 3, faults
    assert {"put", "update", "remove", "clear", "destroy", "touch", "set_expiry"} <= set(operations)
    for check in ("I1 I2 I3 I5 I9", "I4", "I8 served", "I8 behind", "I11"):
        assert checks[check] > 100, checks


def test_a_seed_decides_everything() -> None:
    """The same seed gives the same run, event by event."""
    assert run_scenario(7, size=4).events == run_scenario(7, size=4).events


def test_a_failing_seed_is_shrunk_to_a_command_and_a_short_trace() -> None:
    """What a person gets is a command that repeats the failure and the few events that matter."""
    with planted.r12_put_on_expired_without_a_clear():
        seed = next(seed for seed in range(40) if _fails(seed))
        shrunk = shrink(seed, size=3, steps=60)
        assert shrunk is not None
        assert f"--replay {seed} --size 3 --steps" in shrunk.command
        assert str(shrunk.violation).startswith("R12")
        assert 0 < len(shrunk.trace) < 60
    assert shrink(seed, size=3, steps=10) is None


def _fails(seed: int) -> bool:
    try:
        run_scenario(seed, size=3)
    except AssertionError:
        return True
    return False
