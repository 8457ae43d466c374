"""Does what docs/howto/operate.md says, line by line."""

import re
import shlex
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.integration.cluster import eventually, free_port
from tests.integration.test_cli_docs import masked, printed
from tests.integration.test_cli_kit import NodeProcess, node

from canister import Canister

pytestmark = pytest.mark.integration

DOCS = Path(__file__).parents[2] / "docs"
TEXT = (DOCS / "howto" / "operate.md").read_text("utf-8")


class Host:
    """Runs the lines of the page: each node until a line is about its directory again."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.running: dict[str, tuple[ExitStack, NodeProcess]] = {}
        # Members are listed by their addresses: the ports that are free here are in the page's order.
        free = sorted(str(free_port()) for _ in range(4))
        self.ports = {str(7400 + number): port for number, port in enumerate(free)}

    def run(self, line: str, shown: str) -> None:
        words = [re.sub(r"(?<=:)74\d\d$", self._port, word) for word in shlex.split(line)]
        if words[0] != "canister":
            for name in words[1:]:
                self.stop(name)
            subprocess.run(words, cwd=self.directory, check=True)
        elif words[1] == "node":
            self.stop(words[2])
            stack = ExitStack()
            self.running[words[2]] = stack, stack.enter_context(node(*words[2:], cwd=self.directory))
        else:
            wanted = masked(shown)
            eventually(lambda: masked(printed(words[1:])) == wanted, 20, line)

    def stop(self, name: str) -> None:
        if name in self.running:
            stack, process = self.running.pop(name)
            assert process.end() == 0
            stack.close()

    def _port(self, match: "re.Match[str]") -> str:
        return self.ports[match[0]]


def test_the_page_says_what_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("NODE_INTERVAL", "DIGEST_INTERVAL"):
        monkeypatch.setenv(f"CANISTER_{name}", "1s")
    host = Host(tmp_path)
    try:
        for block in re.findall(r"^```console\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL):
            for step in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
                line, _, shown = step.partition("\n")
                host.run(line, shown)
    finally:
        for name in list(host.running):
            host.stop(name)


def test_what_was_destroyed_is_live_again_where_a_node_alone_is_restored(tmp_path: Path) -> None:
    data, copy = tmp_path / "data", tmp_path / "copy"
    with Canister(data) as canister:
        canister.put("s", "k", "v")
    subprocess.run(["cp", "-a", data, copy], check=True)
    with Canister(data) as canister:
        canister.destroy("s")
    subprocess.run(["rm", "-r", data], check=True)
    subprocess.run(["cp", "-a", copy, data], check=True)
    with Canister(data) as canister:
        assert canister.get("s", "k") == "v"


def test_the_index_lists_every_page_once() -> None:
    listed = re.findall(r"\]\(((?:\w+)/[\w-]+\.md)\)", (DOCS / "README.md").read_text("utf-8"))
    assert sorted(listed) == sorted(str(page.relative_to(DOCS)) for page in DOCS.glob("*/*.md"))
