"""Destroys that race with what keeps a session alive, and absences: nothing comes back, nothing alive goes.

All on virtual time with the times a node has by default: weeks pass in no time.
"""

from collections.abc import Iterable
from datetime import timedelta

import pytest

from canister import edits
from canister.clock import DAY, SECOND
from canister.codec import encode_id, encode_value, key_slot
from canister.config import Config
from canister.life import is_live
from canister.record import META, Slot
from canister.sessions.lookup import Verdict
from canister.testing.simulation import Cluster, SimNode

from .front import log_in, use, verdict
from .stories import isolate

S, T = encode_id("s"), encode_id("t")
USER = Slot(META + b"user")
LONG = Config(session_timeout=timedelta(days=29))
"""Sessions that weeks without a request do not end."""
SKEWS = (-40, 0, 40)
"""Seconds by which the clock of the side that logs in is ahead: less than max_clock_drift allows."""


def write(node: SimNode, session: bytes, key: str, *more: tuple[Slot, bytes]) -> None:
    cells = {key_slot(key): encode_value(key), **dict(more)}
    node.commit(session, lambda r, m: edits.write(r, m, node.cluster.policy, cells))


def destroy(node: SimNode, session: bytes) -> None:
    node.commit(session, lambda r, m: edits.destroy(r, m, node.cluster.policy))


def live(nodes: Iterable[SimNode], session: bytes) -> list[bool]:
    return [is_live(node.visible(session), node.clock.now()) for node in nodes]


def weeks_pass(cluster: Cluster, weeks: int) -> None:
    """Let weeks pass at once; then the sweeps are made up for."""
    cluster.schedule.leap(weeks * 7 * DAY)
    cluster.run(30)
    for node in cluster.running:
        assert node.replica is not None
        for destroyed in (False, True):
            node.store.sweep(node.replica.gate(), 100, destroyed=destroyed)


def three(config: Config | None = None) -> tuple[Cluster, list[SimNode]]:
    cluster = Cluster(3, seed=1, config=config)
    cluster.run(3)
    return cluster, list(cluster.nodes.values())


@pytest.mark.parametrize("skew", SKEWS)
@pytest.mark.parametrize("first", ["destroy", "log-in"])
def test_a_destroy_and_a_log_in_race_across_a_split(first: str, skew: int) -> None:
    """The old id is gone everywhere, whoever was first by whose clock; the id of the log-in lives."""
    cluster, (a, b, c) = three()
    write(a, S, "cart")
    cluster.run(1)
    isolate(cluster, c, a, b)
    c.clock.error = skew * SECOND

    def log_in_at_c() -> None:
        policy = cluster.policy
        write(c, S, "late", (USER, encode_value("u")))
        cells = {key_slot("cart"): encode_value("cart"), USER: encode_value("u")}
        c.loop.run(
            lambda: c.store.commit(
                [
                    (T, lambda r, m: edits.write(r, m, policy, cells)),
                    (S, lambda r, m: edits.destroy(r, m, policy)),
                ]
            )
        )

    acts = [lambda: destroy(a, S), log_in_at_c]
    for act in acts if first == "destroy" else reversed(acts):
        act()
        cluster.run(1)
    cluster.network.heal()
    cluster.run(60)
    assert live((a, b, c), S) == [False] * 3
    assert live((a, b, c), T) == [True] * 3
    assert len(cluster.digests()) == 1


@pytest.mark.parametrize("skew", SKEWS)
def test_a_write_that_is_newer_than_the_destroy_does_not_undo_it(skew: int) -> None:
    """A log-in that keeps the id, behind a split: the id stays destroyed."""
    cluster, (a, b, c) = three()
    write(a, S, "cart")
    cluster.run(1)
    isolate(cluster, c, a, b)
    c.clock.error = skew * SECOND
    destroy(a, S)
    cluster.run(1)
    write(c, S, "late", (USER, encode_value("u")))
    assert live((c,), S) == [True]
    cluster.network.heal()
    cluster.run(60)
    assert live((a, b, c), S) == [False] * 3


@pytest.mark.parametrize("away", [10, 4 * 7 * DAY // SECOND], ids=["seconds", "weeks"])
def test_the_node_dies_right_after_it_has_answered_a_destroy(away: int) -> None:
    """The tombstone is on its disk alone. When the node is back, the session is gone everywhere."""
    cluster, (a, b, c) = three(LONG)
    write(b, S, "cart")
    write(b, T, "cart")
    cluster.run(1)
    destroy(a, S)
    a.crash()
    cluster.run(1)
    assert live((b, c), S) == [True] * 2, "nobody was told"
    if away > 60:
        weeks_pass(cluster, away * SECOND // (7 * DAY))
    else:
        cluster.run(away)
    write(c, S, "late")
    a.boot()
    cluster.run(5)
    assert live((a, b, c), S) == [False] * 3
    assert live((a, b, c), T) == [True] * 3


def test_the_other_side_goes_on_touching_a_destroyed_session() -> None:
    """For most of a day, far past the idle timeout and the grace period of the side that destroyed it."""
    cluster, (a, b, c) = three()
    token, other = log_in(a), log_in(a)
    cluster.run(1)
    isolate(cluster, c, a, b)
    destroy(a, token.session)
    cluster.run(1)
    for _ in range(60):
        cluster.schedule.leap(15 * 60 * SECOND)
        cluster.run(1)
        use(c, token)
        use(c, other)
    weeks_pass(cluster, 0)
    assert verdict(c, token) is Verdict.LIVE
    cluster.network.heal()
    cluster.run(40)
    assert [verdict(node, token) for node in (a, b, c)] == [Verdict.GONE] * 3
    assert [verdict(node, other) for node in (a, b, c)] == [Verdict.LIVE] * 3, "a split logs nobody out"


def test_a_node_that_was_away_for_weeks() -> None:
    """What was destroyed meanwhile stays so, what the node alone had and still lives is there for all."""
    cluster, (a, b, c) = three(LONG)
    gone, kept = log_in(a), log_in(a)
    cluster.run(1)
    isolate(cluster, c, a, b)
    own = log_in(c)
    c.crash()
    cluster.network.heal()
    destroy(b, gone.session)
    weeks_pass(cluster, 4)
    late = log_in(a)
    c.boot()
    cluster.run(10)
    for token, found in (
        (gone, Verdict.GONE),
        (kept, Verdict.LIVE),
        (own, Verdict.LIVE),
        (late, Verdict.LIVE),
    ):
        assert [verdict(node, token) for node in (a, b, c)] == [found] * 3
    weeks_pass(cluster, 60)
    assert [node.visible(gone.session) for node in (a, b, c)] == [None] * 3, "the tombstone is swept at last"
