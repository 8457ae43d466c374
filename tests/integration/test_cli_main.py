import os
import sqlite3
import subprocess
from pathlib import Path

import pytest
from tests.integration.test_cli_kit import CANISTER, made, refused, run

from canister import Canister, __version__
from canister.cli.main import COMMANDS

pytestmark = pytest.mark.integration

WORDS = {
    "get": ["i", "k"],
    "info": ["i"],
    "put": ["i", "k", "v"],
    "remove": ["i", "k"],
    "clear": ["i"],
    "destroy": ["i"],
    "forget": ["i"],
    "remove-member": ["127.0.0.1:1"],
}
ON_A_DIRECTORY = [name for name, command in COMMANDS.items() if command.datadir and name != "node"]


def test_version() -> None:
    assert run("--version").out == f"canister {__version__}\n"


def test_help_lists_every_command_in_80_columns() -> None:
    help = run("--help").out
    assert all(f"\n  {name} " in help for name in COMMANDS)
    assert max(map(len, help.splitlines())) <= 80


@pytest.mark.parametrize(
    "words", [[], ["nonsense"], ["get"], ["get", "d", "i", "k", "more"], ["get", "--jso"]]
)
def test_wrong_usage_is_code_2(words: list[str]) -> None:
    assert "usage: canister" in run(*words, code=2).err


def test_the_commands_about_certificates_are_listed() -> None:
    help = run("certs", "--help").out
    assert all(
        f"\n  {name.ljust(5)}  {COMMANDS[f'certs {name}'].summary}\n" in help
        for name in ("init", "issue", "show")
    )
    assert "usage: canister certs init|issue|show ..." in run("certs", code=2).err
    assert "invalid choice: 'nonsense'" in run("certs", "nonsense", code=2).err


def test_what_may_not_be_used_is_told_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(path: object, **_: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "stat", denied)
    said = refused("sessions", tmp_path)
    assert f"the data directory {tmp_path} may not be entered; check its owner and permissions" in said
    monkeypatch.undo()
    monkeypatch.setattr(Path, "mkdir", denied)
    said = refused("certs", "init", tmp_path / "ca")
    assert said == f"canister: {tmp_path}/ca: Permission denied; check its owner and permissions\n"


@pytest.mark.parametrize("name", ON_A_DIRECTORY)
def test_a_directory_that_is_not_there_is_not_made(name: str, tmp_path: Path) -> None:
    said = refused(name, tmp_path / "nowhere", *WORDS.get(name, []))
    assert "is not a data directory" in said
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("name", ON_A_DIRECTORY)
def test_another_directory_is_left_as_it_was(name: str, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    refused(name, tmp_path, *WORDS.get(name, []))
    assert os.listdir(tmp_path) == ["mine.txt"]


def test_a_database_of_another_program_is_left_as_it_was(tmp_path: Path) -> None:
    database = sqlite3.connect(tmp_path / "canister.db")
    database.execute("CREATE TABLE mine (x)")
    database.close()
    before = (tmp_path / "canister.db").read_bytes()
    assert "is not a Canister database" in refused("sessions", tmp_path)
    assert (tmp_path / "canister.db").read_bytes() == before


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "canister.db").write_text("x" * 200)
    assert "is not a Canister database" in refused("sessions", tmp_path)


def test_a_database_that_cannot_be_opened_is_told(tmp_path: Path) -> None:
    (tmp_path / "canister.db").mkdir()
    assert "canister.db: disk I/O error" in refused("sessions", tmp_path)


def test_ctrl_c_is_quiet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setitem(COMMANDS, "sessions", COMMANDS["sessions"]._replace(run=interrupted))
    assert run("sessions", tmp_path, code=130) == ("", "")


def test_a_directory_is_opened_with_its_own_cluster_and_durability(tmp_path: Path) -> None:
    with Canister(tmp_path, cluster="shop", durability="full", agent=False):
        pass
    run("put", tmp_path, "i", "k", "v")
    with Canister(tmp_path, cluster="shop", durability="full", agent=False) as node:
        assert node.get("i", "k") == "v"
    database = sqlite3.connect(tmp_path / "canister.db")
    assert database.execute("SELECT value FROM meta WHERE key = 'durability'").fetchone() == ("full",)
    database.close()


def test_a_wrong_setting_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(tmp_path)
    monkeypatch.setenv("CANISTER_SESSION_TIMEOUT", "soon")
    assert "session_timeout must be" in refused("sessions", tmp_path)


def test_an_error_of_several_lines_is_told_in_one(tmp_path: Path) -> None:
    assert "is not a data directory" in refused("sessions", tmp_path / "two\nlines")


def test_options_may_stand_anywhere(tmp_path: Path) -> None:
    run("put", made(tmp_path), "i", "--as", "json", "k", "--json", "1")
    assert run("get", "--json", tmp_path, "i", "k").out == "1\n"
    assert run("get", tmp_path, "--json", "i", "k").out == "1\n"
    assert run("get", tmp_path, "i", "--json", "k").out == "1\n"
    assert run("get", tmp_path, "i", "k", "--json").out == "1\n"


def test_ids_keys_and_values_may_begin_with_a_dash(tmp_path: Path) -> None:
    run("put", made(tmp_path), "--", "-i", "--json", "-v")
    assert run("get", tmp_path, "--", "-i", "--json").out == "'-v'\n"
    assert run("get", tmp_path, "--json", "--", "-i").json == {"--json": "-v"}
    assert run("sessions", tmp_path).out == "-i\n"


def test_runs_as_a_module_and_as_a_script(tmp_path: Path) -> None:
    for command in (CANISTER, [str(Path(CANISTER[0]).with_name("canister"))]):
        done = subprocess.run([*command, "get", str(tmp_path), "i"], capture_output=True, text=True)
        assert done.returncode == 3
        assert done.stderr.startswith("canister: ")


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    with Canister(tmp_path, agent=False) as node:
        for number in range(1_000):  # more than a pipe and a buffer hold
            node.put(f"session-{number:0400}", "k", None)
    process = subprocess.Popen(
        [*CANISTER, "sessions", str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline().startswith(b"session-")
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(timeout=20) == 0
    process.stderr.close()


def test_a_terminal_that_lacks_a_character_gets_its_number(tmp_path: Path) -> None:
    run("put", made(tmp_path), "é", "k", "v")
    done = subprocess.run(
        [*CANISTER, "sessions", str(tmp_path)],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )
    assert done.stdout == b"\\xe9\n"


@pytest.mark.parametrize("words", [["get", "data", "i"], ["certs", "init", "ca"]])
def test_a_closed_standard_output_is_no_error(words: list[str], tmp_path: Path) -> None:
    """Who begins a process may leave it none, and what it says goes nowhere."""
    run("put", made(tmp_path / "data"), "i", "k", "v")
    script = 'exec "$@" >&-'
    ended = subprocess.run(
        ["sh", "-c", script, "sh", *CANISTER, *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
