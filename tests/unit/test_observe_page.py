"""Holds docs/howto/observe.md to the code: loggers with their levels, the fields of the status, events."""

import re
from pathlib import Path
from typing import get_type_hints

import pytest

from canister import Canister
from canister.agent.control import AgentStatus, MemberState
from canister.cli.main import main
from canister.cli.members import member_facts
from canister.cli.status import _facts as status_facts
from canister.sessions import EventKind

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "howto" / "observe.md").read_text("utf-8")
LEVELS = {"exception": "error"}


def logged() -> set[tuple[str, str]]:
    """Return each logger of the sources with the levels at which it logs."""
    found: set[tuple[str, str]] = set()
    for file in (ROOT / "src").rglob("*.py"):
        text = file.read_text("utf-8")
        for name in re.findall(r"getLogger\(\"([\w.]+)\"\)", text):
            methods = re.findall(r"\blogger\.(debug|info|warning|error|exception|critical)\(", text)
            found |= {(name, LEVELS.get(method, method)) for method in methods}
        assert text.count("getLogger(") == len(re.findall(r"getLogger\(\"", text)), file
    return found


def first_cells(after: str) -> list[str]:
    """Return the first column of the first table after some words."""
    table = re.search(r"(?:^\|.*\n)+", PAGE.partition(after)[2], re.MULTILINE)
    assert table is not None
    return [line.split("|")[1].strip().strip("`") for line in table[0].splitlines()[2:]]


def test_every_logger_is_listed_with_its_levels() -> None:
    rows = re.findall(r"^\| `(canister[\w.]*)` \| (\w+) \|", PAGE, re.MULTILINE)
    assert set(rows) == logged()
    assert len(rows) == len(set(rows))


def test_the_fields_of_the_status(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Canister(tmp_path / "data", agent=False).close()
    assert main(["status", str(tmp_path / "data"), "--json"]) == 3
    alone = re.findall(r"\"(\w+)\":", capsys.readouterr().out)
    member = MemberState(*[None] * len(get_type_hints(MemberState)))
    known = AgentStatus(**dict.fromkeys(AgentStatus.__struct_fields__, 0) | {"members": [member]})
    assert first_cells("prints one object") == list(dict.fromkeys([*alone, *status_facts(known, 0)]))
    assert first_cells("Each member has") == list(member_facts(member))


def test_events_are_named() -> None:
    assert all(re.search(rf"\b{kind}\b", PAGE) for kind in EventKind)
