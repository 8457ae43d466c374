"""The session API's view of a simulated node: the code that decides on absence, on virtual time."""

from typing import Any

from canister import edits
from canister.agent.presence import AgentPresence
from canister.codec import encode_value, key_slot
from canister.freshness import Fetched
from canister.node import Node
from canister.sessions.glance import Glances
from canister.sessions.keys import KeyRing
from canister.sessions.lookup import Lookup, Verdict
from canister.sessions.renewal import GOOD
from canister.sessions.token import Token, draft
from canister.sessions.users import Users
from canister.testing.simulation import SimNode

RING = KeyRing(["the-quick-brown-fox-jumps-over-the-lazy-dog-0123456789"])
_STEP = 0.0005


class _Presence(AgentPresence):
    """Tells whether a simulated node runs."""

    def __init__(self, node: SimNode) -> None:
        self._node = node

    def is_there(self) -> bool:
        return self._node.replica is not None


class Front(Node):
    """A `Node` whose store and agent are simulated."""

    def __init__(self, node: SimNode) -> None:
        self.sim = node
        self.config = node.cluster.config
        self.policy = node.cluster.policy
        self.clock = node.clock
        self._presence = _Presence(node)
        self._caught_up = None

    @property
    def store(self) -> Any:
        return self.sim.store

    @property
    def is_clustered(self) -> bool:
        """Tell from what a simulated store knows whether there are peers."""
        has_peers: bool = self.store.peers().exist
        return has_peers

    def _fetch(self, session: bytes) -> Fetched:
        """Ask the peers as the agent does, and let virtual time pass until they have answered."""
        replica, cluster = self.sim.replica, self.sim.cluster
        assert replica is not None
        found: list[Fetched] = []
        number = replica.fetches.start(session, list(replica.links), found.append)
        for _ in range(int(self.config.remote_timeout.total_seconds() / _STEP)):
            if found:
                break
            cluster.run(_STEP)
        else:
            replica.fetches.expire(number)
        return found[0]


def log_in(node: SimNode) -> Token:
    """Create a session as the web layer does and return its token."""
    new = draft(RING)
    cells = {key_slot("k"): encode_value(1), new.slot: GOOD}
    version = node.commit(new.session, lambda r, m: edits.write(r, m, node.cluster.policy, cells))
    assert version is not None
    return new.seal(version)


def use(node: SimNode, token: Token) -> None:
    """Record an access."""
    node.commit(token.session, lambda r, m: edits.touch(r, m, m.now))


def verdict(node: SimNode, token: Token) -> Verdict:
    """Return what a node says of a token's session after asking whom it can."""
    front = Front(node)
    users = Users(front, None, "evict", lambda handle, user: None)
    lookup = Lookup(front, RING, users, Glances(front, None, None))
    (found,) = lookup.anywhere(lookup.here([token.text]))
    return found.verdict
