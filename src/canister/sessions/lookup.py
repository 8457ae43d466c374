"""Finding a token's session, and telling "it is gone" from "this node cannot tell".

Only where it is decided that a session is gone may its cookie be taken away (`protocol.md`, R23);
everything else leaves the client as it is.
"""

from enum import Enum
from typing import NamedTuple

from canister.errors import CannotTellError
from canister.life import hard_end, is_live
from canister.node import Node
from canister.record import Record, node_of, stamp_of
from canister.sessions.keys import KeyRing
from canister.sessions.token import Refusal, Token, parse

MOST_TOKENS = 4
"""How many tokens of one request are looked up: a browser holds more only under attack."""


class Verdict(Enum):
    """What is known of a cookie's session."""

    LIVE = "live"
    GONE = "gone"
    OPEN = "this node cannot tell"


class Found(NamedTuple):
    """A cookie's token, what is known of its session, and the session if it is live."""

    token: Token | Refusal
    verdict: Verdict
    record: Record | None = None


class Lookup:
    """Looks for the sessions of tokens on a node.

    Args:
        node: where to look.
        ring: the keys that verify.
    """

    def __init__(self, node: Node, ring: KeyRing) -> None:
        self._node = node
        self._ring = ring

    def here(self, values: list[str]) -> list[Found]:
        """Return what this node alone knows of each cookie value, up to the first live session."""
        found: list[Found] = []
        tokens = 0
        for value in values:
            token = parse(value, self._ring)
            if isinstance(token, Refusal):
                # With a key that is not listed here the session may well exist.
                verdict = Verdict.OPEN if token is Refusal.UNKNOWN_KEY else Verdict.GONE
                found.append(Found(token, verdict))
                continue
            tokens += 1
            if tokens > MOST_TOKENS:
                break
            found.append(self._here(token))
            if found[-1].verdict is Verdict.LIVE:
                break
        return found

    def anywhere(self, found: list[Found]) -> list[Found]:
        """Ask the peers where this node could not tell; blocks for at most ``remote_timeout`` each."""
        return [self._anywhere(f.token) if is_open(f) and isinstance(f.token, Token) else f for f in found]

    def _here(self, token: Token) -> Found:
        stored = self._node.store.load(token.session)
        if stored.record is not None:
            return self._judge(token, stored.record)
        if not stored.held and (self._node.store.doubts() == 0 or self._would_be_here(token)):
            return Found(token, Verdict.GONE)
        return Found(token, Verdict.OPEN)

    def _anywhere(self, token: Token) -> Found:
        try:
            loaded = self._node.load(token.session, after=(token.issued,))
        except CannotTellError:
            return Found(token, Verdict.OPEN)
        if loaded.record is not None:
            return self._judge(token, loaded.record, asked=True)
        return Found(token, Verdict.GONE if loaded.certain else Verdict.OPEN)

    def _judge(self, token: Token, record: Record, *, asked: bool = False) -> Found:
        now = self._node.clock.now()
        if not is_live(record, now):
            # Expired here, it may have been touched where this node has not looked lately.
            over = record.destroy is not None or hard_end(record) <= now or self._node.store.doubts() == 0
            return Found(token, Verdict.GONE if over else Verdict.OPEN)
        cell = record.cells.get(token.slot)
        if cell is not None and cell.value is not None:
            return Found(token, Verdict.LIVE, record)
        # The hash came with the issue stamp: with the stamp heard, the secret is good no more.
        return Found(token, Verdict.GONE if asked or self._has_heard(token) else Verdict.OPEN)

    def _would_be_here(self, token: Token) -> bool:
        """Tell whether the session came here when it was made, and cannot have been dropped since."""
        young = self._node.clock.now() - stamp_of(token.issued) < self._node.policy.grace
        return young and self._has_heard(token)

    def _has_heard(self, token: Token) -> bool:
        return self._node.store.heard_of(node_of(token.issued)) >= stamp_of(token.issued)


def is_open(found: Found) -> bool:
    """Tell whether it is not decided if the session exists."""
    return found.verdict is Verdict.OPEN
