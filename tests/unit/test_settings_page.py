"""Holds docs/reference/settings.md to the settings: each has its row, and what the row says is so."""

import inspect
import re
from dataclasses import Field, fields
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from canister.config import Config, load_config
from canister.presets import PRESETS
from canister.variables import CONFIG, PREFIX

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "settings.md").read_text("utf-8")
ENTRY = re.compile(r"^    (\w+): (.+?)(?=^    \w+: |^\w|^$|\Z)", re.MULTILINE | re.DOTALL)
UNITS = {"w": 604800, "d": 86400, "h": 3600, "m": 60, "s": 1}


def described() -> dict[str, str]:
    """Return what the docstring of the settings says of each, as Markdown on one line."""
    entries = ENTRY.findall(inspect.getdoc(Config) or "")
    texts = {name: " ".join(text.split()).replace("``", "`") for name, text in entries}
    return {name: re.sub(r"(?<![\w*`])\*(\w+)\*", r"`\1`", text) for name, text in texts.items()}


def default(value: Any) -> str:
    if value in (None, ()):
        return "none"
    if isinstance(value, timedelta):
        seconds = int(value.total_seconds())
        unit = next(unit for unit, length in UNITS.items() if seconds % length == 0 and seconds >= 2 * length)
        return f"`{seconds // UNITS[unit]}{unit}`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def kind(field: "Field[Any]") -> str:
    if timedelta in (field.type, *get_args(field.type)):
        return "duration or `none`" if type(None) in get_args(field.type) else "duration"
    if get_origin(field.type) is Literal:
        return " or ".join(f"`{value}`" for value in get_args(field.type))
    if field.type is bool:
        return "switch"
    if field.type is int:
        return "bytes"
    return "list" if field.name == "seeds" else "text"


def row(field: "Field[Any]") -> str:
    variable = PREFIX + field.name.upper()
    cells = (f"`{field.name}`", default(field.default), kind(field), described()[field.name], f"`{variable}`")
    return f"| {' | '.join(cells)} |"


def test_every_setting_has_its_row() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| `") and PREFIX in line]
    assert rows == [row(field) for field in fields(Config)]


def test_durations_and_presets_are_read_as_the_page_shows_them(tmp_path: Path) -> None:
    shown = re.findall(r"^\| `(\w+)` \| `(\w+)` \| duration", PAGE, re.MULTILINE)
    assert len(shown) == 10
    file = tmp_path / "canister.toml"
    file.write_text("\n".join(f'{name} = "{value}"' for name, value in shown))
    assert load_config({}, {}, file) == Config()
    assert all(f"`{preset}`" in PAGE for preset in PRESETS)
    assert CONFIG in PAGE
