"""One side of a comparison: a process of its own that times what it is told to do."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

_SCRIPTS = Path(__file__).with_name("sides")


class SideError(Exception):
    """A side ended before it answered."""


class Side:
    """A running script of `benchmarks/sides`.

    Args:
        script: its name.
        job: what it is told at its start.
        python: the Python that runs it.
        errors: the file its standard error goes to.
    """

    def __init__(self, script: str, job: dict[str, Any], python: Path | str, errors: Path) -> None:
        self._errors = errors
        with errors.open("ab") as stderr:
            self._process = subprocess.Popen(
                [str(python), str(_SCRIPTS / f"{script}.py"), json.dumps(job)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=_environment(),
            )
        self.pid = int(self._answer()["ready"])

    def begin(self, operation: str, **arguments: Any) -> None:
        """Have an operation done; `end` returns what came of it."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": operation, "arguments": arguments}).encode() + b"\n")
        self._process.stdin.flush()

    def end(self) -> Any:
        """Wait for the operation that was begun."""
        return self._answer()["value"]

    def do(self, operation: str, **arguments: Any) -> Any:
        """Have an operation done and return what came of it."""
        self.begin(operation, **arguments)
        return self.end()

    def memory(self) -> float:
        """Return the resident memory in MB."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGESIZE") / 1e6

    def processor(self) -> float:
        """Return the seconds of processor time it has taken since its start."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        """Let it end, and wait until it has."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SideError(f"a side ended:\n{self._errors.read_text()[-3000:]}")
        answer: dict[str, Any] = json.loads(line)
        return answer


PYTHON = sys.executable
"""What runs the sides that need nothing but this project."""


def _environment() -> dict[str, str]:
    """Return an environment in which modules are kept compiled, as they are where they were installed."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
