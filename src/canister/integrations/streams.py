"""Ending a connection that goes on, such as a WebSocket, when its session is over."""

import asyncio
import contextlib

from canister.errors import ConfigError
from canister.sessions import Lease, Session, SessionManager


class Hold:
    """A connection's hold on its session: cancels the connection's task once the session is over.

    To be made in that task, and taken only when the session is committed: before, it may still get
    another id.

    Args:
        manager: the session's manager.

    Attributes:
        manager: the session's manager.
        over: whether the session was found to be over, and the task cancelled for it.

    Raises:
        ConfigError: no asyncio runs, but trio, say.
    """

    over = False
    _session: Session | None = None
    _asked = _keep_alive = _released = False
    _lease: Lease | None = None

    def __init__(self, manager: SessionManager) -> None:
        self.manager = manager
        try:
            task = asyncio.current_task()
        except RuntimeError as error:  # there is no running loop
            raise ConfigError("Canister needs asyncio: have the server run the application on it") from error
        assert task is not None  # a server's connection is one
        self._task = task

    def ask(self, *, keep_alive: bool) -> None:
        """Take the hold, as soon as the session is committed.

        Args:
            keep_alive: whether the stream counts as an access for as long as it lasts.
        """
        self._asked, self._keep_alive = True, keep_alive
        self._take()

    def committed(self, session: Session, *, always: bool = False) -> None:
        """Take the hold on a session if it was asked for; with *always* also if it was not."""
        self._session = session
        if self._asked or always:
            self._asked = True
            self._take()

    def release(self) -> None:
        """Give the hold up for good: the stream has ended by itself."""
        self._released = True
        if self._lease is not None:
            self._let_go()

    def settle(self) -> bool:
        """Take the cancellation back; return whether nobody else has cancelled the task as well."""
        return self._task.uncancel() == 0

    def _take(self) -> None:
        if self._session is None or not self._asked or self._released or self.over:
            return
        self._let_go()
        self._lease = self.manager.hold(self._session, self._ended, keep_alive=self._keep_alive)

    def _let_go(self) -> None:
        if self._lease is not None:
            self._lease.close()
            self._lease = None

    def _ended(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed, and the connection with it
            self._task.get_loop().call_soon_threadsafe(self._end)

    def _end(self) -> None:
        if self._lease is not None:
            self._lease, self.over = None, True
            self._task.cancel()
