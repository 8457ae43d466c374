"""The fast path: a request like an earlier one, of a session that has not changed since.

Where the cookies are those of an earlier request, and the store still returns the very records of the session
and of its user that were judged then, the judgement holds until an instant that is known beforehand: a record
never changes, it is replaced. What the client had seen then, and this node had heard of, is in those records.
"""

from collections.abc import Sequence
from weakref import WeakValueDictionary

from canister.codec import user_record_id
from canister.engine import Engine
from canister.freshness import Seen, covers
from canister.life import idle_from
from canister.record import Record, user_of
from canister.sessions.contents import Contents, Glance
from canister.sessions.renewal import due_from
from canister.sessions.token import Token


class Glances:
    """What one session manager keeps of the tokens it found good. Safe to share between threads.

    Args:
        engine: where the sessions are stored.
        renewal: after how many microseconds a secret is replaced; None: never.
        lock: after how many microseconds without an access a session is locked; None: never.

    Attributes:
        tokens: tokens whose MAC was found right, by their text, as long as a session in memory has them.
    """

    def __init__(self, engine: Engine, renewal: int | None, lock: int | None) -> None:
        self._engine = engine
        self._renewal = renewal
        self._lock = lock
        self.tokens: WeakValueDictionary[str, Token] = WeakValueDictionary()

    def find(self, value: str, seen_values: Sequence[str]) -> tuple[Contents, Glance, int] | None:
        """Return the session that a client is served as it is, and the instant; None: it takes a closer look.

        Args:
            value: the only value of the token's cookie.
            seen_values: the values of the seen cookie.
        """
        token = self.tokens.get(value)
        if token is None:
            return None
        load = self._engine.store.load
        stored = load(token.session)
        contents: Contents | None = stored.memo
        if contents is None or contents.record is not stored.record:
            return None
        glance = contents.glance
        if glance is None or glance.token is not token or glance.seen_values != tuple(seen_values):
            return None
        now = self._engine.clock.now()
        if glance.until <= now:
            return None
        if glance.user is not None and load(glance.user).record is not glance.known:
            return None
        return contents, glance, now

    def keep(
        self, token: Token, contents: Contents, seen_values: Sequence[str], shown: Seen, known: Record | None
    ) -> Glance | None:
        """Keep and return that a token opens a session, and that all that its client has seen is here.

        Nothing is kept of values that are no good: a client may send many, and long ones.

        Args:
            token: the token; its secret is good, not replaced.
            contents: the session as it was found.
            seen_values: the values of the seen cookie.
            shown: what the client has seen by them.
            known: what is known of the user who is logged in; it does not end the session.
        """
        if len(seen_values) > 1 or (seen_values and not shown):
            return None
        encoded = user_of(contents.record)
        user = None if encoded is None else user_record_id(encoded)
        until = contents.end
        if self._lock is not None:
            until = min(until, idle_from(contents.record, self._lock))
        # What the committer does unasked: record an access, renew, retire old secrets, send the seen cookie.
        calm = min(contents.due, due_from(token, self._renewal))
        clustered = self._engine.is_clustered
        if contents.replaced or (clustered and not covers(shown, contents.seen)):
            calm = 0
        glance = contents.glance = Glance(
            token, tuple(seen_values), shown, until, calm, user, known, clustered
        )
        return glance
