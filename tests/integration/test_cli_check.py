import json
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.integration.test_cli_kit import run

from canister.checks.points import POINTS, check
from canister.checks.subject import Settings
from canister.config import Config, load_config
from canister.presets import PRESETS
from canister.sessions import CookieSettings

pytestmark = pytest.mark.integration

APP = """
from starlette.applications import Starlette
from canister import Canister
from canister.integrations.asgi import SessionMiddleware
from canister.sessions import CookieSettings

app = Starlette()
app.add_middleware(
    SessionMiddleware, canister=Canister("data", agent=False), cookie=CookieSettings({cookie}), {options}
)
"""


def verdicts(**settings: Any) -> dict[str, str]:
    cookie = settings.pop("cookie", CookieSettings())
    users = {name: settings.pop(name) for name in ("max_sessions", "at_cap") if name in settings}
    found = check(Settings(load_config(settings, environ={}), cookie, **users))
    return {finding.point: finding.verdict for finding in found}


def failed(**settings: Any) -> set[str]:
    return {point for point, verdict in verdicts(**settings).items() if verdict == "fail"}


def test_the_defaults_fail_nothing() -> None:
    assert failed() == set()


@pytest.mark.parametrize("preset", PRESETS)
def test_the_presets_keep_what_they_promise(preset: str) -> None:
    # OWASP asks for a shorter idle timeout than the lower levels of NIST do.
    assert failed(preset=preset) == (
        {"O13"} if preset in ("nist-aal1", "nist-aal1-rev3", "nist-aal2") else set()
    )


@pytest.mark.parametrize(
    ("settings", "points"),
    [
        ({"cookie": CookieSettings(plain_http=True)}, {"O6", "O7", "V3.3.1", "V3.3.3", "N3", "N8"}),
        ({"cookie": CookieSettings(name="sessionid")}, {"O1", "V3.3.1", "V3.3.3"}),
        ({"cookie": CookieSettings(httponly=False)}, {"O6", "V3.3.4", "N8"}),
        ({"cookie": CookieSettings(samesite="none")}, {"O6", "V3.3.2", "N8"}),
        ({"session_timeout": "2h"}, {"O13"}),
        ({"renewal_timeout": None}, {"O15"}),
    ],
)
def test_a_weaker_setting_fails_its_points(settings: dict[str, Any], points: set[str]) -> None:
    assert failed(**settings) == points


def test_a_cap_is_tried_out() -> None:
    for at_cap in ("evict", "reject"):
        assert "O21" not in failed(max_sessions=2, at_cap=at_cap)


def test_links_in_the_clear_fail() -> None:
    config = Config(listen="192.0.2.1:7400", plain_tcp=True)
    found = {f.point: f.verdict for f in check(Settings(config, CookieSettings()))}
    assert found["N3"] == "fail"


def test_an_application_is_checked_as_it_is_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("weak_app.py").write_text(APP.format(cookie="plain_http=True", options="max_sessions=1"))
    result = run("check", "weak_app:app", "--json", code=3)
    found = {point["point"]: point for point in json.loads(result.out)}
    assert len(found) == len(POINTS)
    assert found["O6"]["verdict"] == "fail"
    assert found["O21"]["evidence"] == "of 2 log-ins 1 stood (evict)"
    assert "6 of" in result.err
    assert "O6, O7" in result.err


@pytest.mark.parametrize(
    "factory", ["def make_app(debug=False, **options): return app", "def make_app(canister): return app"]
)
def test_a_function_that_makes_the_application_is_called(
    factory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.delitem(sys.modules, "making_app", raising=False)
    source = APP.format(cookie="plain_http=True", options="") + factory
    Path("making_app.py").write_text(source)
    if "canister" in factory:
        assert "has 0 session managers" in run("check", "making_app:make_app", code=2).err
    else:
        assert "O6" in run("check", "making_app:make_app", code=3).err


def test_without_an_application_the_settings_are_those_of_the_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("canister.toml").write_text('session_timeout = "3h"\n')
    text = run("check", code=3).out
    line = next(line for line in text.splitlines() if line.startswith("O13"))
    assert "fail" in line
    Path("canister.toml").write_text('preset = "owasp-high"\n')
    assert "yours to do" in run("check").out


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("{}['no such key']", "broken:app cannot be imported: KeyError: 'no such key'"),
        ("raise RuntimeError('not now')", "RuntimeError: not now"),
        ("def", "SyntaxError: "),
        ("import sys; sys.exit(5)", "broken:app cannot be imported: SystemExit: 5"),
        (
            "async def app(scope, receive, send): raise ValueError('http only')",
            "broken:app has 0 session managers; one is needed; starting it raised ValueError: http only",
        ),
        ("from canister import Canister; Canister('data', cluster='')", "cluster must be a name"),
    ],
)
def test_whatever_a_module_raises_is_told_in_one_line(
    source: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.delitem(sys.modules, "broken", raising=False)
    Path("broken.py").write_text(source)
    result = run("check", "broken:app", code=3 if "cluster" in source else 2)
    assert said in result.err.splitlines()[-1]
    assert "Traceback" not in result.err


def test_an_application_without_a_lifespan_is_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It raises at a scope of that kind, as Django's does; what it has made by then counts."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.delitem(sys.modules, "late", raising=False)
    Path("late.py").write_text(
        "from canister import Canister\n"
        "from canister.sessions import SessionManager\n"
        "async def app(scope, receive, send):\n"
        f"    app.manager = SessionManager(Canister('data', agent=False), secret_keys='{'abcdefgh' * 6}')\n"
        "    raise ValueError('http only')\n"
    )
    assert "FAIL" not in run("check", "late:app").out


@pytest.mark.parametrize(
    ("app", "said"),
    [("no_such_module:app", "cannot be imported"), ("json:dumps", "has 0 session managers")],
)
def test_what_cannot_be_checked_is_said(app: str, said: str) -> None:
    assert said in run("check", app, code=2).err


@pytest.mark.parametrize(
    "url", ["redis://:hidden@h", "rediss+sentinel://ann:hidden@h/s?sentinel_password=hidden"]
)
def test_no_password_is_shown(url: str) -> None:
    """Who takes the command for one that looks at sessions names where they are."""
    said = run("check", url, code=2).err
    assert "is no application" in said
    assert "hidden" not in said
