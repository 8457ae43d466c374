"""Holds README.md to what it lists: the modules in the order of their layers, and the extras."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "README.md").read_text("utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def test_the_layout_lists_the_layers_in_their_order() -> None:
    block = TEXT.partition("    src/canister/\n")[2].partition("\n\n")[0]
    listed = re.findall(r"^ {6}(\w+)(?:\.py|/) ", block, re.MULTILINE)
    contracts = PROJECT["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["name"] == "Layers")
    assert listed == [name for layer in layers for name in re.findall(r"\((\w+)\)", layer)]


def test_the_layout_names_modules_as_they_are_in_the_file_system() -> None:
    block = TEXT.partition("    src/canister/\n")[2].partition("\n\n")[0]
    for name in re.findall(r"^ {6}(\w+(?:\.py|/)) ", block, re.MULTILINE):
        assert (ROOT / "src" / "canister" / name).exists(), name


def test_every_extra_is_named() -> None:
    extras = re.findall(r"^\| `(\w+)` \| ", TEXT, re.MULTILINE)
    of_frameworks = [cells[2].strip("` ") for line in TEXT.splitlines() if len(cells := line.split("|")) == 6]
    named = {*extras, *of_frameworks} - {"Extra", "---", "none"}
    assert named == set(PROJECT["project"]["optional-dependencies"])


def test_every_example_is_named() -> None:
    named = re.findall(r"\]\(examples/(\w+\.py)\)", TEXT)
    assert sorted(named) == sorted(path.name for path in (ROOT / "examples").glob("*.py"))
