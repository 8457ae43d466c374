"""The awaitable forms on Redis: in the event loop's own thread, and never blocking it."""

import asyncio
import contextlib
import os
import resource
import signal
import time
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.integration.cluster import eventually
from tests.redis_servers import RedisServer, running_redis

from canister import Canister, SessionError, Status, StoreUnavailableError
from canister.sessions import SessionManager
from canister.store.redis import waiting
from canister.store.redis.links import MOST_LINKS

pytestmark = pytest.mark.integration

KEY = "key-0123456789-abcdefghijklmnopqrs"
TIMEOUT = 1.0
"""``remote_timeout`` where servers are away, in seconds."""
SLACK = 0.6
"""What a call may take longer, as it has to be scheduled on a machine that is busy."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with running_redis(tmp_path / "redis") as server:
        yield server


@pytest.fixture
def manager(server: RedisServer) -> Iterator[SessionManager]:
    with Canister(server.url, remote_timeout="20s") as canister:
        yield SessionManager(canister, secret_keys=KEY, max_sessions=3)


@pytest.fixture
def hasty(server: RedisServer) -> Iterator[SessionManager]:
    """Return one whose calls have little time."""
    with Canister(server.url, remote_timeout=f"{TIMEOUT}s") as canister:
        yield SessionManager(canister, secret_keys=KEY)


@contextlib.contextmanager
def only_awaiting() -> Iterator[None]:
    """Have everything fail that blocks the thread of an event loop, or that needs another one."""

    def forbidden(*_: object, **__: object) -> Any:
        raise AssertionError("an event loop was blocked, or a thread was needed")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(waiting.select, "poll", forbidden)
        patch.setattr(waiting.time, "sleep", forbidden)
        patch.setattr(waiting.threading.Event, "wait", forbidden)
        patch.setattr(asyncio.BaseEventLoop, "run_in_executor", forbidden)
        yield


def connections(server: RedisServer) -> int:
    """Return how many connections a server has been asked for, but for that which asks."""
    with server.client() as client:
        return int(client.info("stats")["total_connections_received"]) - 1


async def store(manager: SessionManager, **values: object) -> str:
    """Store a new session and return its cookie."""
    session = await manager.aload([])
    session.update(values)
    set_cookie = (await manager.acommit(session)).set_cookie
    assert set_cookie is not None
    return set_cookie.partition("=")[2].partition(";")[0]


async def count(manager: SessionManager, cookie: str) -> int:
    """Count a request and return how many there were."""
    session = await manager.aload([cookie])
    session["n"] += 1
    await manager.acommit(session)
    return int(session["n"])


async def scenario(manager: SessionManager) -> None:
    cookie = await store(manager, n=0)
    assert await count(manager, cookie) == 1
    for old in ([], [], [], [cookie]):  # the first is ended by the cap
        session = await manager.aload(old)
        session.login("ann")
        set_cookie = (await manager.acommit(session)).set_cookie
        assert set_cookie is not None
    assert await manager.aload([cookie]) == {}
    session = await manager.aload([set_cookie.partition("=")[2].partition(";")[0]])
    assert (session.user, session["n"]) == ("ann", 1)
    handle = session.handle
    await manager.adestroy(session)
    status = await manager.canister.engine.beside(lambda: manager.canister.record_status(handle))
    assert status.status is Status.DESTROYED


def test_no_thread_is_needed_and_nothing_blocks(manager: SessionManager) -> None:
    """Load, commit and destroy, log-in and its cap, a new connection included."""
    with only_awaiting():
        asyncio.run(scenario(manager))


def test_a_connection_belongs_to_no_loop(manager: SessionManager, server: RedisServer) -> None:
    """One loop after the other uses the same one, as test clients and WSGI servers have it."""
    cookie = asyncio.run(store(manager, n=0))
    before = connections(server)
    for number in range(20):
        assert asyncio.run(count(manager, cookie)) == number + 1
    assert manager.load([cookie])["n"] == 20
    assert connections(server) == before + 1  # this one's own look


def test_loops_and_threads_share_them(manager: SessionManager) -> None:
    """Several loops and threads at once: every answer is that of its own question."""

    async def main() -> None:
        async def one(number: int) -> None:
            cookie = await store(manager, n=0, own=number)
            for turn in range(10):
                assert await count(manager, cookie) == turn + 1
                assert (await manager.aload([cookie]))["own"] == number

        await asyncio.gather(*map(one, range(8)))

    def blocking(number: int) -> None:
        session = manager.load([])
        session["own"] = number
        set_cookie = manager.commit(session).set_cookie or ""
        for _ in range(30):
            assert manager.load([set_cookie.partition("=")[2].partition(";")[0]])["own"] == number

    acts = [lambda: asyncio.run(main()) for _ in range(2)] + [lambda: blocking(-1), lambda: blocking(-2)]
    with ThreadPoolExecutor(len(acts)) as executor:
        for future in [executor.submit(act) for act in acts]:
            future.result(60)


def test_connections_are_bounded(manager: SessionManager, server: RedisServer) -> None:
    """Calls beyond their number wait for one, and all are served."""

    async def main() -> None:
        cookie = await store(manager, n=7)
        sessions = await asyncio.gather(*(manager.aload([cookie]) for _ in range(5 * MOST_LINKS)))
        assert [session["n"] for session in sessions] == [7] * (5 * MOST_LINKS)

    before = connections(server)
    asyncio.run(main())
    assert connections(server) <= before + 1 + MOST_LINKS


def test_all_calls_have_their_deadline_when_the_server_hangs(
    hasty: SessionManager, server: RedisServer
) -> None:
    """However many there are: none waits for a thread first. When the server is back, all goes on."""

    async def refused(call: Coroutine[Any, Any, Any]) -> float:
        begun = time.monotonic()
        with pytest.raises(StoreUnavailableError):
            await call
        return time.monotonic() - begun

    async def main() -> None:
        cookie = await store(hasty, n=0)
        session = await hasty.aload([cookie])
        session["n"] = 5
        server.signal(signal.SIGSTOP)
        calls = [hasty.aload([cookie]) for _ in range(2 * MOST_LINKS)]
        took = await asyncio.gather(*map(refused, [*calls, hasty.acommit(session)]))
        assert min(took) > TIMEOUT - 0.3
        assert max(took) < TIMEOUT + SLACK
        server.signal(signal.SIGCONT)
        assert await count(hasty, cookie) in (1, 6)  # what was sent may have been written
        server.stop()
        assert await refused(hasty.aload([cookie])) < TIMEOUT + SLACK
        server.start()
        assert await hasty.aload([cookie]) == {}  # it keeps nothing on disk

    asyncio.run(main())


def test_a_call_that_is_cancelled_leaves_no_answer_behind(
    manager: SessionManager, server: RedisServer
) -> None:
    """The next call does not get what the cancelled one asked for."""

    async def main() -> None:
        first, second = await store(manager, n=1), await store(manager, n=2)
        server.signal(signal.SIGSTOP)
        call = asyncio.create_task(manager.aload([first]))
        await asyncio.sleep(0.05)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        server.signal(signal.SIGCONT)
        for _ in range(3):
            assert (await manager.aload([second]))["n"] == 2

    asyncio.run(main())


def test_a_fork_in_between(manager: SessionManager) -> None:
    """A loop in the child has connections of its own."""
    cookie = asyncio.run(store(manager, n=0))
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writer, b"%d" % asyncio.run(count(manager, cookie)))
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reader, 10) == b"1"
    assert asyncio.run(count(manager, cookie)) == 2


def test_the_loop_is_never_held_up_for_long(hasty: SessionManager, server: RedisServer) -> None:
    """By processor time, which other programs cannot use up: no step of the loop takes 5 ms.

    But for the first few pages of memory that a step is given: where the host of a virtual machine has taken
    what was free, each was seen to be charged two to three milliseconds.
    """
    longest = 0.0
    run = asyncio.Handle._run

    def timed(self: asyncio.Handle) -> None:
        nonlocal longest
        begun, pages = time.thread_time(), _pages()
        run(self)
        longest = max(longest, time.thread_time() - begun - 0.003 * min(8, _pages() - pages))

    async def main() -> None:
        cookies = [await store(hasty, n=0, text="x" * 10_000) for _ in range(10)]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(asyncio.Handle, "_run", timed)
            await asyncio.sleep(0)
            await asyncio.gather(*(count(hasty, cookie) for cookie in cookies))
            server.signal(signal.SIGSTOP)
            with pytest.raises(StoreUnavailableError):
                await hasty.aload([cookies[0]])

    asyncio.run(main())
    server.signal(signal.SIGCONT)
    assert 0 < longest < 0.005


def test_it_comes_back_by_itself(manager: SessionManager, server: RedisServer) -> None:
    """A call that is under way when the server comes back in time is served."""

    async def main() -> None:
        cookie = await store(manager, n=0)
        server.signal(signal.SIGSTOP)
        call = asyncio.create_task(count(manager, cookie))
        await asyncio.sleep(0.1)
        server.signal(signal.SIGCONT)
        assert await call == 1

    asyncio.run(main())
    eventually(lambda: manager.canister.num_local_sessions() == 1, 5)


def _pages() -> int:
    """Return how many pages this thread has been given."""
    return resource.getrusage(resource.RUSAGE_THREAD).ru_minflt


def test_tasks_that_commit_one_session_at_once(manager: SessionManager) -> None:
    """One after the other, and none of them blocks the loop that the one before needs."""

    async def work_together() -> list[int]:
        session = await manager.aload([await store(manager, a=1)])

        async def work(name: str) -> None:
            for _ in range(5):
                session.increment(name)
                await session.acommit()

        with only_awaiting():
            await asyncio.gather(work("in"), work("out"))
        found = await manager.aload([session.state.token.text if session.state.token else ""])
        return [found.count("in"), found.count("out")]

    assert asyncio.run(work_together()) == [5, 5]


def test_a_commit_that_blocks_beside_an_awaited_one(manager: SessionManager) -> None:
    """It would wait for ever for what the loop has yet to do."""

    async def meet() -> None:
        session = await manager.aload([await store(manager, a=1)])
        session["a"] = 2
        awaited = asyncio.create_task(session.acommit())
        await asyncio.sleep(0)
        with pytest.raises(SessionError, match="await acommit"):
            session.commit()
        await awaited

    asyncio.run(meet())
