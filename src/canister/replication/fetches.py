"""Asking all linked peers for one session at once."""

from collections.abc import Callable, Iterable

from canister.freshness import Fetched
from canister.record import NodeId
from canister.replication.link import Link, LinkId
from canister.replication.membership import Membership
from canister.replication.messages import Fetch


class _Fetch:
    def __init__(self, session: bytes, waiting: set[LinkId], done: Callable[[Fetched], None]) -> None:
        self.session = session
        self.waiting = waiting
        self.answers: dict[NodeId, dict[NodeId, int]] = {}
        self.done = [done]


class Fetches:
    """The fetches under way.

    Args:
        membership: whom the node knows; an answer is everyone's only if all of them gave one.
        send: sends a question on a link.
    """

    def __init__(self, membership: Membership, send: Callable[[LinkId, Fetch], None]) -> None:
        self._membership = membership
        self._send = send
        self._number = 0
        self._open: dict[int, _Fetch] = {}

    def draw(self) -> int:
        """Return a number no fetch has used."""
        self._number += 1
        return self._number

    def start(self, session: bytes, links: Iterable[LinkId], done: Callable[[Fetched], None]) -> int:
        """Ask the peers on *links*; *done* is called once, when all have answered or are lost.

        Who asks for the same session before any peer has answered shares the answers. One that came before
        may be older than what the client of who asks has seen meanwhile.
        """
        for under_way, fetch in self._open.items():
            if fetch.session == session and not fetch.answers:
                fetch.done.append(done)
                return under_way
        number = self.draw()
        waiting = set(links)
        self._open[number] = _Fetch(session, set(waiting), done)
        for link in waiting:
            self._send(link, Fetch(number, session))
        self._settle(number)
        return number

    def __len__(self) -> int:
        return len(self._open)

    def session(self, number: int) -> bytes | None:
        """Return the session a fetch under way is about."""
        fetch = self._open.get(number)
        return fetch.session if fetch else None

    def answered(self, link: Link, number: int, heard: dict[NodeId, int]) -> None:
        """A peer answered, and has told what it had heard; its rows are already merged."""
        fetch = self._open.get(number)
        if fetch is not None and link.number in fetch.waiting:
            fetch.waiting.discard(link.number)
            fetch.answers[link.node] = heard
            self._settle(number)

    def lost(self, link: LinkId) -> None:
        """A link is gone; it will not answer."""
        for number in [number for number, fetch in self._open.items() if link in fetch.waiting]:
            self._open[number].waiting.discard(link)
            self._settle(number)

    def expire(self, number: int) -> None:
        """Give up waiting for a fetch."""
        fetch = self._open.get(number)
        if fetch is not None:
            fetch.waiting.clear()
            self._settle(number)

    def _settle(self, number: int) -> None:
        fetch = self._open[number]
        if fetch.waiting:
            return
        del self._open[number]
        others = self._membership.others()
        everyone = self._membership.has_met_cluster and all(member.node in fetch.answers for member in others)
        for done in fetch.done:
            done(Fetched(list(fetch.answers.values()), everyone))
