"""A peer that says anything at all: the node stays whole, and nothing but ProtocolError comes out."""

import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fuzz import hostile
from tests.fuzz.victim import (
    CONFIG,
    PEER,
    Victim,
)

from canister.clock import SECOND
from canister.errors import ProtocolError
from canister.record import (
    Version,
)
from canister.replication import messages as m
from canister.replication.digests import DigestTree
from canister.replication.messages import Message
from canister.store.base import Member
from canister.store.sqlite import SqliteStore


@settings(max_examples=200, deadline=None)
@given(st.lists(hostile.lying | st.integers(0, 30), max_size=12))
def test_lies_of_every_kind_leave_the_node_whole(said: list[Message | int]) -> None:
    """Any messages, between them time that passes: the digest is that of the rows, each row is possible."""
    victim = Victim()
    for word in said:
        if isinstance(word, int):
            victim.clock.advance(word * SECOND)
            victim.replica.tick()
            continue
        if 1 not in victim.replica.links and not victim.replica.membership.me.removed:
            try:
                victim.link(1, "n1:1", PEER)
            except (AssertionError, ProtocolError):
                break  # it has removed itself
        try:
            victim.hears(word)
        except ProtocolError as error:
            pytest.fail(f"out of place: {error}")
    victim.check()


@settings(max_examples=60, deadline=None)
@given(st.lists(hostile.lying, min_size=1, max_size=12))
def test_sqlite_takes_whatever_gets_through(said: list[Message]) -> None:
    """What the decoder lets pass, SQLite can hold: no integer too large, no text it refuses."""
    victim = _on_sqlite()
    victim.replica.links.clear()
    for word in said:
        if 1 not in victim.replica.links:
            if victim.replica.membership.me.removed or len(victim.replica.membership.all()) > 200:
                _forget_victim()
                return
            victim.replica.membership.merge(
                [Member("n1:1", Version(b"\xff" * 16), False, Version(b""), PEER)]
            )
            victim.replica.links.pop(1, None)
            stated = Member("n1:1", Version(b"\xff" * 16), False, Version(b""), PEER)
            hello = m.Hello(1, 1, "canister", stated, b"12345678", victim.clock.now(), [])
            victim.replica.opened(1, hello, dialed=False)
        victim.hears(word)
    victim.clock.advance(SECOND)
    victim.replica.tick()
    at = victim.clock.now()
    with victim.store.snapshot() as snapshot:
        fresh = DigestTree()
        fresh.build(snapshot, at)
        assert victim.replica.digest(at) == fresh.root()


_kept: dict[str, Victim] = {}
_paths: list[Path] = []


@pytest.fixture(autouse=True)
def directory(tmp_path_factory: pytest.TempPathFactory) -> None:
    _forget_victim()
    _paths[:] = [tmp_path_factory.mktemp("sqlite")]


def _on_sqlite() -> Victim:
    """Return a node on SQLite; the examples of a test share it."""
    if "it" not in _kept:
        path = _paths[0] / str(time.monotonic_ns())
        _kept["it"] = Victim(lambda clock: SqliteStore(path, CONFIG, clock))
    return _kept["it"]


def _forget_victim() -> None:
    if "it" in _kept:
        _kept.pop("it").store.close()
