"""How `canister migrate` shows how far it is."""

import io
import sys

import pytest

from canister.cli.migrate import _Bar


class Terminal(io.StringIO):
    """Standard error on a terminal."""

    def isatty(self) -> bool:
        return True


def shown(stderr: io.StringIO, monkeypatch: pytest.MonkeyPatch, *, silent: bool = False) -> str:
    """Return what is printed of five steps."""
    monkeypatch.setattr(sys, "stderr", stderr)
    bar = _Bar("copying", silent=silent)
    for share in (0.02, 0.5, 0.52, 0.6, 1.0):
        bar.show(share, f", {share * 100:.0f} sessions")
    bar.end()
    return stderr.getvalue()


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = shown(Terminal(), monkeypatch).split("\r")
    assert drawn[2] == f"copying [{'#' * 15}{'-' * 15}]  50%, 50 sessions"
    assert drawn[-1] == f"copying [{'#' * 30}] 100%, 100 sessions\n"


def test_a_line_for_each_tenth_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(io.StringIO(), monkeypatch).splitlines() == [
        "copying  50%, 50 sessions",
        "copying  60%, 60 sessions",
        "copying 100%, 100 sessions",
    ]


@pytest.mark.parametrize("stderr", [io.StringIO(), Terminal()])
def test_nothing_beside_json(stderr: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(stderr, monkeypatch, silent=True) == ""
