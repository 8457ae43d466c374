"""Finding a token's session, and telling "it is gone" from "this node cannot tell".

Only where it is decided that a session is gone may its cookie be taken away (R23 of
``docs/explanation/consistency.md``); everything else leaves the client as it is. What was heard of the
other nodes is always read before the session: the other way round, what arrives in between would be
vouched for and missing.
"""

from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple

from canister.clock import SECOND
from canister.engine import Engine
from canister.errors import CannotTellError
from canister.freshness import Seen, missing
from canister.life import hard_end
from canister.record import Record, Version, origin_of, stamp_of
from canister.sessions import seen
from canister.sessions.contents import Contents, Glance, contents_of
from canister.sessions.glance import Glances
from canister.sessions.keys import KeyRing
from canister.sessions.limits import LookupLimits
from canister.sessions.renewal import SecretStatus, secret_status
from canister.sessions.token import Refusal, Token, parse
from canister.sessions.users import Users

MOST_TOKENS = 4
"""How many tokens of one request are looked up: a browser holds more only under attack."""
UNDER_WAY = 60 * SECOND
"""For how long requests may be under way that were sent before a log-in, a log-out or a renewal."""
_ON_ITS_WAY = 10 * SECOND
"""For how long it is taken that a client gets the cookie of another session that it was given.

A client that never got it has to wait so long for a new one, unless it logs in.
"""


class Verdict(Enum):
    """What is known of a cookie's session."""

    LIVE = "live"
    BEHIND = "live, but the client has seen what may be missing here"
    GONE = "gone"
    OPEN = "this node cannot tell"


class Found(NamedTuple):
    """A cookie's token and what is known of its session.

    Attributes:
        token: the token.
        verdict: what is known.
        contents: the session if it is live here.
        shown: what the client has seen of it, by the cookie it carries.
        lacking: the part of that which may be missing here.
        unheard: whether this node had not heard of some of it, fetched or not.
        secret: what the session says of the token's secret; None where it was not found or is over.
        known: what is known of the user who is logged in.
        glance: what was kept of this look; None where it may not be relied on.
        lately: whether the token was good until so lately that requests sent before may still be under way.
        outlived: whether its client was given another one then.
    """

    token: Token | Refusal
    verdict: Verdict
    contents: Contents | None = None
    shown: Seen = ()
    lacking: Seen = ()
    unheard: bool = False
    secret: SecretStatus | None = None
    known: Record | None = None
    glance: Glance | None = None
    lately: bool = False
    outlived: bool = False


class Lookup:
    """Looks for the sessions of tokens on a node.

    Args:
        engine: where to look.
        ring: the keys that verify.
        users: who was logged out everywhere.
        glances: where what was found is kept.
    """

    def __init__(self, engine: Engine, ring: KeyRing, users: Users, glances: Glances) -> None:
        self._engine = engine
        self._users = users
        self._ring = ring
        self._limits = LookupLimits()
        self._glances = glances

    def here(self, values: Sequence[str], seen_values: Sequence[str] = ()) -> list[Found]:
        """Return what this node alone knows of each cookie value, up to the first live session.

        Args:
            values: the values of the token's cookie.
            seen_values: the values of the seen cookie.
        """
        found: list[Found] = []
        tokens = 0
        for value in values:
            token = self._glances.tokens.get(value) or parse(value, self._ring)
            if isinstance(token, Refusal):
                # With a key that is not listed here the session may well exist.
                verdict = Verdict.OPEN if token is Refusal.UNKNOWN_KEY else Verdict.GONE
                found.append(Found(token, verdict))
                continue
            tokens += 1
            if tokens > MOST_TOKENS:  # its session may exist: the cookie is left alone
                found.append(Found(Refusal.SURPLUS, Verdict.OPEN))
                break
            one = self._here(token, seen.read(seen_values, token) if seen_values else ())
            if one.contents is not None:
                if len(values) == 1 and one.secret is SecretStatus.GOOD and not one.unheard:
                    glance = self._glances.keep(token, one.contents, seen_values, one.shown, one.known)
                    one = one._replace(glance=glance)
                found.append(one)
                break
            found.append(one)
        return found

    def anywhere(self, found: list[Found]) -> list[Found]:
        """Ask the peers where this node could not tell; blocks for at most ``remote_timeout`` each."""
        return [
            self._anywhere(f.token, f) if needs_peers(f) and isinstance(f.token, Token) else f for f in found
        ]

    def _here(self, token: Token, shown: Seen) -> Found:
        found = self._look(token, shown)
        # What speaks for its absence may have come after the session was read, and the session with it.
        return self._look(token, shown) if found.verdict is Verdict.GONE else found

    def _look(self, token: Token, shown: Seen) -> Found:
        unheard = missing(shown, self._engine.store.heard_of) if shown else []
        session = token.session
        lacking = [v for v in unheard if not self._limits.has(session, v)]
        stored = self._engine.store.load(session)
        contents = contents_of(stored)
        if contents is not None:
            found = self._judge(token, contents)
        else:
            lacking = unheard  # what was fetched has been dropped since
            absent = not stored.held and self._is_absent(token)
            found = Found(token, Verdict.GONE if absent else Verdict.OPEN)
        if stored.held:
            lacking = list(shown)  # what is held back may be what the client has seen
        verdict = found.verdict
        if lacking and verdict is Verdict.LIVE:
            verdict = Verdict.BEHIND
        elif lacking and not (contents is not None and self._is_over(contents.record)):
            verdict = Verdict.OPEN
        if verdict is found.verdict and not shown:
            return found
        return found._replace(verdict=verdict, shown=shown, lacking=tuple(lacking), unheard=bool(unheard))

    def _anywhere(self, token: Token, found: Found) -> Found:
        if not self._limits.may_ask(token.session):
            return found
        after = found.lacking if found.verdict is Verdict.BEHIND else (token.issued, *found.lacking)
        try:
            loaded = self._engine.load(token.session, after=after, ask=True)
        except CannotTellError:
            return self._here(token, found.shown)._replace(unheard=found.unheard)  # some may have answered
        self._limits.fetched(token.session, after)
        contents = contents_of(loaded.stored)
        if contents is not None:
            judged = self._judge(token, contents, asked=True, everyone=loaded.everyone)
        else:
            judged = Found(token, Verdict.GONE if loaded.certain else Verdict.OPEN)
        return judged._replace(shown=found.shown, unheard=found.unheard)

    def _judge(
        self, token: Token, contents: Contents, *, asked: bool = False, everyone: bool = False
    ) -> Found:
        record, now = contents.record, self._engine.clock.now()
        if contents.end <= now:
            # Expired here, it may have been in use elsewhere since this node last heard from there.
            over = everyone or self._is_over(record) or not self._engine.is_clustered
            verdict, tombstone = Verdict.GONE if over else Verdict.OPEN, record.destroy
            if tombstone is None:
                return Found(token, verdict)
            lately = _is_within(UNDER_WAY, tombstone.version, now)
            outlived = tombstone.followed and _is_within(_ON_ITS_WAY, tombstone.version, now)
            return Found(token, verdict, lately=lately, outlived=outlived)
        secret = secret_status(record, token.slot, now)
        if secret is SecretStatus.GOOD or secret is SecretStatus.REPLACED:
            known = self._users.record_of(record)
            if self._users.has_ended(record, known):
                return Found(token, Verdict.GONE)
            if contents.token is not token:
                contents.token = self._glances.tokens[token.text] = token
            return Found(token, Verdict.LIVE, contents, secret=secret, known=known)
        if secret is SecretStatus.RETIRED:
            lately = _is_within(UNDER_WAY, record.cells[token.slot].version, now)
            return Found(token, Verdict.GONE, secret=secret, lately=lately, outlived=lately)
        # The hash came with the issue stamp: with the stamp heard, the secret was never good.
        return Found(token, Verdict.GONE if asked or self._has_heard(token) else Verdict.OPEN)

    def _is_over(self, record: Record) -> bool:
        """Tell whether no news of the session can bring it back."""
        return record.destroy is not None or hard_end(record) <= self._engine.clock.now()

    def _is_absent(self, token: Token) -> bool:
        """Tell whether the session came here when it was made, and cannot have been dropped in use."""
        if not self._engine.is_clustered:
            return True
        young = self._engine.clock.now() - stamp_of(token.issued) < self._engine.policy.grace
        return self._has_heard(token) and (young or self._engine.store.peers().doubts == 0)

    def _has_heard(self, token: Token) -> bool:
        return self._engine.store.heard_of(origin_of(token.issued)) >= stamp_of(token.issued)


def _is_within(span: int, version: Version, now: int) -> bool:
    return now - stamp_of(version) < span


def needs_peers(found: Found) -> bool:
    """Tell whether the peers may know more of the session."""
    return found.verdict in (Verdict.OPEN, Verdict.BEHIND)


def may_need_peers(found: list[Found]) -> bool:
    """Tell whether the peers may know more than what was found for a request."""
    if found and found[-1].verdict is Verdict.LIVE:  # the search ends with it
        return False
    return any(needs_peers(one) and isinstance(one.token, Token) for one in found)


def is_open(found: Found) -> bool:
    """Tell whether it is not decided if the session exists."""
    return found.verdict is Verdict.OPEN
