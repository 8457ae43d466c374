"""The checks of `benchmarks.rivals`, whose table shows how others do, on Canister itself."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from benchmarks.rivals.apps import canister_app
from benchmarks.rivals.checks import CHECKS, Subject
from benchmarks.rivals.serving import Gate, Place

pytestmark = pytest.mark.integration


@pytest.fixture
def subject(tmp_path: Path) -> Iterator[Subject]:
    gate, place = Gate(), Place(tmp_path, "")
    app = canister_app.make(place, gate, "")
    with app.manager.canister, canister_app.serve(app) as port:
        yield Subject(port, gate, canister_app.COOKIE, partial(canister_app.plant, place), tmp_path)


@pytest.mark.parametrize("check", CHECKS)
def test_canister_withstands(subject: Subject, check: str) -> None:
    assert CHECKS[check](subject) is True
