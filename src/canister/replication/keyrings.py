"""Whether members verify what each other signs: their clients' sessions would not be found otherwise."""

from collections.abc import Mapping

from canister.replication.link import Link, LinkId
from canister.replication.membership import Membership
from canister.replication.runtime import Runtime
from canister.store.base import Fingerprints, ReplicatedStore


class KeyRings:
    """The secret keys of this node's processes and of its peers, by their fingerprints.

    Args:
        store: where the node's processes say which keys they have.
        membership: who this node is.
        links: the node's links, as they are at any time.
        runtime: what alarms go to.
    """

    def __init__(
        self,
        store: ReplicatedStore,
        membership: Membership,
        links: Mapping[LinkId, Link],
        runtime: Runtime,
    ) -> None:
        self._store = store
        self._membership = membership
        self._links = links
        self._runtime = runtime
        self._told: set[str] = set()
        self.own: Fingerprints = store.fingerprints()

    def look(self) -> bool:
        """Look at what the node's processes have said since; return whether it is something new."""
        found = self._store.fingerprints()
        if found == self.own:
            return False
        self.own = found
        self._told.clear()
        for link in self._links.values():
            self._compare(link)
        return True

    def learn(self, link: Link, fingerprints: Fingerprints) -> None:
        """Take in what a peer says of its keys."""
        link.fingerprints = fingerprints
        self._compare(link)

    def fit(self, link: Link) -> bool | None:
        """Tell whether a peer verifies what is signed here, and the other way round; None: not known."""
        if not self.own or not link.fingerprints:
            return None
        return not (_strangers(self.own, link.fingerprints) or _strangers(link.fingerprints, self.own))

    def _compare(self, link: Link) -> None:
        """Raise the alarm about a peer, once until its keys fit again."""
        fits = self.fit(link)
        if fits:
            self._told.discard(link.address)
        elif fits is False and link.address not in self._told:
            self._told.add(link.address)
            self._runtime.alarm(self._misfit(link))

    def _misfit(self, link: Link) -> str:
        here, there = self._membership.address, link.address
        ours, theirs = _strangers(self.own, link.fingerprints), _strangers(link.fingerprints, self.own)
        said = [f"{there} does not know key {key}, with which {here} signs" for key in ours]
        said += [f"{here} does not know key {key}, with which {there} signs" for key in theirs]
        return (
            f"the secret keys of {here} and {there} do not fit: {'; '.join(said)}; "
            "what clients of the one show is not known to the other. Give all nodes the same secret_keys "
            "(CANISTER_SECRET_KEYS), and list a new key on all of them before any signs with it"
        )


def _strangers(signing: Fingerprints, verifying: Fingerprints) -> list[str]:
    """Return the keys that sign on one side and are not listed on the other."""
    listed = {key for ring in verifying for key in ring}
    return [ring[0] for ring in signing if ring and ring[0] not in listed]
