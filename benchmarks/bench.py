"""What a benchmark works with: folders, sides, sizes, and the turns in which sides are compared."""

import contextlib
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import mkdtemp
from types import TracebackType
from typing import Any, Self

from benchmarks.environments import python_of
from benchmarks.redis_server import RedisServer
from benchmarks.side import PYTHON, Side

Figures = dict[str, list[float]]
"""What a side measured, by figure, one value a turn."""
Turn = Callable[[], Mapping[str, float]]
"""Has a side measure once."""


class Bench:
    """One run of one benchmark; leaving it ends all that was started.

    Args:
        turns: how often each side is measured.
        scale: by how much the numbers of a full run are divided.
        rivals: whether rivals are installed and measured.
        large: whether there is time for a million sessions.
    """

    def __init__(self, *, turns: int, scale: int, rivals: bool, large: bool = False) -> None:
        self.turns = turns
        self.has_rivals = rivals
        self.counts = (10_000, 100_000, 1_000_000) if large else (10_000, 100_000)
        """Of how many sessions clusters are measured."""
        self._scale = scale
        self.folder = Path(mkdtemp(prefix="canister-bench-"))
        self._ending = contextlib.ExitStack()
        self._redis: RedisServer | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.close()
        shutil.rmtree(self.folder)

    def size(self, full: int, least: int = 20) -> int:
        """Return a number of things to do, smaller in a smoke run."""
        return max(least, full // self._scale)

    def seconds(self, full: float) -> float:
        """Return a time to measure for, shorter in a smoke run."""
        return max(0.2, full / self._scale)

    def fresh(self, name: str) -> Path:
        """Return a folder of its own that does not exist yet."""
        return self.folder / f"{name}-{len(list(self.folder.iterdir()))}"

    def canister(self, path: Path | str, *, sessions: int = 0, **settings: Any) -> Side:
        """Start a process of a node, or one that uses the servers at a URL."""
        job = {"path": str(path), "settings": settings, "sessions": sessions}
        return self._start("with_canister", job, PYTHON)

    def floor(self, *, sessions: int, path: Path | None = None) -> Side:
        """Start the floor, or another process of one."""
        job = {"path": str(path or self.fresh("floor")), "sessions": sessions}
        return self._start("with_floor", job, PYTHON)

    def script(self, script: str, python: Path | str, **job: Any) -> Side:
        """Start a script of the sides."""
        return self._start(script, job, python)

    def rival(self, name: str, script: str = "", **job: Any) -> Side:
        """Start a rival in its own environment."""
        job.setdefault("path", str(self.fresh(name)))
        return self._start(script or f"with_{name}", job, python_of(name))

    def redis_port(self) -> int:
        """Return the port of this benchmark's Redis, which is started with the first use."""
        if self._redis is None:
            path = self.fresh("redis")
            path.mkdir()
            self._redis = RedisServer(path)
            self._ending.callback(self._redis.close)
        return self._redis.port

    def compare(self, sides: Mapping[str, Turn]) -> dict[str, Figures]:
        """Measure all sides turn by turn, A B A B; return the figures of each."""
        figures: dict[str, Figures] = {name: {} for name in sides}
        for _ in range(self.turns):
            for name, turn in sides.items():
                for figure, value in turn().items():
                    figures[name].setdefault(figure, []).append(value)
        return figures

    def say(self, what: str) -> None:
        """Tell whoever waits what is being done."""
        print(what, file=sys.stderr, flush=True)

    def _start(self, script: str, job: dict[str, Any], python: Path | str) -> Side:
        side = Side(script, job, python, self.folder / "errors.log")
        self._ending.callback(side.close)
        return side
