from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.sessions.kit import KEY

from canister import Canister
from canister.sessions import SessionManager
from canister.testing.clock import ManualClock


@pytest.fixture
def canister(tmp_path: Path, clock: ManualClock) -> Iterator[Canister]:
    with Canister(tmp_path / "data", agent=False, clock=clock) as canister:
        yield canister


@pytest.fixture
def manager(canister: Canister) -> SessionManager:
    return SessionManager(canister, secret_keys=KEY)
