"""Hosts' names, looked up so that a name server that does not answer holds up nothing else."""

import asyncio
import contextlib
import socket
from threading import Thread

from canister.addresses import parse_ip


class Names:
    """Looks up the names of hosts: of each name once at a time, and each in a thread of its own.

    Nothing ends a look-up but the name server. So none waits in a pool, where it would keep others out that
    can be answered, and the thread is one that neither the agent nor the process waits for when it stops.
    """

    def __init__(self) -> None:
        self._asked: dict[str, asyncio.Future[list[str]]] = {}

    async def addresses(self, host: str) -> list[str]:
        """Return the addresses of a host, which may be one itself.

        Who stops waiting finds the answer when it asks again.

        Raises:
            OSError: there are none, or the name server does not tell.
            UnicodeError: the host is no name that can be looked up.
        """
        if parse_ip(host) is not None:
            return [host]
        asked = self._asked.get(host)
        if asked is None:
            asked = self._asked[host] = _ask(host)
        try:
            return await asyncio.shield(asked)
        finally:
            if asked.done() and self._asked.get(host) is asked:
                del self._asked[host]


def _ask(host: str) -> asyncio.Future[list[str]]:
    """Begin to look up a name."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[list[str]] = loop.create_future()
    answer.add_done_callback(lambda answer: answer.exception())  # whether or not somebody still waits

    def settle(found: list[str], error: Exception | None) -> None:
        if error is None:
            answer.set_result(found)
        else:
            answer.set_exception(error)

    def look_up() -> None:
        found, failure = [], None
        try:
            found = [str(end[0]) for *_, end in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)]
        except Exception as error:  # noqa: BLE001 - whoever asked is to have it
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop has closed meanwhile
            loop.call_soon_threadsafe(settle, found, failure)

    try:
        Thread(target=look_up, name="canister-names", daemon=True).start()
    except RuntimeError as error:
        settle([], OSError(str(error)))
    return answer
