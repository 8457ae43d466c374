"""Who shares the answers of a fetch, and who asks anew."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

from canister.agent.agent import Agent
from canister.record import NodeId
from canister.replication.fetches import Fetches

B, C = NodeId(b"B" * 8), NodeId(b"C" * 8)


def link(number: int, node: NodeId) -> Any:
    return SimpleNamespace(number=number, node=node)


async def begin(agent: Agent) -> "asyncio.Task[Any]":
    task = asyncio.create_task(agent._fetch(b"s", 60.0))
    await asyncio.sleep(0)
    return task


def test_an_answer_from_before_somebody_asked_is_none_to_him() -> None:
    """What his client has seen since, who answered may have written since (I8)."""

    async def scenario() -> None:
        asked: list[tuple[int, int]] = []
        members = SimpleNamespace(has_met_cluster=True, others=lambda: [link(1, B), link(2, C)])
        fetches = Fetches(
            cast("Any", members), lambda number, message: asked.append((number, message.number))
        )
        agent = object.__new__(Agent)
        agent._fetching = {}
        agent._replica = cast("Any", SimpleNamespace(fetches=fetches, links={1: None, 2: None}))
        first, same = await begin(agent), await begin(agent)
        assert asked == [(1, 1), (2, 1)]
        fetches.answered(link(1, B), 1, {B: 10})
        later = await begin(agent)
        assert asked == [(1, 1), (2, 1), (1, 2), (2, 2)]
        same.cancel()
        fetches.answered(link(2, C), 1, {B: 3, C: 5})
        assert (await first).everyone
        assert not later.done()
        fetches.answered(link(1, B), 2, {B: 20})
        fetches.answered(link(2, C), 2, {C: 5})
        assert (await later).fetched().answers == [{B: 20}, {C: 5}]
        assert agent._fetching == {}
        assert len(fetches) == 0

    asyncio.run(scenario())
