"""Write acknowledgements: a write returns once as many members as asked for hold it."""

import logging
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.integration.cluster import eventually, free_port
from tests.unit.sessions.kit import KEY

from canister import AcknowledgementError, Canister, InputError, SessionDestroyedError
from canister.life import Status
from canister.sessions import Event, EventKind, SessionManager

pytestmark = pytest.mark.integration


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[list[Canister]]:
    ports = [free_port() for _ in range(3)]
    seed = f"127.0.0.1:{ports[0]}"
    opened = [
        Canister(tmp_path / f"n{i}", listen=f"127.0.0.1:{port}", seeds=[seed], remote_timeout="1s")
        for i, port in enumerate(ports)
    ]
    eventually(lambda: all([m.state for m in n.members()].count("up") == 2 for n in opened), 20)
    yield opened
    for node in opened:
        node.close()


def test_all_means_that_every_member_has_it(nodes: list[Canister]) -> None:
    """When put(acks="all") returns, the value is on every node, without waiting any further."""
    for number in range(50):
        nodes[0].put(f"s{number}", "k", number, acks="all")
        assert [n.get_data(f"s{number}", local=True) for n in nodes] == [{"k": number}] * 3


def test_a_majority_is_enough_when_one_is_away(nodes: list[Canister]) -> None:
    """With one member cut off, "majority" and 2 return and "all" says who holds the write."""
    nodes[2].node.isolate(on=True)
    nodes[0].put("s", "k", 1, acks="majority")
    nodes[0].update("s", {"k": 2, "l": 3}, acks=2)
    with pytest.raises(AcknowledgementError, match="2 of the 3 members") as failure:
        nodes[0].destroy("s", acks="all")
    assert failure.value.needed == 3
    assert sorted(failure.value.holders) == sorted(n.config.listen for n in nodes[:2])


def test_a_write_that_was_not_acknowledged_stands_and_spreads(nodes: list[Canister]) -> None:
    """After the error the write is here, and reaches the others when they come back."""
    for node in nodes[1:]:
        node.node.isolate(on=True)
    with pytest.raises(AcknowledgementError, match="1 of the 2 members"):
        nodes[0].put("s", "k", "kept", acks="majority")
    assert nodes[0].get("s", "k") == "kept"
    for node in nodes[1:]:
        node.node.isolate(on=False)
    eventually(lambda: all(n.get_data("s", local=True) == {"k": "kept"} for n in nodes), 10)


@pytest.mark.parametrize("acks", ["all", "majority"])
def test_a_node_that_has_yet_to_meet_its_cluster_is_not_all_of_it(tmp_path: Path, acks: Any) -> None:
    """It knows nobody but itself, and that there is a seed."""
    address, seed = (f"127.0.0.1:{free_port()}" for _ in range(2))
    with Canister(tmp_path / "n", listen=address, seeds=[seed], remote_timeout="300ms") as node:
        with pytest.raises(AcknowledgementError, match="1 of the 2 members") as failure:
            node.put("s", "k", 1, acks=acks)
        assert failure.value.needed == 2
        with Canister(tmp_path / "seed", listen=seed) as other:
            eventually(lambda: [member.state for member in node.members()].count("up") == 1, 20)
            node.put("s", "k", 2, acks=acks)
            assert other.get("s", "k", local=True) == 2


def test_whoever_comes_back_in_time_counts(nodes: list[Canister]) -> None:
    """A member that returns while the write waits is asked on its new link."""
    from threading import Timer

    nodes[2].node.isolate(on=True)
    back = Timer(0.1, lambda: nodes[2].node.isolate(on=False))
    back.start()
    try:
        nodes[0].put("s", "k", 1, acks="all")
    finally:
        back.join()
    assert nodes[2].get_data("s", local=True) == {"k": 1}


def test_every_verb_that_writes_may_wait(nodes: list[Canister]) -> None:
    until = datetime.now(UTC) + timedelta(hours=1)
    verbs: list[Callable[[Canister], object]] = [
        lambda node: node.put("s", "k", 1, acks="all"),
        lambda node: node.update("s", {"l": 2}, acks="all"),
        lambda node: node.remove("s", "l", acks="all"),
        lambda node: node.set_expiry("s", until=until, acks="all"),
        lambda node: node.clear("s", acks="all"),
        lambda node: node.destroy("s", acks="all"),
    ]
    for verb in verbs:
        verb(nodes[0])
        wanted = nodes[0].version("s")
        assert [node.version("s") for node in nodes] == [wanted] * 3
    nodes[2].node.isolate(on=True)
    for verb in verbs[:2]:
        with pytest.raises(SessionDestroyedError):
            verb(nodes[0])
    nodes[0].update("t", {"k": 1, "l": 2})
    for name in ("remove", "clear"):
        with pytest.raises(AcknowledgementError):
            getattr(nodes[0], name)(*(["t", "k"] if name == "remove" else ["t"]), acks="all")


@pytest.mark.parametrize("acks", [0, -1, True, "some", 1.5, None])
def test_a_wrong_number_is_refused_before_anything_is_written(nodes: list[Canister], acks: object) -> None:
    """acks is a number from 1, "majority" or "all"; anything else writes nothing."""
    with pytest.raises(InputError, match="acks"):
        nodes[0].put("s", "k", 1, acks=acks)  # type: ignore[arg-type]
    assert nodes[0].get_data("s") == {}


def test_more_members_than_there_are_is_an_error_in_time(nodes: list[Canister]) -> None:
    """Asking for more members than the cluster has ends with the error, not with a hang."""
    with pytest.raises(AcknowledgementError, match="3 of the 4 members"):
        nodes[0].put("s", "k", 1, acks=4)


def log_in(manager: SessionManager, user: str) -> str:
    """Log a user in; return the session's handle."""
    session = manager.load([])
    session.login(user)
    manager.commit(session)
    assert session.handle is not None
    return session.handle


def test_to_end_sessions_waits_as_well(nodes: list[Canister]) -> None:
    """Of a session manager with acks: when a user's sessions are ended, every member knows."""
    manager = SessionManager(nodes[0], secret_keys=KEY, acks="all")
    for number in range(20):
        one, another = log_in(manager, "ann"), log_in(manager, "ann")
        if number % 2:
            assert manager.users.end("ann", one)
        assert manager.users.end_all("ann") == 2 - number % 2
        for node in nodes:
            assert [node.record_status(handle).status for handle in (one, another)] == [Status.DESTROYED] * 2


def test_what_ended_without_being_acknowledged_is_over(
    nodes: list[Canister], caplog: pytest.LogCaptureFixture
) -> None:
    """The error names who knows of it; here nobody gets in any more, and who subscribed is told."""
    manager = SessionManager(nodes[0], secret_keys=KEY, acks="all")
    handles = [log_in(manager, "ann") for _ in range(3)]
    told: list[Event] = []
    manager.subscribe(told.append)
    nodes[2].node.isolate(on=True)
    caplog.set_level(logging.INFO, "canister.sessions")
    with pytest.raises(AcknowledgementError, match="2 of the 3 members"):
        manager.users.end("ann", handles[0])
    with pytest.raises(AcknowledgementError, match="2 of the 3 members"):
        manager.users.end_all("ann", keep=handles[2])
    assert [one.handle for one in manager.users.sessions("ann")] == handles[2:]
    assert [m for m in caplog.messages if "destroyed" in m] == [
        f"session {handle} was destroyed" for handle in handles[:2]
    ]
    ended = [event.handle for event in told if event.kind is EventKind.DESTROYED]
    assert [*dict.fromkeys(ended)] == handles[:2]  # each at least once
