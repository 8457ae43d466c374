import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from canister import Canister
from canister.testing.clock import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def canister(tmp_path: Path, clock: ManualClock) -> Iterator[Canister]:
    with Canister(tmp_path / "data", clock=clock) as canister:
        yield canister


@pytest.fixture
def hops(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the names of what an event loop has a thread do; it is done at once."""
    names: list[str] = []

    async def to_thread(call: Any, *args: Any) -> Any:
        names.append(call.__name__)
        return call(*args)

    monkeypatch.setattr(asyncio, "to_thread", to_thread)
    return names
