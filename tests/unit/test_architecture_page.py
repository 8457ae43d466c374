"""Holds docs/explanation/architecture.md to what lies in a data directory."""

import re
from pathlib import Path

from canister import Canister
from canister.sessions import SessionManager
from canister.store.datadir import DataDir

PAGE = (Path(__file__).parents[2] / "docs" / "explanation" / "architecture.md").read_text("utf-8")
SECTION = PAGE.partition("\n## The data directory\n")[2].partition("\n## ")[0]
LISTED = re.findall(r"^\| `([\w.-]+)` \|", SECTION, re.MULTILINE)


def test_a_running_node_leaves_the_files_that_are_listed(tmp_path: Path) -> None:
    """With a session manager that was given no secret key, and after a write."""
    directory = tmp_path / "data"
    with Canister(directory) as canister:
        SessionManager(canister)
        canister.put("s", "k", 1)
        canister.is_resyncing()  # waits for the agent
        assert sorted(LISTED) == sorted(file.name for file in directory.iterdir())


def test_every_file_of_the_code_is_listed(tmp_path: Path) -> None:
    files = [value.name for value in vars(DataDir(tmp_path)).values() if isinstance(value, Path)]
    assert {name for name in files if name != tmp_path.name} <= set(LISTED)
