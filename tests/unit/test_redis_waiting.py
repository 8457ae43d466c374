"""Code that blocks, run beside an event loop: results, errors, cancellation, and turns."""

import asyncio
import contextvars
import socket
import threading
from collections.abc import Iterator

import pytest

from canister.store.redis import waiting
from canister.store.redis.waiting import Turns, beside, is_ready, pause

variable = contextvars.ContextVar("variable", default="before")


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    one, other = socket.socketpair()
    with one, other:
        yield one, other


def test_what_it_returns_and_raises_passes_through() -> None:
    async def main() -> None:
        assert await beside(lambda: 7) == 7
        assert await beside(lambda: (pause(0), 8)[1]) == 8

        def refuse() -> None:
            pause(0)
            raise LookupError("refused")

        with pytest.raises(LookupError, match="refused"):
            await beside(refuse)

    asyncio.run(main())


def test_the_loop_goes_on_until_the_socket_is_ready(pair: tuple[socket.socket, socket.socket]) -> None:
    """Calls of one loop wait side by side in its own thread."""
    one, other = pair
    order: list[str] = []

    def read() -> None:
        order.append("reads")
        assert threading.current_thread() is threading.main_thread()
        assert is_ready(one.fileno(), to_write=False, seconds=30)
        order.append("has read")

    def write() -> None:
        assert is_ready(other.fileno(), to_write=True, seconds=30)
        order.append("writes")
        other.send(b"x")

    async def main() -> None:
        await asyncio.gather(beside(read), beside(write))
        assert not await beside(lambda: is_ready(other.fileno(), to_write=False, seconds=0))

    asyncio.run(main())
    assert order == ["reads", "writes", "has read"]
    assert is_ready(one.fileno(), to_write=False, seconds=30)
    assert not is_ready(other.fileno(), to_write=False, seconds=0)


def test_it_sees_the_tasks_context_and_leaves_it_alone() -> None:
    def change() -> str:
        pause(0)
        seen = variable.get()
        variable.set("inside")
        return seen

    async def main() -> None:
        variable.set("outside")
        assert await beside(change) == "outside"
        assert variable.get() == "outside"

    asyncio.run(main())


def test_a_cancellation_is_raised_where_it_waits(pair: tuple[socket.socket, socket.socket]) -> None:
    one, _ = pair
    seen: list[str] = []

    def read() -> None:
        try:
            is_ready(one.fileno(), to_write=False, seconds=30)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    async def main() -> None:
        task = asyncio.create_task(beside(read))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not asyncio.get_running_loop().remove_reader(one.fileno())

    asyncio.run(main())
    assert seen == ["cancelled"]


def test_a_name_is_not_asked_for_without_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """An address needs nobody; a name that nobody answers for holds a call up for its time only."""

    async def silent(*_: object, **__: object) -> None:
        await asyncio.get_running_loop().create_future()

    async def main() -> None:
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", silent)
        (place,) = await beside(lambda: waiting.resolve("127.0.0.1", 1, 0))
        assert place == (socket.AF_INET, ("127.0.0.1", 1))
        with pytest.raises(TimeoutError):
            await beside(lambda: waiting.resolve("a-name.invalid", 1, 0))

    asyncio.run(main())


def test_turns_come_in_order() -> None:
    """One at a time, whoever asks; who does not come in time holds nobody up."""
    turns, order = Turns(1), list[int]()

    def work(number: int) -> None:
        assert turns.take(30)
        order.append(number)
        pause(0)
        turns.give_back()

    async def main() -> None:
        await asyncio.gather(*(beside(lambda number=number: work(number)) for number in range(5)))
        assert await beside(lambda: turns.take(30))
        assert not await beside(lambda: turns.take(0))
        assert not turns.take(0)
        turns.give_back()
        assert turns.take(0)
        turns.give_back()

    asyncio.run(main())
    assert order == [0, 1, 2, 3, 4]


def test_a_turn_passes_between_threads_and_loops() -> None:
    """A thread gives its turn to a call of a loop, and that one its own to a thread."""
    turns = Turns(1)
    assert turns.take(0)
    waits, thread_has_it = threading.Event(), threading.Event()

    def thread() -> None:
        assert turns.take(30)
        thread_has_it.set()

    async def main() -> None:
        task = asyncio.create_task(beside(lambda: turns.take(30)))
        await asyncio.sleep(0)
        waits.set()
        assert await task
        other = threading.Thread(target=thread)
        other.start()
        turns.give_back()
        assert await asyncio.to_thread(thread_has_it.wait, 30)
        other.join()

    running = threading.Thread(target=lambda: asyncio.run(main()))
    running.start()
    assert waits.wait(30)
    turns.give_back()
    running.join(30)
    assert not running.is_alive()


def test_a_turn_that_nobody_takes_any_more_goes_to_the_next() -> None:
    """Who is cancelled, and who waits in a loop that was closed, lets the others in."""
    turns = Turns(1)
    assert turns.take(0)

    async def cancelled() -> None:
        task = asyncio.create_task(beside(lambda: turns.take(30)))
        await asyncio.sleep(0)
        task.cancel()
        turns.give_back()  # it is called although it is just being cancelled
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    assert turns.take(0)
    loop = asyncio.new_event_loop()
    task = loop.create_task(beside(lambda: turns.take(30)))
    loop.run_until_complete(asyncio.sleep(0))
    loop.stop()
    loop.close()
    turns.give_back()
    assert turns.take(0)
    with pytest.raises(asyncio.InvalidStateError):
        task.result()
