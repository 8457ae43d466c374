"""Runs the agent in a thread of whichever process of the node holds the lock."""

import _thread
import asyncio
import contextlib
import fcntl
import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path
from random import Random

from canister.agent.agent import Agent
from canister.agent.helpers import Helpers
from canister.agent.presence import announce, withdraw
from canister.clock import Clock
from canister.config import Config
from canister.errors import CanisterError, ConfigError, StoreError
from canister.forks import is_only_forked, notice_fork, watch_forks
from canister.store.sqlite import SqliteStore

logger = logging.getLogger("canister.agent")

_RETRY = 0.25
"""Seconds between two attempts to take over as agent."""


_NO_THREADS = (
    "gevent or eventlet has replaced the threads of this process, so that none is left for the node's agent: "
    "run `canister node` beside it, and open the data directory with agent=False"
)


class AgentThread:
    """A candidate for running the agent; takes over when the one that does goes away.

    Args:
        store: the node's sessions.
        config: the node's settings.
        clock: where the time comes from.
    """

    def __init__(self, store: SqliteStore, config: Config, clock: Clock) -> None:
        self._store = store
        self._config = config
        self._clock = clock
        self._begin()
        watch_forks(self)

    def start(self) -> None:
        """Start, and wait until this process is the agent or another one is.

        In uWSGI's master it does not start: the workers are candidates, each from its first use on.

        Raises:
            ConfigError: threads of this process are greenlets: the agent would stand still with all of them.
            ListenError: this process would be the agent, but cannot listen on its address.
            StoreError: the agent's lock cannot be opened.
        """
        if _are_greenlets():
            raise ConfigError(_NO_THREADS)
        if is_only_forked():
            return
        self._helpers.start()
        self._thread.start()
        self._settled.wait()
        if self._failure is not None:
            self.stop()
            raise self._failure

    def stop(self) -> None:
        """Stop the agent if it runs here, and wait until its sockets are closed."""
        notice_fork()
        self._stopping.set()
        loop, task = self._loop, self._task
        if loop is not None and task is not None:
            with contextlib.suppress(RuntimeError):  # the loop closed by itself meanwhile
                loop.call_soon_threadsafe(task.cancel)
        if self._thread.is_alive():
            self._thread.join()
        self._helpers.stop()

    def before_fork(self) -> None:
        """Nothing to do: the parent's agent goes on."""

    def after_fork(self, *, child: bool) -> None:
        """Let go of the parent's sockets and lock, and stand as a candidate on the child's own."""
        if not child:
            return
        if self._agent is not None:
            _replace_by_nothing(self._agent.sockets())
            _parents_agents.append(self._agent)
        if self._lock is not None:
            os.close(self._lock)
        was_running = not self._stopping.is_set()
        self._begin()
        if was_running and _are_greenlets():  # patched after it was opened
            logger.error(_NO_THREADS)
        elif was_running:
            self._settled.set()  # nobody waits for it: what fails is told by the log, and tried again
            self._helpers.start()
            self._thread.start()

    def _begin(self) -> None:
        self._stopping = threading.Event()
        self._settled = threading.Event()
        self._failure: Exception | None = None
        self._told = ""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._agent: Agent | None = None
        self._lock: int | None = None
        self._helpers = Helpers()
        self._thread = threading.Thread(target=self._run, name="canister-agent", daemon=True)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._store.check_file()  # else it would be the agent of another node, in the same place
                self._lock = _try_lock(self._store.files.agent_lock)
                if self._lock is not None:
                    self._be_agent()
            except Exception as error:  # noqa: BLE001 - whatever it was, the node needs an agent again
                self._failed(error)
            finally:
                self._helpers.finish()
                if self._lock is not None:
                    os.close(self._lock)
                    self._lock = None
                self._settled.set()
            self._stopping.wait(_RETRY)

    def _failed(self, error: Exception) -> None:
        cause: BaseException = getattr(error, "exceptions", (error,))[0]  # of a task group
        if not self._settled.is_set():
            self._failure = error
            self._stopping.set()
        elif isinstance(cause, CanisterError):  # it says itself what to do, and may last: a full disk
            if str(cause) != self._told:
                logger.error("%s; trying again", cause)
            self._told = str(cause)
            self._stopping.wait(3 * _RETRY)
        else:
            logger.error("the agent failed and starts again", exc_info=error)

    def _be_agent(self) -> None:
        with (
            asyncio.Runner(loop_factory=_loop_factory()) as runner,
            contextlib.suppress(asyncio.CancelledError),
        ):
            runner.run(self._main())

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        if self._stopping.is_set():
            return
        # Jitter needs no secrecy, only to differ between nodes.
        random = Random(os.urandom(16))
        self._agent = Agent(self._store, self._config, self._clock, random, self._helpers)
        try:
            await self._agent.run(self._started)
        finally:
            self._agent = None
            self._task = None
            if self._lock is not None:
                withdraw(self._lock)

    def _started(self) -> None:
        if self._lock is not None:
            announce(self._lock)
        self._told = ""
        self._settled.set()


_parents_agents: list[Agent] = []
"""Agents of the parent process, kept so that collecting them closes no descriptor of the child."""


def _replace_by_nothing(descriptors: list[int]) -> None:
    """Close inherited sockets, leaving their numbers taken: their owners may still close them."""
    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for descriptor in descriptors:
        os.dup2(nothing, descriptor, inheritable=False)
    os.close(nothing)


def _are_greenlets() -> bool:
    """Tell whether what begins a thread has been replaced: all of them stand still where one waits."""
    return _thread.start_new_thread.__module__ != "_thread"


def _try_lock(path: Path) -> int | None:
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BaseException:
            os.close(handle)
            raise
    except BlockingIOError:
        return None
    except OSError as error:
        raise StoreError(f"{path} cannot be locked: {error.strerror}") from error
    return handle


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return uvloop's loop if it is installed, else None for asyncio's own."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
