"""Whom a node links with, and what it tells and learns of the members.

What a peer states of itself and of others is weighed here, once: at its hello and with every list of
members that it sends.
"""

from collections.abc import Iterable, Mapping

from canister.clock import Clock
from canister.errors import ProtocolError
from canister.replication.keyrings import KeyRings
from canister.replication.link import Link, LinkId
from canister.replication.membership import Membership
from canister.replication.messages import MOST_MEMBERS, OLDEST, PROTOCOL, Hello, MemberList
from canister.replication.runtime import Runtime
from canister.store.base import Member, ReplicatedStore


class Admission:
    """Greets peers and keeps the member list.

    Args:
        cluster: the name of the cluster.
        incarnation: what tells this run of the node from the ones before it.
        store: the node's sessions.
        membership: whom the node knows.
        clock: where the time comes from.
        runtime: what sends.
        links: the node's links, as they are at any time.
        keys: the secret keys of this node's processes.
    """

    def __init__(
        self,
        cluster: str,
        incarnation: bytes,
        store: ReplicatedStore,
        membership: Membership,
        clock: Clock,
        runtime: Runtime,
        links: Mapping[LinkId, Link],
        keys: KeyRings,
    ) -> None:
        self._cluster = cluster
        self._incarnation = incarnation
        self._store = store
        self._membership = membership
        self._clock = clock
        self._runtime = runtime
        self._links = links
        self._keys = keys
        self._was_removed = False

    def hello(self) -> Hello:
        """Return the first message for a new link."""
        return Hello(
            oldest=OLDEST,
            newest=PROTOCOL,
            cluster=self._cluster,
            member=self._membership.me,
            incarnation=self._incarnation,
            now=self._clock.now(),
            members=self._membership.all(),
            fingerprints=self._keys.own,
        )

    def refusal(self, hello: Hello, heard: Iterable[Link]) -> str | None:
        """Return why a peer that says *hello* cannot be linked with, None if it can.

        The peer is the subject of the sentence, which each side begins as it knows it.

        Args:
            hello: what it says.
            heard: the links that have not fallen silent. Whoever is heard lives, whatever another one with
                its address states later; a node whose data was replaced has gone, and its link falls silent.
        """
        if hello.oldest > PROTOCOL or hello.newest < OLDEST:
            return f"speaks protocol {hello.oldest} to {hello.newest}, this node {OLDEST} to {PROTOCOL}"
        if hello.cluster != self._cluster:
            return f"belongs to cluster {hello.cluster!r}, this node to {self._cluster!r}"
        if hello.member.node == self._store.node or hello.member.address == self._membership.address:
            return "is this node itself, or another one with its address or a copy of its data"
        if any(k.address == hello.member.address and k.node != hello.member.node for k in heard):
            return "has the address of another node, which is linked: each node needs its own"
        if self._membership.belongs_to_another(hello.member):
            return "has the address of another node by now: each node needs its own"
        if hello.member.removed or self._membership.is_removed(hello.member):
            return "was removed from the cluster; it may return with empty data only"
        if self._membership.me.removed:
            removed = self._membership.address
            return f"cannot be linked with: {removed} was removed from the cluster; start it with empty data"
        other = next((k.address for k in self._links.values() if k.node == hello.member.node), None)
        if other not in (None, hello.member.address):
            return f"has the node id of {other}, which is linked: one of them runs on a copy of the data"
        if len(self._links) >= MOST_MEMBERS:
            return f"cannot be linked with: there are {MOST_MEMBERS} links already"
        return None

    def learn(self, members: Iterable[Member]) -> bool:
        """Take in what a peer says of the members; return whether anything is new.

        Raises:
            ProtocolError: there are more than there can be.
        """
        known, named = self._membership.all(), list(members)
        if named == known:
            return False  # nearly always so, and every comparison brings a list
        latest = {member.address: member for member in sorted([*known, *named], key=Member.order)}
        if sum(not member.removed for member in latest.values()) > MOST_MEMBERS:
            raise ProtocolError(f"with those it names the cluster has more than {MOST_MEMBERS} members")
        return self._membership.merge(named)

    def look(self) -> None:
        """Raise the alarm if this node was removed; tell all peers of its keys if they have changed."""
        removed = self._membership.me.removed
        if removed and not self._was_removed:
            self._runtime.alarm(
                "this node was removed from the cluster: what it writes reaches no member and is lost; stop "
                "it, and start it with an empty directory"
            )
        self._was_removed = removed
        if self._keys.look():
            self.tell()

    def tell(self) -> None:
        """Tell all peers of the members, and of this node's keys."""
        self._runtime.send(list(self._links), MemberList(self._membership.all(), self._keys.own))

    def spread(self) -> list[Link]:
        """Keep the changed list and tell all peers; return the links that it leaves no room for."""
        members = self._membership.all()
        self._store.save_members(members)
        self.tell()
        removed = {member.address for member in members if member.removed}
        links = self._links.values()
        return [link for link in links if self._membership.me.removed or link.address in removed]
