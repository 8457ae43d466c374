import pytest
from tests.fuzz.victim import Victim


@pytest.fixture
def victim() -> Victim:
    return Victim()
