"""How `canister migrate` shows how far it is."""

import io
import sys

import pytest

from canister.cli.main import main
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


def test_a_url_may_be_in_the_environment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its password is not to be seen in the list of processes."""
    monkeypatch.setenv("WHERE", "redis://user:secret@127.0.0.1")
    with pytest.raises(SystemExit, match="2"):
        main(["migrate", "env:WHERE", "redis://127.0.0.1"])
    assert "either way" in capsys.readouterr().err
    monkeypatch.delenv("WHERE")
    with pytest.raises(SystemExit, match="2"):
        main(["migrate", "data", "env:WHERE"])
    assert "the environment variable WHERE is not set" in capsys.readouterr().err
