"""The API where the agent or the other members are not there: what is known, and what nobody can tell."""

from datetime import timedelta
from pathlib import Path

import pytest

from canister import Canister, edits
from canister.agent.presence import AgentPresence
from canister.codec import encode_id, encode_value, key_slot
from canister.edits import Moment
from canister.errors import (
    AcknowledgementError,
    AgentError,
    CannotTellError,
    StoreError,
)
from canister.freshness import Fetched, encode_seen
from canister.record import NodeId, make_version, node_of
from canister.store.base import Member, Needed, Stored
from canister.testing.clock import ManualClock

JOINED = make_version(1, NodeId(b"elsewher"))
ELSEWHERE = Member("127.0.0.1:1", JOINED, removed=False, version=JOINED, node=node_of(JOINED))


def test_without_an_agent_sessions_work_and_members_say_what_to_do(tmp_path: Path) -> None:
    """A short-lived tool reads and writes; what needs the agent says that there is none."""
    with Canister(tmp_path, agent=False) as tool:
        tool.put("s", "k", 1)
        assert tool.get("s", "k") == 1
        assert tool.num_local_sessions() == 1
        with pytest.raises(AgentError, match="no agent runs"):
            tool.members()


@pytest.mark.parametrize(("acks", "needed"), [(2, 2), ("majority", 2), ("all", 2)])
def test_without_an_agent_what_is_not_acknowledged_stands(tmp_path: Path, acks: Needed, needed: int) -> None:
    """Nobody can be asked who holds it; that is no reason to say that it was not written."""
    with Canister(tmp_path, agent=False) as tool:
        tool.node.store.save_members([ELSEWHERE])
        with pytest.raises(AcknowledgementError, match="nobody could be asked") as caught:
            tool.put("s", "k", 1, acks=acks)
        assert (caught.value.held, caught.value.needed) == (0, needed)
        assert tool.get("s", "k", local=True) == 1


def test_a_closed_node_refuses(tmp_path: Path) -> None:
    """After close nothing is served from memory; closing twice is no error."""
    node = Canister(tmp_path)
    node.put("s", "k", 1)
    node.close()
    node.close()
    with pytest.raises(StoreError):
        node.get("s", "k")
    with pytest.raises(StoreError):
        node.put("s", "k", 2)
    with Canister(tmp_path) as again:
        assert again.get("s", "k") == 1


def test_what_may_be_elsewhere_is_not_called_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unknown id is absent where all members have been compared with, by an agent that is there."""
    with Canister(tmp_path, agent=False, when_behind="refuse") as canister:
        store = canister.node.store
        assert canister.get("i", "k") is None
        store.save_members([ELSEWHERE])
        with pytest.raises(CannotTellError):
            canister.get("i", "k")
        monkeypatch.setattr(AgentPresence, "is_there", lambda self: True)
        assert canister.get("i", "k") is None
        store.set_doubts(1)
        with pytest.raises(CannotTellError):
            canister.get("i", "k")


@pytest.mark.parametrize("was_here", [True, False])
def test_what_is_held_back_is_not_passed_over(tmp_path: Path, was_here: bool) -> None:
    """Who has seen what a member wrote whose clock is ahead is neither served what is older, nor nothing."""
    clock = ManualClock()
    with Canister(tmp_path, agent=False, clock=clock) as canister:
        if was_here:
            canister.put("s", "k", "old")
        now = clock.now() + 3_600_000_000
        ahead = make_version(now, node_of(JOINED))
        moment = Moment(ahead, now)
        new = edits.write(None, moment, canister.node.policy, {key_slot("k"): encode_value("new")})
        canister.node.store.merge([(encode_id("s"), new)], {node_of(JOINED): now})
        assert canister.get("s", "k", local=True) == ("old" if was_here else None)
        with pytest.raises(CannotTellError, match="held back"):
            canister.get("s", "k", after=encode_seen((ahead,)))
        clock.advance(timedelta(hours=1))
        canister.node.store.release()
        assert canister.get("s", "k", after=encode_seen((ahead,))) == "new"


@pytest.mark.parametrize("doubts", [0, 1])
def test_what_is_held_back_is_not_absent(
    tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, doubts: int
) -> None:
    """R6: of a session that is held back nobody can tell, though all members were asked or compared with."""
    with Canister(tmp_path, agent=False, clock=clock, when_behind="refuse") as canister:
        store = canister.node.store
        store.save_members([ELSEWHERE])
        store.set_doubts(doubts)
        monkeypatch.setattr(AgentPresence, "is_there", lambda self: True)
        monkeypatch.setattr(canister.node, "_fetch", lambda session: Fetched([], everyone=True))
        now = clock.now() + 3_600_000_000
        moment = Moment(make_version(now, node_of(JOINED)), now)
        store.merge([(encode_id("s"), edits.write(None, moment, canister.node.policy, {}))], {})
        assert canister.get("unknown", "k") is None
        with pytest.raises(CannotTellError):
            canister.get("s", "k")


def test_what_comes_while_it_is_looked_for_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A comparison brings a session and ends the doubts about it, after somebody has found it missing."""
    with Canister(tmp_path, agent=False) as canister, Canister(tmp_path, agent=False) as agent:
        agent.node.store.save_members([ELSEWHERE])
        monkeypatch.setattr(AgentPresence, "is_there", lambda self: True)
        assert canister.get("unknown", "k") is None
        agent.node.store.set_doubts(1)

        def compare(presence: AgentPresence) -> bool:
            agent.put("i", "k", "v")
            agent.node.store.set_doubts(0)
            return True

        monkeypatch.setattr(AgentPresence, "is_there", compare)
        assert canister.get("i", "k") == "v"


def test_what_comes_while_another_thread_looks_too_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That another reader has found all compared meanwhile says nothing of a look from before."""
    monkeypatch.setattr(AgentPresence, "is_there", lambda self: True)
    with Canister(tmp_path, agent=False) as canister, Canister(tmp_path, agent=False) as agent:
        agent.node.store.set_doubts(1)
        look = canister.node.store.load

        def look_and_wait(session: bytes) -> Stored:
            stored = look(session)
            monkeypatch.undo()
            monkeypatch.setattr(AgentPresence, "is_there", lambda self: True)
            agent.put("i", "k", "v")
            agent.node.store.set_doubts(0)
            assert canister.get("unknown", "k") is None
            return stored

        monkeypatch.setattr(canister.node.store, "load", look_and_wait)
        assert canister.get("i", "k") == "v"
