"""What is read and written while sessions move between a data directory and Redis, either way."""

from typing import Any

import pytest
from tests.integration.moves import Move, destroyed

from canister import Canister, SessionDestroyedError, Status
from canister.clock import SECOND
from canister.codec import encode_id
from canister.migration import copying
from canister.migration.engine import MigratingEngine
from canister.migration.marks import Step
from canister.testing.clock import ManualClock

pytestmark = pytest.mark.integration


def test_writes_go_to_the_old_engine_and_then_to_the_new_one(move: Move) -> None:
    with move.plain(move.source) as old:
        old.put("s", "a", 0)
    move.take("begin")
    with move.both() as canister:
        canister.put("s", "b", 1)
        assert [record is not None for record in move.records("s")] == [True, False]
        move.take("switch")
        canister.put("s", "c", 2)
        assert canister.get_data("s") == {"a": 0, "b": 1, "c": 2}
        move.take("copy", "finish")
    with move.plain(move.target) as new:
        assert new.get_data("s") == {"a": 0, "b": 1, "c": 2}
    old_record = move.records("s")[0]
    assert old_record is not None
    assert len(old_record.cells) == 2


def test_processes_of_neighbouring_steps_see_what_the_others_write(
    move: Move, monkeypatch: pytest.MonkeyPatch
) -> None:
    move.take("begin")
    with move.both() as early, move.both() as late:
        stay(early, Step.BEGUN, monkeypatch)
        stay(late, Step.SWITCHED, monkeypatch)
        for number, canister in enumerate((early, late) * 4):
            canister.put("s", f"k{number}", number)
            canister.put("s", "same", number)
        wanted = {f"k{number}": number for number in range(8)} | {"same": 7}
        assert early.get_data("s") == late.get_data("s") == wanted
        assert list(early.all_sessions()) == ["s"]


def stay(canister: Canister, step: Step, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a process go by a step whatever the board says."""
    assert isinstance(canister.engine, MigratingEngine)
    monkeypatch.setattr(canister.engine._leases, "step", lambda: step)


@pytest.mark.parametrize("step", [Step.BEGUN, Step.SWITCHED])
def test_destroys_go_to_both(move: Move, step: Step, monkeypatch: pytest.MonkeyPatch) -> None:
    move.take("begin")
    with move.both() as canister:
        stay(canister, step, monkeypatch)
        canister.put("s", "k", 1)
        canister.destroy("s")
        canister.destroy("never heard of")
        for session in ("s", "never heard of"):
            assert move.statuses(session) == [Status.DESTROYED] * 2
            with pytest.raises(SessionDestroyedError):
                canister.put(session, "k", 2)


@pytest.mark.parametrize("where", ["source", "target"])
@pytest.mark.parametrize("step", [Step.BEGUN, Step.SWITCHED])
def test_a_session_that_one_engine_knows_to_be_destroyed_is_over(
    move: Move, where: str, step: Step, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process may have died between the two; whichever was told first, both are believed."""
    with move.plain(move.source) as old:
        old.put("s", "k", 1)
    move.take("begin")
    side = move.side(getattr(move, where))
    destroyed(side, "s")
    side.close()
    with move.both() as canister:
        stay(canister, step, monkeypatch)
        assert canister.get_data("s") == {}
        assert list(canister.all_sessions()) == []
        with pytest.raises(SessionDestroyedError):
            canister.put("s", "k", 2)


def test_a_copy_never_goes_over_a_tombstone_and_carries_it_back(move: Move) -> None:
    with move.plain(move.source) as old:
        old.put("s", "k", 1)
        old.put("other", "k", 1)
    old, new = move.side(move.source), move.side(move.target)
    destroyed(new, "s")
    assert [progress.carried for progress in copying.copy(old, new, b"")][-1] == 1
    old.close()
    new.close()
    assert move.statuses("s") == [Status.DESTROYED] * 2
    assert move.statuses("other") == [Status.LIVE] * 2


def test_nothing_that_is_taken_in_goes_over_a_tombstone(move: Move) -> None:
    """Nor a copy that was read before the session was destroyed, and comes after that."""
    with move.plain(move.source) as old:
        old.put("s", "k", 1)
        live = old.engine.store.load(encode_id("s")).record
    assert live is not None
    for place in (move.source, move.target):
        side = move.side(place)
        destroyed(side, "s")
        side.take([(encode_id("s"), live)])
        side.close()
    assert move.statuses("s") == [Status.DESTROYED] * 2


def test_what_is_written_after_a_step_is_newer_than_what_was_before_whatever_the_clocks_say(
    move: Move, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a minute of difference between the clocks of the two engines loses no write."""
    ahead = move.side(move.source, ManualClock(move.now() + 30 * SECOND))
    canister = Canister.__new__(Canister)
    canister.engine, canister.config = ahead, ahead.config
    canister._clock, canister._policy = ahead.clock, ahead.policy
    canister.put("s", "k", "before")
    canister.close()
    move.take("begin")
    with move.both() as canister:
        stay(canister, Step.SWITCHED, monkeypatch)
        canister.put("s", "k", "after")
        assert canister.get("s", "k") == "after"
        canister.put("s", "k", "last")
        assert canister.get("s", "k") == "last"


def test_a_write_that_comes_too_late_for_its_step_is_carried_over(
    move: Move, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that was stopped in the middle of a write, while everything moved, loses nothing."""
    move.take("begin")
    with move.both() as canister:
        engine = canister.engine
        assert isinstance(engine, MigratingEngine)
        commit = engine._old.commit

        def stopped(*arguments: Any, **more: Any) -> Any:
            move.take("switch", "copy", "finish")  # its lease ends meanwhile
            return commit(*arguments, **more)

        monkeypatch.setattr(engine._old, "commit", stopped)
        canister.put("s", "k", 1)
    with move.plain(move.target) as new:
        assert new.get("s", "k") == 1
