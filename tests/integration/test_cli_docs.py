"""Holds docs/reference/cli.md to the program: its table of commands, and every example it shows."""

import io
import re
import shlex
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import fields
from pathlib import Path

import pytest
from tests.integration.cluster import eventually, free_port
from tests.integration.test_cli_kit import node, run

from canister.cli.main import COMMANDS, main
from canister.config import Config

pytestmark = pytest.mark.integration

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "cli.md"
TEXT = PAGE.read_text("utf-8")
TABLE = re.findall(r"^\| `canister ([a-z-]+(?: [a-z]+)?) ([^`]*)` \|", TEXT, re.MULTILINE)


def examples() -> list[tuple[str, str]]:
    """Return every command of the console blocks with the output shown under it."""
    found: list[tuple[str, str]] = []
    for block in re.findall(r"^```console\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL):
        for example in re.split(r"^\$ canister ", block, flags=re.MULTILINE)[1:]:
            command, _, output = example.partition("\n")
            found.append((command, output))
    return found


def masked(text: str) -> str:
    """Return output without what differs from run to run: numbers, hex and the widths of both."""
    text = re.sub(r"\b[0-9a-f]{16,64}\b", "HEX", text)
    text = re.sub(r"-?\d+(\.\d+)?", "N", text)
    return re.sub(r"N(-N)+T[N:]+Z", "TIME", re.sub(r" +", " ", text))


def test_the_table_names_every_command() -> None:
    assert [name for name, _ in TABLE] == list(COMMANDS)
    assert TEXT.index("| Command |") < TEXT.index("## ")


@pytest.mark.parametrize(("name", "words"), TABLE)
def test_help_of_every_command_says_what_the_table_says(name: str, words: str) -> None:
    help = run(name, "--help").out
    usage = " ".join(help.partition("\n\n")[0].split())
    assert usage.startswith(f"usage: canister {name} ")
    assert usage.endswith(words)


def test_every_command_named_in_the_page_exists() -> None:
    named = set(re.findall(r"`canister ((?:certs )?[a-z][a-z-]*)", TEXT))
    assert named <= COMMANDS.keys()


def test_the_page_has_no_python_block() -> None:
    assert "```python" not in TEXT


def test_every_example_prints_what_the_page_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ports = {"7400": str(free_port()), "7401": str(free_port())}
    (first, first_line), (second, second_line), *rest = [
        (command, output)
        for command, output in sorted(examples(), key=lambda e: not e[0].startswith("node "))
    ]
    with node(*here(first, ports)[1:], cwd=tmp_path) as a, node(*here(second, ports)[1:], cwd=tmp_path) as b:
        assert masked(a.line) == masked(first_line)
        assert masked(b.line) == masked(second_line)
        run("put", "data", "bob", "name", "Bob")
        for data in ("data", "data2"):
            eventually(lambda data=data: is_linked(data), message="the nodes are linked")
        for command, shown in rest:
            if command.startswith("resync"):
                eventually(lambda: is_linked("data"), message="the nodes are linked again")
            assert masked(printed(here(command, ports))) == masked(shown), command


@pytest.mark.parametrize(("command", "shown"), [e for e in examples() if e[0].startswith("plan ")])
def test_a_plan_is_shown_to_the_digit(command: str, shown: str) -> None:
    """What no run changes is not masked."""
    assert printed(shlex.split(command)).split() == shown.split()


def test_every_setting_is_an_option_of_the_node_but_the_one_that_is_named() -> None:
    help = run("node", "--help").out
    names = {field.name for field in fields(Config)} - {"seeds"}
    assert {name for name in names if f"--{name.replace('_', '-')}" not in help} == {"migrate_to"}
    assert "All but `migrate_to`" in TEXT


def here(command: str, ports: dict[str, str]) -> list[str]:
    """Return the words of a command of the page, with ports that are free here."""
    return [re.sub(r"(?<=:)74\d\d$", lambda m: ports[m[0]], word) for word in shlex.split(command)]


def printed(words: list[str]) -> str:
    """Run a command and return what it prints, errors too."""
    output = io.StringIO()
    with redirect_stdout(output), redirect_stderr(output):
        main(words)
    return output.getvalue()


def is_linked(data: str) -> bool:
    """Tell whether a node has a peer whose lag is known."""
    peer = run("status", data, "--json").json["members"][1]
    return peer["state"] == "up" and peer["lag"] is not None
