"""Holds docs/reference/sessions.md to the code: options, fields, methods with their signatures, events."""

import inspect
import re
from collections.abc import Callable, Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from canister.sessions import (
    CookieSettings,
    Event,
    EventKind,
    Identity,
    ManagerOptions,
    Session,
    SessionManager,
    SessionStatus,
    UserSession,
)
from canister.sessions.mapping import SessionData
from canister.sessions.users import Users

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "sessions.md").read_text("utf-8")

# What the session and its manager need of each other; an application has no use for it.
INTERNAL = {"state", "changes", "committed", "is_as_stored"}


def rows(heading: str, *, table: int = 0) -> list[list[str]]:
    """Return the cells of a table below a heading."""
    section = re.split(r"^#+ ", PAGE.partition(f"# {heading}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
    found = re.findall(r"(?:^\|.*\n)+", section, re.MULTILINE)[table]
    lines = found.splitlines()[2:]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def code(cells: Iterable[str]) -> list[str]:
    return [cell.strip("`") for cell in cells]


def call(name: str, function: Callable[..., Any]) -> str:
    """Return a method as the page shows it: its signature without types and without self."""
    signature = inspect.signature(function)
    bare = [p.replace(annotation=inspect.Parameter.empty) for p in list(signature.parameters.values())[1:]]
    text = str(signature.replace(parameters=bare, return_annotation=inspect.Signature.empty))
    return f"{name}{text}"


def public(kind: type) -> dict[str, Any]:
    names = {name: value for base in (SessionData, kind) for name, value in vars(base).items()}
    of_dict = set(dir(dict)) - {"clear"}
    return {n: v for n, v in names.items() if not n.startswith("_") and n not in of_dict | INTERNAL}


def default(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)


def test_options_of_the_manager() -> None:
    parameters = list(inspect.signature(SessionManager).parameters.values())[1:]
    listed = rows("Options of the session manager")
    assert [(code(row)[0], code(row)[2]) for row in listed] == [
        (parameter.name, default(parameter.default)) for parameter in parameters
    ]
    assert [code(row)[0] for row in listed] == list(get_type_hints(ManagerOptions))


def test_fields_of_the_cookie_settings() -> None:
    listed = [(code(row)[0], code(row)[2]) for row in rows("CookieSettings")]
    assert listed == [(field.name, default(field.default)) for field in fields(CookieSettings)]


def test_attributes_of_a_session() -> None:
    attributes = {name for name, value in public(Session).items() if isinstance(value, property)}
    assert {code(row)[0] for row in rows("Attributes")} == attributes
    for status in SessionStatus:
        assert f"`{status}`" in PAGE
    counted = {code(row)[0] for row in rows("Attributes") if row[3] == "yes"}
    for name in attributes:
        session = Session()
        getattr(session, name)
        assert session.state.read is (name in counted), name


def test_methods_of_a_session() -> None:
    methods = {n: v for n, v in public(Session).items() if not isinstance(v, property)}
    listed = [row[0].strip("`") for row in rows("Methods for the application") + rows("Methods for adapters")]
    assert sorted(listed) == sorted(call(name, method) for name, method in methods.items())


@pytest.mark.parametrize(
    ("heading", "table", "kind"),
    [("Identity", 0, Identity), ("Users", 1, UserSession), ("Events", 1, Event)],
)
def test_fields_of_what_is_returned(heading: str, table: int, kind: Any) -> None:
    assert [code(row)[0] for row in rows(heading, table=table)] == list(kind._fields)


def test_kinds_of_events() -> None:
    assert [code(row)[0] for row in rows("Events")] == [str(kind) for kind in EventKind]


@pytest.mark.parametrize(
    ("heading", "kind"), [("Users", Users), ("Methods of the session manager", SessionManager)]
)
def test_methods_have_the_signatures_that_are_shown(heading: str, kind: type) -> None:
    for row in rows(heading):
        shown = row[0].strip("`")
        name = shown.partition("(")[0]
        assert shown == call(name, getattr(kind, name))
