"""Hosts' names, looked up so that a name server that does not answer holds up nothing else."""

import asyncio
import socket
from threading import Thread

from canister.addresses import parse_ip
from canister.agent.helpers import answer


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
    asked: asyncio.Future[list[str]] = loop.create_future()
    asked.add_done_callback(lambda asked: asked.exception())  # whether or not somebody still waits

    def look_up() -> list[str]:
        return [str(end[0]) for *_, end in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)]

    try:
        Thread(target=answer, args=(loop, asked, look_up), name="canister-names", daemon=True).start()
    except RuntimeError as error:
        asked.set_exception(OSError(str(error)))
    return asked
