"""Holds docs/howto/deploy.md to the code, where it names what the code makes."""

import re
import shlex
import stat
from pathlib import Path

from canister import Canister
from canister.cli.main import main
from canister.sessions import SessionManager
from canister.store.datadir import DataDir

PAGE = (Path(__file__).parents[2] / "docs" / "howto" / "deploy.md").read_text("utf-8")


def test_permissions_are_as_the_page_says(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    with Canister(directory, agent=False) as canister:
        SessionManager(canister)
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()}
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert "made with mode 0700" in PAGE
    assert {"canister.db", "secret.key"} <= modes.keys()
    assert set(modes.values()) == {0o600}


def test_files_to_leave_alone_are_listed() -> None:
    files = vars(DataDir(Path("data"))).values()
    kinds = {path.suffix for path in files if isinstance(path, Path) and path.suffix} - {".db"}
    listed = re.search(r"^- Leave (.*?) in the directory alone", PAGE, re.MULTILINE)
    assert listed is not None
    assert kinds | {".lock"} == set(re.findall(r"\*(\.\w+)", listed[1]))


def test_the_plan_works() -> None:
    (line,) = re.findall(r"^\$ canister (plan .*)$", PAGE, re.MULTILINE)
    assert main(shlex.split(line)) == 0
