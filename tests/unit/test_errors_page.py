"""Holds docs/reference/errors.md to the errors: each has its row, in the order of the tree."""

import re
from pathlib import Path
from typing import get_type_hints

import canister
from canister import errors
from canister.errors import CanisterError
from canister.sessions.outcome import REFUSAL_HEADERS, REFUSALS

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "errors.md").read_text("utf-8")
ROWS = [
    [cell.strip() for cell in line.split("|")[1:-1]]
    for line in PAGE.splitlines()
    if re.match(r"\| `\w+Error` \|", line)
]


def status(kind: type[CanisterError]) -> int:
    return next((REFUSALS[base].status for base in REFUSALS if issubclass(kind, base)), 500)


def row(name: str) -> list[str]:
    kind = getattr(errors, name)
    return [f"`{name}`", ", ".join(f"`{base.__name__}`" for base in kind.__bases__), str(status(kind))]


def test_every_error_has_its_row() -> None:
    drawn = re.findall(r"\w+Error\b", (errors.__doc__ or "").partition("An error raised")[0])
    defined = {name for name, kind in vars(errors).items() if isinstance(kind, type)}
    assert set(drawn) == defined
    assert [[name, bases, http] for name, bases, *_, http in ROWS] == [row(name) for name in drawn]
    assert all(who or name == "`CanisterError`" for name, _, _, who, _ in ROWS)


def test_what_is_said_of_all_of_them() -> None:
    assert all(hasattr(canister, name.strip("`")) for name, *_ in ROWS)
    assert all(f"`{name}: {value}`" in PAGE for name, value in REFUSAL_HEADERS.items())
    assert {page.status for page in REFUSALS.values()} == {403, 409, 503}
    told = get_type_hints(errors.AcknowledgementError.__init__).keys() & {"holders", "needed", "version"}
    assert all(f"`{name}`" in PAGE for name in {*told, "held"})
