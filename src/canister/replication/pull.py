"""One comparison with one peer, seen by the side that pulls.

Root, then down the digest tree where it differs, then bucket listings, then the sessions that differ.
One question is out at a time and the answers arrive in bounded frames, so it may be cut anywhere.
"""

from collections.abc import Iterator
from typing import Protocol

from canister.errors import ProtocolError
from canister.record import NodeId
from canister.replication.digests import LEAF, SHORT
from canister.replication.messages import (
    AskDigests,
    AskListing,
    AskRoot,
    AskRows,
    Digests,
    Listing,
    Root,
    Row,
    Rows,
)
from canister.store.base import Listed, bucket_of

Question = AskRoot | AskDigests | AskListing | AskRows

_NODES_AT_ONCE = 1024
_BUCKETS_AT_ONCE = 512
_SESSIONS_AT_ONCE = 512


class Holdings(Protocol):
    """What this node holds, as of an instant."""

    def root(self, at: int) -> bytes:
        """Return the digest of everything."""
        ...

    def children(self, at: int, level: int, node: int) -> list[bytes]:
        """Return the shortened digests one level below a node of the tree."""
        ...

    def listing(self, at: int, bucket: int) -> list[Listed]:
        """Return the sessions of a bucket."""
        ...


class Pull:
    """A comparison under way.

    *at* and *claims* are what the peer named in its first answer. Questions are a stack: what is
    nearly found out is finished first, so that little is ever open.
    """

    def __init__(self, round_number: int, now: int) -> None:
        self.round = round_number
        self.at = now
        self.claims: dict[NodeId, int] = {}
        self._now = now
        self.moved = now
        """When it began or the peer last answered."""
        self._asked: Question = AskRoot(round_number, now)
        self._open: list[Question] = []
        self._got: set[bytes] = set()
        self.done = False

    @property
    def question(self) -> Question:
        """What to ask next."""
        return self._asked

    @property
    def queued(self) -> int:
        """How many questions are still open."""
        return 0 if self.done else 1 + len(self._open)

    def answered(self, answer: Root | Digests | Listing | Rows, mine: Holdings) -> list[Row] | None:
        """Take an answer; return sessions to merge, or None where it brought none.

        Raises:
            ProtocolError: the answer does not fit the question.
        """
        rows: list[Row] | None = None
        asked = self._asked
        if isinstance(answer, Root) and isinstance(asked, AskRoot):
            self._compare_root(answer, mine)
        elif isinstance(answer, Digests) and isinstance(asked, AskDigests):
            self._compare_digests(asked, answer, mine)
        elif isinstance(answer, Listing) and isinstance(asked, AskListing):
            self._compare_listing(asked, answer, mine)
        elif isinstance(answer, Rows) and isinstance(asked, AskRows):
            rows = answer.rows
            self._check_rows(asked, answer)
            if answer.more:
                return rows
            self._got.clear()
        else:
            raise ProtocolError(f"{type(answer).__name__} does not answer {type(asked).__name__}")
        if self._open:
            self._asked = self._open.pop()
        else:
            self.done = True
        return rows

    def _check_rows(self, asked: AskRows, answer: Rows) -> None:
        """Refuse what makes an answer longer than the buckets asked for: it could go on for ever."""
        sessions = [session for session, _ in answer.rows]
        buckets = {bucket for bucket, _ in asked.wanted}
        if answer.more and not sessions:
            raise ProtocolError("an answer goes on with an empty frame")
        if any(bucket_of(session) not in buckets for session in sessions):
            raise ProtocolError("an answer holds a session that was not asked for")
        got = len(self._got) + len(sessions)
        self._got.update(sessions)
        if len(self._got) != got:
            raise ProtocolError("an answer holds a session twice")

    def _compare_root(self, root: Root, mine: Holdings) -> None:
        self.at = max(root.at, self._now)
        self.claims = root.claims
        if root.digest != mine.root(self.at):
            self._open.append(AskDigests(self.round, self.at, 0, [0]))

    def _compare_digests(self, asked: AskDigests, answer: Digests, mine: Holdings) -> None:
        own = [(asked.level, node, mine.children(self.at, asked.level, node)) for node in asked.nodes]
        if len(answer.digests) != SHORT * sum(len(digests) for _, _, digests in own):
            raise ProtocolError("a list of digests has the wrong length")
        theirs = _cut(answer.digests)
        differ = [
            node * len(digests) + i
            for _, node, digests in own
            for i, digest in enumerate(digests)
            if digest != next(theirs)
        ]
        level = asked.level + 1
        size = _BUCKETS_AT_ONCE if level == LEAF else _NODES_AT_ONCE
        for start in range(0, len(differ), size):
            nodes = differ[start : start + size]
            self._open.append(
                AskListing(self.round, self.at, nodes)
                if level == LEAF
                else AskDigests(self.round, self.at, level, nodes)
            )

    def _compare_listing(self, asked: AskListing, answer: Listing, mine: Holdings) -> None:
        if len(answer.buckets) != len(asked.buckets) or any(len(b) % SHORT for b in answer.buckets):
            raise ProtocolError("a bucket listing has the wrong length")
        wanted: list[tuple[int, list[bytes]]] = []
        count = 0
        for bucket, theirs in zip(asked.buckets, answer.buckets, strict=True):
            own = {listed.digest[:SHORT] for listed in mine.listing(self.at, bucket)}
            lacking = [digest for digest in _cut(theirs) if digest not in own]
            if lacking:
                wanted.append((bucket, lacking))
                count += len(lacking)
            if count >= _SESSIONS_AT_ONCE:
                self._open.append(AskRows(self.round, self.at, wanted))
                wanted, count = [], 0
        if wanted:
            self._open.append(AskRows(self.round, self.at, wanted))


def _cut(digests: bytes) -> Iterator[bytes]:
    return (digests[i : i + SHORT] for i in range(0, len(digests), SHORT))
