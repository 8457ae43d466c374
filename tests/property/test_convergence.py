from functools import reduce
from itertools import pairwise
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.property.replicas import SESSIONS, Replicas, encoded

from canister.record import EMPTY, merge

FOREVER = 2**62

runs = given(seed=st.integers(0, 2**32), steps=st.integers(1, 100))
many = settings(deadline=None, max_examples=150)


def check_converged(replicas: Replicas) -> None:
    """I1: all replicas hold the same, and print the same digests, of all that is still retained."""
    for one, other in pairwise(replicas.stores):
        assert encoded(replicas.retained(one)) == encoded(replicas.retained(other))
        assert sorted(one.marks(replicas.latest, FOREVER)) == sorted(other.marks(replicas.latest, FOREVER))


def check_destroyed(replicas: Replicas) -> None:
    """I4: while a tombstone lives, every replica has it and nothing else of the session."""
    for session, _, keep in replicas.destroyed:
        for store in replicas.stores if keep > replicas.latest else ():
            record = store.load(session).record
            assert record is not None
            assert record.destroy is not None


@runs
@many
def test_everything_arrives(seed: int, steps: int) -> None:
    """I1, I3: all replicas end up with the merge of all commits, in whatever order they came."""
    replicas = Replicas(Random(seed), session_timeout="5m", absolute_lifetime="30m", grace_period="400d")
    replicas.run(steps)
    replicas.settle()
    check_converged(replicas)
    check_destroyed(replicas)
    for session in SESSIONS:
        union = reduce(merge, (delta for s, delta in replicas.commits() if s == session), EMPTY)
        for store in replicas.stores:
            assert (store.load(session).record or EMPTY) == union


@runs
@many
def test_lifetimes(seed: int, steps: int) -> None:
    """I1, I4: replicas converge while sessions and tombstones end, are swept, and ids come again."""
    replicas = Replicas(
        Random(seed),
        session_timeout="5m",
        absolute_lifetime="15m",
        grace_period="4m",
        touch_interval="0s",
    )
    replicas.run(steps)
    replicas.settle()
    check_converged(replicas)
    check_destroyed(replicas)


@runs
@many
def test_destroyed_sessions_never_come_back(seed: int, steps: int) -> None:
    """I9: where clocks differ by no more than they may, a tombstone outlives all it has to hide.

    Sessions and tombstones end and are swept here, on some nodes before the others know of them.
    """
    replicas = Replicas(
        Random(seed),
        agreeing=True,
        session_timeout="5m",
        absolute_lifetime="15m",
        grace_period="4m",
    )
    replicas.run(steps)
    replicas.settle()
    check_converged(replicas)
    check_destroyed(replicas)
    for session, _, _ in replicas.destroyed:
        for store in replicas.stores:
            assert replicas.retained(store).get(session, EMPTY).birth is None
