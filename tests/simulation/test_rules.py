"""Each rule of the protocol: its own story holds, and the checks find the code without it."""

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from canister import edits
from canister.clock import SECOND
from canister.codec import encode_id, encode_value, key_slot
from canister.life import NEVER, is_live
from canister.record import KEY, node_of
from canister.testing.simulation import Cluster, SimNode, Violation, run_scenario
from canister.testing.simulation.checks import Reader

from . import planted, stories
from .stories import TINY
from .test_interleavings import SEARCHED

S = encode_id("s")
MOST_SEEDS = 80


def put(node: SimNode, key: str) -> None:
    cells = {key_slot(key): encode_value(key)}
    node.commit(S, lambda r, m: edits.write(r, m, node.cluster.policy, cells))


def keys(node: SimNode) -> set[str]:
    record = node.visible(S)
    return {slot[2:].decode() for slot in record.cells if slot[0] == KEY[0]} if record else set()


def sweep(cluster: Cluster) -> None:
    for node in cluster.running:
        assert node.replica is not None
        node.store.sweep(node.replica.gate(), 100, destroyed=False)


def purge_waits_for_all_members() -> None:
    """R13: a write whose session lives on behind a split is not dropped with it."""
    cluster = Cluster(3, seed=1, config=TINY)
    a, b, c = cluster.nodes.values()
    cluster.run(3)
    put(a, "k1")
    cluster.run(1)
    cluster.network.cut([a, b], [c])
    cluster.network.cut([c], [a, b])
    put(a, "k2")
    for _ in range(10):
        cluster.run(2)
        c.commit(S, lambda r, m: edits.touch(r, m, m.now))
        sweep(cluster)
    cluster.network.heal()
    cluster.run(8)
    assert [keys(node) for node in (a, b, c)] == [{"k1", "k2"}] * 3


def an_old_backup_brings_nothing_back() -> None:
    """R14: a session whose idle timeout was cut short stays over when an old copy turns up."""
    cluster = Cluster(3, seed=2, config=TINY)
    a, _, c = cluster.nodes.values()
    cluster.run(3)
    put(a, "k1")
    policy = cluster.policy
    a.commit(S, lambda r, m: edits.set_expiry(r, m, policy, 200 * SECOND, None))
    cluster.run(1)
    c.disk.save("backup")
    a.commit(S, lambda r, m: edits.set_expiry(r, m, policy, SECOND, None))
    for _ in range(10):
        cluster.run(2)
        sweep(cluster)
    cluster.journal.roll_back(c, "backup")
    c.boot()
    cluster.run(8)
    live = [is_live(node.visible(S), node.clock.now()) for node in cluster.nodes.values()]
    assert live == [False] * 3


def clocks_apart_do_not_make_sessions_flap() -> None:
    """R16: what is over by one clock and not by the other is left out on both sides."""
    cluster = Cluster(2, seed=3, config=TINY)
    a, b = cluster.nodes.values()
    b.clock.error = 3 * SECOND
    cluster.run(3)
    put(a, "k1")
    exchanged = []
    for _ in range(60):
        cluster.run(0.5)
        sweep(cluster)
        exchanged.append(sum(node.replica.comparisons.exchanged for node in (a, b) if node.replica))
    assert exchanged[-1] == exchanged[2], exchanged


def what_is_held_back_is_not_sent_again() -> None:
    """R7: nodes that hold the same rows fall silent, though one shows them and others do not yet."""
    cluster = Cluster(3, seed=4, config=replace(TINY, session_timeout=timedelta(seconds=100)))
    a, b, _ = cluster.nodes.values()
    cluster.run(3)
    put(a, "k1")
    cluster.run(1)
    a.clock.error = 10 * SECOND
    put(a, "k2")
    a.clock.error = 0
    cluster.run(1.5)
    assert (keys(a), keys(b)) == ({"k1", "k2"}, {"k1"})
    exchanged = []
    for _ in range(4):
        exchanged.append(sum(n.replica.comparisons.exchanged for n in cluster.running if n.replica))
        cluster.run(1)
    assert len(set(exchanged)) == 1, exchanged
    cluster.run(4)
    assert keys(b) == {"k1", "k2"}


def who_forgets_vouches_for_nothing() -> None:
    """R19: a node that forgot a session does not serve its absence to who has seen it."""
    cluster = Cluster(2, seed=5, config=TINY)
    a, b = cluster.nodes.values()
    cluster.run(3)
    put(a, "k1")
    cluster.run(2)
    reader = Reader(S)
    assert reader.read(cluster, a)
    assert reader.read(cluster, b)
    cluster.network.cut([a], [b])
    assert b.replica is not None
    b.replica.forget(S)
    assert not reader.read(cluster, b)
    cluster.network.heal()
    cluster.run(2)
    assert reader.read(cluster, b)


def who_has_back_what_it_forgot_is_compared_with_anew() -> None:
    """R19: who compared with it meanwhile may lack what it vouches for again."""
    cluster = Cluster(3, seed=9, config=TINY)
    a, b, c = cluster.nodes.values()
    cluster.run(3)
    stories.isolate(cluster, c, a, b)
    put(a, "k1")
    cluster.run(1)
    reader = Reader(S)
    assert reader.read(cluster, a)
    assert a.replica is not None
    stories.isolate(cluster, b, a, c)
    a.replica.forget(S)
    cluster.network.heal()
    stories.isolate(cluster, b, a, c)
    cluster.run(8)
    assert not reader.read(cluster, c)
    cluster.network.heal()
    stories.isolate(cluster, b, c)
    for _ in range(8000):
        cluster.run(0.0005)
        at_c = Reader(S)
        at_c.seen, at_c.shown = reader.seen, reader.shown
        at_c.read(cluster, c)
    assert keys(c) == {"k1"}


def who_forgets_what_it_has_just_written_beside_vouches_again() -> None:
    """R19: no peer can claim its last commit for it, which came while it vouched for nothing."""
    cluster = Cluster(3, seed=9, config=TINY)
    a, b, _ = cluster.nodes.values()
    cluster.run(3)
    put(a, "k1")
    assert a.replica is not None
    a.replica.forget(encode_id("t"))
    cluster.run(4)
    assert a.store.heard_of(a.store.node) == NEVER
    reader = Reader(S)
    assert reader.read(cluster, a)
    assert reader.read(cluster, b)


def what_comes_back_is_served_to_nobody_in_part() -> None:
    """R20: a comparison leaves out what is over; when a peer brings it back, it was not heard yet."""
    cluster = Cluster(2, seed=6, config=TINY)
    a, b = cluster.nodes.values()
    cluster.run(3)
    put(a, "k1")
    cluster.run(1)
    b.crash()
    put(b, "k2")
    for _ in range(8):
        cluster.run(2)
        a.commit(S, lambda r, m: edits.touch(r, m, m.now))
    b.boot()
    while keys(b) != {"k1", "k2"} or not is_live(b.visible(S), b.clock.now()):
        cluster.run(0.0005)
    reader = Reader(S)
    while not reader.read(cluster, b):
        cluster.run(0.0005)
    for _ in range(4000):
        reader_at_a = Reader(S)
        reader_at_a.seen, reader_at_a.shown = reader.seen, reader.shown
        reader_at_a.read(cluster, a)
        cluster.run(0.0005)
    assert keys(a) == {"k1", "k2"}


def who_is_behind_writes_over_what_it_has_just_got() -> None:
    """R4: the stamps of a session that was not here yet are exceeded by the next write here as well."""
    cluster = Cluster(2, seed=8, config=TINY)
    a, b = cluster.nodes.values()
    b.clock.error = -3 * SECOND
    cluster.run(3)
    put(a, "k1")
    cluster.run(1)
    assert keys(b) == {"k1"}
    put(b, "k1")
    record = b.visible(S)
    assert record is not None
    assert node_of(record.cells[key_slot("k1")].version) == b.store.node


def who_lost_commits_goes_on_as_somebody_else(directory: Path | None = None) -> None:
    """R5: a node that was rolled back does not draw versions again that others have heard of."""
    cluster = Cluster(2, seed=7, config=TINY, directory=directory)
    a, b = cluster.nodes.values()
    cluster.run(3)
    a.disk.save("before")
    put(a, "k1")
    cluster.run(1)
    cluster.network.cut([a, b], [a, b])
    cluster.journal.roll_back(a, "before")
    a.clock.error = -3 * SECOND
    a.boot()
    put(a, "k2")
    reader = Reader(S)
    assert reader.read(cluster, a)
    assert not reader.read(cluster, b)
    cluster.network.heal()
    cluster.run(4)
    assert reader.read(cluster, b)
    cluster.close()


def a_backup_copied_over_the_files_is_noticed() -> None:
    """R5: the same on real files, where the database that is put back stays the same file."""
    with TemporaryDirectory() as directory:
        who_lost_commits_goes_on_as_somebody_else(Path(directory))


STORIES: dict[Callable[[], None], planted.Plant] = {
    purge_waits_for_all_members: planted.r13_purge_without_the_gate,
    who_lost_commits_goes_on_as_somebody_else: planted.r5_node_id_kept_after_a_roll_back,
    a_backup_copied_over_the_files_is_noticed: planted.r5_commits_note_no_stamp_outside_the_database,
    who_is_behind_writes_over_what_it_has_just_got: planted.r4_new_sessions_do_not_move_the_clock,
    an_old_backup_brings_nothing_back: planted.r14_retention_follows_what_shortens,
    what_comes_back_is_served_to_nobody_in_part: planted.r20_what_comes_back_is_not_committed_anew,
    who_has_back_what_it_forgot_is_compared_with_anew: planted.r19_whole_again_without_a_word,
    who_forgets_what_it_has_just_written_beside_vouches_again: planted.r19_whole_by_the_word_of_a_peer_alone,
    who_forgets_vouches_for_nothing: planted.r19_forgetting_keeps_what_was_heard,
    what_is_held_back_is_not_sent_again: planted.r7_digest_of_visible_rows,
    clocks_apart_do_not_make_sessions_flap: planted.r16_each_side_by_its_own_clock,
    stories.what_is_used_behind_a_split_is_not_over: planted.r23_expired_here_is_over,
    stories.what_was_used_a_moment_ago_is_not_over: planted.r23_expired_here_is_over,
    stories.what_was_left_out_of_a_comparison_is_not_absent: planted.r23_absent_though_some_were_not_compared,
    stories.who_joined_a_moment_ago_counts: planted.r24_all_members_are_those_known_when_asking,
    stories.who_has_yet_to_meet_its_cluster_calls_nothing_absent: planted.r24_who_knows_nobody_is_alone,
    stories.what_is_held_back_is_not_absent: planted.r6_what_is_held_counts_for_nothing,
}
RARE = {planted.r3_outbox_sends_what_is_left, planted.r22_a_row_proves_all_before_it}
"""Bugs that random runs find only after many seeds; the search for interleavings finds them at once."""

RULES = {*range(1, 11), 12, 13, 14, 16, 17, 20, 22, 23, 24}
"""The rules of the protocol without which it breaks, and whose code there is."""


def name(of: Callable[..., object]) -> str:
    return of.__name__


@pytest.mark.parametrize("story", STORIES, ids=name)
def test_the_story_holds(story: Callable[[], None]) -> None:
    """The scripted story ends well with the code as it is."""
    story()


@pytest.mark.parametrize("story", STORIES, ids=name)
def test_the_story_shows_the_planted_bug(story: Callable[[], None]) -> None:
    """The scripted story ends badly once the rule it is about is switched off."""
    with STORIES[story](), pytest.raises(AssertionError):
        story()


RANDOM = [plant for plant in planted.PLANTED if plant not in STORIES.values() and plant not in RARE]


def test_every_rule_is_switched_off_once() -> None:
    """Each rule has a planted bug, and each planted bug is looked for."""
    assert {int(re.findall("[0-9]+", name(plant))[0]) for plant in planted.PLANTED} >= RULES
    assert {*STORIES.values(), *RANDOM, *SEARCHED} >= set(planted.PLANTED)


@pytest.mark.parametrize("plant", RANDOM, ids=name)
def test_random_runs_find_the_planted_bug(plant: planted.Plant) -> None:
    """Random schedules find a rule switched off, within a bounded number of seeds."""
    for seed in range(MOST_SEEDS):
        with plant():
            try:
                run_scenario(seed, size=3 + seed % 3)
            except Violation:
                return
    pytest.fail(f"{MOST_SEEDS} seeds did not find {plant.__name__}")
