from collections.abc import Iterator
from pathlib import Path

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
