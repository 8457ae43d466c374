"""What the tests of the command line share: running a command here, and `canister node` as a process."""

import io
import json
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, NamedTuple

from tests.integration.cluster import eventually, free_port

from canister import Canister
from canister.cli.main import main

CANISTER = [sys.executable, "-m", "canister"]


class Result(NamedTuple):
    """What a command printed."""

    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def run(*words: object, code: int = 0) -> Result:
    """Run a command in this process; it must end with *code*."""
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        try:
            ended: object = main([str(word) for word in words])
        except SystemExit as exit:
            ended = exit.code
    assert ended == code, f"{words} ended with {ended}, not {code}: {out.getvalue()}{err.getvalue()}"
    return Result(out.getvalue(), err.getvalue())


def refused(*words: object, code: int = 3) -> str:
    """Run a command that must fail; return the one line it says."""
    result = run(*words, code=code)
    assert result.err.startswith("canister: ")
    assert result.err.count("\n") == 1
    return result.err


def made(path: Path) -> Path:
    """Make a data directory and return its path."""
    with Canister(path, agent=False):
        return path


class NodeProcess:
    """A running ``canister node``; *line* is what it printed at its start, *log* what it logs."""

    def __init__(self, log: IO[str], *words: object, cwd: Path | None = None) -> None:
        command = [*CANISTER, "node", *map(str, words)]
        self._log = log
        self.popen = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self._log, text=True, cwd=cwd)
        assert self.popen.stdout is not None
        self.line = self.popen.stdout.readline()

    @property
    def log(self) -> str:
        self._log.seek(0)
        return self._log.read()

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send it a signal and return its exit code."""
        self.popen.send_signal(number)
        return self.popen.wait(timeout=20)

    def close(self) -> None:
        """Kill it if it still runs, and let go of its output."""
        if self.popen.poll() is None:
            self.end(signal.SIGKILL)
        assert self.popen.stdout is not None
        self.popen.stdout.close()


@contextmanager
def node(*words: object, cwd: Path | None = None) -> Generator[NodeProcess]:
    """Run ``canister node`` for the length of a block."""
    with TemporaryFile("a+") as log:
        process = NodeProcess(log, *words, cwd=cwd)
        try:
            yield process
        finally:
            process.close()


@contextmanager
def pair(tmp_path: Path, **settings: Any) -> Generator[tuple[Canister, Canister]]:
    """Open two nodes, ``a`` and ``b``, whose agents run in this process and are linked."""
    first, second = (f"127.0.0.1:{free_port()}" for _ in range(2))
    with (
        Canister(tmp_path / "a", listen=first, **settings) as a,
        Canister(tmp_path / "b", listen=second, seeds=(first,), **settings) as b,
    ):
        eventually(lambda: all_up(a) and all_up(b), message="the nodes are linked")
        yield a, b


def all_up(node: Canister) -> bool:
    """Tell whether the node has one peer, and all it had is here."""
    states = [member.state for member in node.members()]
    return states == ["self", "up"] and node.node.store.peers().doubts == 0
