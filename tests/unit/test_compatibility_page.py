"""Holds docs/reference/compatibility.md to the code: version, format, protocol, Python, fixtures."""

import re
import tomllib
from pathlib import Path

import canister
import canister.sessions
from canister.replication.messages import OLDEST, PROTOCOL
from canister.store.datadir import FORMAT

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reference" / "compatibility.md").read_text("utf-8")
TEXT = " ".join(PAGE.split())


def test_the_numbers_are_those_of_the_code() -> None:
    assert f"The present version is {canister.__version__}:" in TEXT
    assert f"has a format number, {FORMAT} at present" in TEXT
    assert OLDEST == PROTOCOL
    assert f"at present {PROTOCOL} alone" in TEXT
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["requires-python"].removeprefix(">=") in TEXT


def test_the_files_and_lists_it_names_are_there() -> None:
    for name in re.findall(r"`(tests/[\w/.-]+)`", PAGE):
        assert (ROOT / name).exists(), name
    assert canister.__all__
    assert canister.sessions.__all__
