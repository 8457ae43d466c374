"""Requests that show what was shown before: what is kept of them, and what they still get."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.unit.sessions.kit import KEY, create, sent

from canister import Canister
from canister.sessions import Session, SessionManager
from canister.sessions.seen import seal
from canister.testing.clock import ManualClock


def glance_of(session: Session) -> Any:
    return session.state.contents.glance


def test_a_commit_that_only_reads_waits_for_no_disk(
    tmp_path: Path, clock: ManualClock, hops: list[str]
) -> None:
    async def request(manager: SessionManager, cookie: str, **writes: int) -> None:
        session = await manager.aload([cookie])
        assert session["a"] == 1
        session.update(writes)
        assert (await manager.acommit(session)).vary

    with Canister(tmp_path / "data", agent=False, clock=clock, durability="full") as canister:
        manager = SessionManager(canister, secret_keys=KEY)
        cookie = create(manager, a=1)
        asyncio.run(request(manager, cookie))
        asyncio.run(request(manager, cookie))
        assert hops == []
        asyncio.run(request(manager, cookie, b=2))
        assert hops == ["commit"]


def test_nothing_is_kept_of_values_that_are_no_good(tmp_path: Path, clock: ManualClock) -> None:
    """A client may send as many as it likes."""
    with Canister(tmp_path / "data", agent=False, clock=clock, listen="127.0.0.1:7499") as canister:
        manager = SessionManager(canister, secret_keys=KEY)
        session = manager.load([])
        session["a"] = 1
        outcome = manager.commit(session)
        cookie, seen = sent(outcome.set_cookie), sent(outcome.set_seen)
        for values in (["x" * 4000], ["x"] * 50, [seen, "x" * 4000], [seen + "A"]):
            assert manager.load([cookie], values) == {"a": 1}
            assert glance_of(manager.load([cookie], values)) is None
        token = manager.load([cookie]).state.token
        assert token is not None
        other = seal((), token)
        assert glance_of(manager.load([cookie], [other])).seen_values == ()
        assert glance_of(manager.load([cookie], [seen])).seen_values == (seen,)


def test_a_client_gets_its_first_stamp_when_the_node_gets_its_first_peer(
    manager: SessionManager, canister: Canister
) -> None:
    cookie = create(manager, a=1)
    assert manager.commit(manager.load([cookie])).set_seen is None
    session = manager.load([cookie])
    assert session["a"] == 1
    assert session.state.glance is not None
    canister.node.store.set_doubts(1)
    assert manager.commit(session).set_seen is not None


def test_a_change_made_while_a_commit_is_under_way_is_stored_by_the_next(
    manager: SessionManager, canister: Canister, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = manager.load([create(manager, a=1)])
    commit = canister.node.store.commit

    def meanwhile(*args: Any) -> Any:
        session["a"] = 3
        session["b"] = 4
        return commit(*args)

    session["a"] = 2
    with monkeypatch.context() as patched:
        patched.setattr(canister.node.store, "commit", meanwhile)
        cookie = session.state.token
        manager.commit(session)
    assert session.changes().any
    manager.commit(session)
    assert cookie is not None
    assert manager.load([cookie.text]) == {"a": 3, "b": 4}


def test_whoever_shows_a_replaced_secret_gets_the_new_one_each_time(manager: SessionManager) -> None:
    old = create(manager, a=1)
    session = manager.load([old])
    session.renew()
    new = sent(manager.commit(session).set_cookie)
    for shown in (new, old, new, old, old):
        session = manager.load([shown])
        session.mark_accessed()
        if shown is old:
            assert sent(manager.commit(session).set_cookie) == new
