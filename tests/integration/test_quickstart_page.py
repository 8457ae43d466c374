"""Does what docs/howto/quickstart.md says, line by line: the shop is run, restarted, killed and grown."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.integration.cluster import eventually, free_port
from tests.integration.test_cli_docs import masked

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(shutil.which("curl") is None, reason="the page uses curl"),
]

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "quickstart.md"
TEXT = PAGE.read_text("utf-8")
CLI = shlex.join([sys.executable, "-m", "canister"])
SERVER = shlex.join([sys.executable, "-m", "uvicorn"])


class Terminals:
    """Runs the lines of the page: servers until they are killed, or their port is used again."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        free = sorted(str(free_port()) for _ in range(2))
        self.ports = {"8000": str(free_port()), "8001": str(free_port()), "7400": free[0], "7401": free[1]}
        self.environ = {**os.environ, "PYTHONPATH": ":".join(sys.path)}
        self.servers: dict[str, subprocess.Popen[bytes]] = {}

    def run(self, line: str, shown: str) -> None:
        line = re.sub(r"(?<=[: ])(?:74|80)0[01]\b", lambda match: self.ports[match[0]], line)
        if line.startswith("export "):
            variable, value = line.removeprefix("export ").split("=", 1)
            self.environ[variable] = self.printed(f"echo {value}").strip()
        elif "uvicorn" in line:
            self.serve(line)
        elif line.startswith("kill -9 "):
            first = self.servers[self.ports["8000"]]
            assert f" {first.pid}\n" in self.printed(f"{CLI} status data")
            first.kill()
            first.wait()
        else:
            # A visit counts, so it is made once; what the other commands show may take a moment.
            if line.startswith("curl"):
                assert self.printed(line) == shown, line
            else:
                eventually(lambda: masked(self.printed(line)) == masked(shown), 20, line)

    def printed(self, line: str) -> str:
        line = re.sub(r"^canister ", lambda _: f"{CLI} ", line)
        place = {"cwd": self.directory, "env": self.environ, "shell": True}
        out = subprocess.check_output(line, timeout=30, text=True, **place)
        out = out.replace("\r", "")
        out = re.sub(r"(?<=id=)[\w-]{100,}", "TOKEN", out)
        return out if out.endswith("\n") else out + "\n"

    def serve(self, line: str) -> None:
        port = line.rpartition(" ")[2]
        self.stop(port)
        self.servers[port] = subprocess.Popen(
            line.replace("uvicorn", f"exec {SERVER}", 1), shell=True, cwd=self.directory, env=self.environ
        )
        eventually(lambda: "Log in first" in self.printed(f"curl -s http://localhost:{port}/ || true"), 30)

    def stop(self, port: str) -> None:
        server = self.servers.pop(port, None)
        if server is not None and server.poll() is None:
            server.send_signal(signal.SIGINT)
            server.wait(20)


def test_the_page_says_what_happens(tmp_path: Path) -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
    (tmp_path / "shop.py").write_text(code)
    text = re.sub(r"(?<=id=)[\w-]{100,}", "TOKEN", TEXT)
    terminals = Terminals(tmp_path)
    try:
        for block in re.findall(r"^```console\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            for step in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
                line, _, shown = step.partition("\n")
                if not line.startswith("pip "):
                    terminals.run(line, shown)
    finally:
        for port in list(terminals.servers):
            terminals.stop(port)
