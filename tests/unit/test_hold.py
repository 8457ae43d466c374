"""A connection's hold on its session: when it is taken, and what its end does to the task."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any, cast

import pytest

from canister.integrations.streams import Hold
from canister.sessions import Session, SessionManager

SESSION = Session()


class Lease:
    closed = False

    def close(self) -> None:
        self.closed = True


class Manager:
    """Stands for a session manager whose leases the test ends."""

    def __init__(self) -> None:
        self.taken: list[tuple[Lease, bool]] = []
        self.end: Callable[[], object] = lambda: None

    def hold(self, session: Session, on_end: Callable[[], object], *, keep_alive: bool) -> Lease:
        assert session is SESSION
        self.end = on_end
        self.taken.append((Lease(), keep_alive))
        return self.taken[-1][0]

    def end_in_a_thread(self) -> None:
        thread = threading.Thread(target=self.end)
        thread.start()
        thread.join()


def run(test: Callable[[Manager, Hold], Any]) -> None:
    async def main() -> None:
        manager = Manager()
        await test(manager, Hold(cast("SessionManager", manager)))

    asyncio.run(main(), debug=True)  # a loop in debug mode refuses what comes from another thread


def test_nothing_is_held_that_nobody_asked_for_or_is_not_committed() -> None:
    async def test(manager: Manager, hold: Hold) -> None:
        hold.committed(SESSION)
        assert manager.taken == []
        hold.ask(keep_alive=False)
        assert len(manager.taken) == 1
        other = Hold(cast("SessionManager", manager))
        other.ask(keep_alive=True)
        assert len(manager.taken) == 1
        other.committed(SESSION)
        assert manager.taken[1][1] is True

    run(test)


def test_what_was_asked_for_before_stands_where_all_are_held() -> None:
    async def test(manager: Manager, hold: Hold) -> None:
        hold.ask(keep_alive=True)
        hold.committed(SESSION, always=True)
        assert [keep_alive for _, keep_alive in manager.taken] == [True]
        hold.ask(keep_alive=False)
        assert manager.taken[0][0].closed
        assert manager.taken[1][1] is False

    run(test)


def test_the_end_cancels_the_task_from_another_thread() -> None:
    async def test(manager: Manager, hold: Hold) -> None:
        hold.committed(SESSION, always=True)
        manager.end_in_a_thread()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(asyncio.Event().wait(), 5)
        assert hold.over
        assert hold.settle()
        await asyncio.sleep(0)  # the task is as if nobody had cancelled it

    run(test)


def test_a_released_hold_cancels_nothing() -> None:
    async def test(manager: Manager, hold: Hold) -> None:
        hold.committed(SESSION, always=True)
        manager.end_in_a_thread()
        hold.release()
        assert manager.taken[0][0].closed
        await asyncio.sleep(0.01)
        assert not hold.over
        hold.ask(keep_alive=True)
        assert len(manager.taken) == 1

    run(test)


def test_somebody_elses_cancellation_stands() -> None:
    async def test(manager: Manager, hold: Hold) -> None:
        hold.committed(SESSION, always=True)
        manager.end_in_a_thread()
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().call_later(0, task.cancel)
        with pytest.raises(asyncio.CancelledError):
            await asyncio.sleep(5)
        await asyncio.sleep(0.01)
        assert hold.over
        assert not hold.settle()
        task.uncancel()

    run(test)


def test_the_end_may_come_when_the_loop_is_closed() -> None:
    manager = Manager()

    async def main() -> Hold:
        hold = Hold(cast("SessionManager", manager))
        hold.committed(SESSION, always=True)
        return hold

    hold = asyncio.run(main())
    manager.end()
    assert not hold.over, "there is no task left to cancel"
