"""Scripted stories about absence: each ends well with the code as it is."""

from datetime import timedelta

from canister.clock import SECOND
from canister.config import Config
from canister.life import is_live
from canister.sessions.lookup import Verdict
from canister.testing.simulation import Cluster, SimNode

from .front import Front, log_in, use, verdict

TINY = Config(
    session_timeout=timedelta(seconds=8),
    absolute_lifetime=timedelta(seconds=300),
    grace_period=timedelta(seconds=5),
    max_clock_drift=timedelta(seconds=4),
    node_interval=timedelta(seconds=4),
    digest_interval=timedelta(seconds=1),
)


def isolate(cluster: Cluster, node: SimNode, *others: SimNode) -> None:
    cluster.network.cut([node], others)
    cluster.network.cut(others, [node])


def what_is_used_behind_a_split_is_not_over() -> None:
    """R23: a session that is over on the nodes of one side does not end a cookie there."""
    cluster = Cluster(3, seed=1, config=TINY)
    a, b, c = cluster.nodes.values()
    cluster.run(3)
    token = log_in(a)
    cluster.run(1)
    isolate(cluster, c, a, b)
    for _ in range(5):
        cluster.run(2)
        use(c, token)
    assert verdict(c, token) is Verdict.LIVE
    assert [verdict(node, token) for node in (a, b)] == [Verdict.OPEN] * 2
    cluster.network.heal()
    cluster.run(3)
    assert [verdict(node, token) for node in (a, b, c)] == [Verdict.LIVE] * 3


def what_was_left_out_of_a_comparison_is_not_absent() -> None:
    """R23: a node that heard of a session's creation, and got no row of it, does not call it absent."""
    cluster = Cluster(3, seed=2, config=TINY)
    a, b, c = cluster.nodes.values()
    cluster.run(3)
    token = log_in(c)
    cluster.run(1)
    isolate(cluster, c, a, b)
    for _ in range(8):
        cluster.run(2)
        use(c, token)
    late = cluster.add("late")
    isolate(cluster, c, a, b, late)
    late.boot()
    cluster.run(2)
    assert late.store.load(token.session).record is None
    assert verdict(late, token) is Verdict.OPEN
    cluster.network.heal()
    cluster.run(3)
    assert verdict(late, token) is Verdict.LIVE


def who_joined_a_moment_ago_counts() -> None:
    """R24: a member that only the peers know of yet may have created the session."""
    cluster = Cluster(3, seed=3, config=TINY)
    a, b, c = cluster.nodes.values()
    cluster.run(3)
    new = cluster.add("new", seeds=[b.address])
    isolate(cluster, new, a, c)
    new.boot()
    while new.address not in {link.address for link in b.replica.links.values()}:
        cluster.run(0.00001)
    assert new.address not in {member.address for member in a.replica.membership.others()}
    isolate(cluster, new, b)
    token = log_in(new)
    assert verdict(a, token) is Verdict.OPEN
    cluster.network.heal()
    cluster.run(3)
    assert verdict(a, token) is Verdict.LIVE


def who_has_yet_to_meet_its_cluster_calls_nothing_absent() -> None:
    """R24: a node that knows of a seed and of no member is not all there is."""
    cluster = Cluster(2, seed=6, config=TINY)
    a, b = cluster.nodes.values()
    cluster.run(3)
    token = log_in(a)
    new = cluster.add("new", seeds=[a.address])
    isolate(cluster, new, a, b)
    new.boot()
    cluster.run(2)
    loaded = Front(new).load(token.session)
    assert (loaded.stored.record, loaded.certain) == (None, False)
    assert verdict(new, token) is Verdict.OPEN
    cluster.network.heal()
    cluster.run(3)
    assert verdict(new, token) is Verdict.LIVE


def what_is_held_back_is_not_absent() -> None:
    """R6: a session whose rows are all dated too far ahead is one of which the node cannot tell."""
    cluster = Cluster(2, seed=4, config=TINY)
    a, b = cluster.nodes.values()
    cluster.run(3)
    a.clock.error = 6 * SECOND
    token = log_in(a)
    a.clock.error = 0
    cluster.run(0.5)
    stored = b.store.load(token.session)
    assert (stored.record, stored.held or b.whole(token.session) is not None) == (None, True)
    assert verdict(b, token) is Verdict.OPEN
    cluster.run(3)
    assert verdict(b, token) is Verdict.LIVE


def what_was_used_a_moment_ago_is_not_over() -> None:
    """R23: comparisons of before a session was over say nothing of whether it is over."""
    cluster = Cluster(3, seed=5, config=TINY)
    a, b, c = cluster.nodes.values()
    cluster.run(3)
    token = log_in(a)
    cluster.run(7.5)
    isolate(cluster, c, a, b)
    use(c, token)
    cluster.run(1)
    assert a.store.peers().doubts == 0
    assert not is_live(a.visible(token.session), a.clock.now())
    assert [verdict(node, token) for node in (a, b)] == [Verdict.OPEN] * 2
    cluster.network.heal()
    cluster.run(3)
    assert [verdict(node, token) for node in (a, b, c)] == [Verdict.LIVE] * 3
