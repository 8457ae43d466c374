"""Runs the checks on Canister and on its rivals and prints the table: ``python -m benchmarks.rivals``.

Needs ``redis-server`` and, the first time, the package index. ``--only WORD`` runs the rivals whose names
hold the word.
"""

import argparse
import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.rivals.checks import CHECKS
from benchmarks.rivals.environments import RIVALS, ROOT, Rival, python_of

WORDS = {True: "yes", False: "**no**", None: "-"}


@contextmanager
def running_redis(directory: Path) -> Iterator[int]:
    """Run a Redis without persistence; yield its port."""
    server = shutil.which("redis-server")
    if server is None:
        sys.exit("redis-server is not installed; most rivals store their sessions there")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(directory)]
    process = subprocess.Popen([server, *settings], stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait()


def run(rival: Rival, directory: Path, redis_url: str) -> dict[str, bool | str | None]:
    """Return the verdicts on one rival, found out by a process of its environment."""
    directory.mkdir()
    command = [python_of(rival), "-m", "benchmarks.rivals.run", rival.module, rival.argument]
    done = subprocess.run(
        [*command, directory, redis_url], cwd=ROOT, text=True, capture_output=True, timeout=120
    )
    if done.returncode != 0:
        return dict.fromkeys(CHECKS, f"failed: {done.stderr.strip().splitlines()[-1]}")
    print(done.stderr, file=sys.stderr, end="")
    verdicts: dict[str, bool | str | None] = json.loads(done.stdout.splitlines()[-1])
    return verdicts


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rivals")
    parser.add_argument("--only", default="", help="a word in the names of the rivals to run")
    only = parser.parse_args().only.lower()
    print("| |", " | ".join(CHECKS), "|")
    print("|---" * (len(CHECKS) + 1) + "|")
    with TemporaryDirectory(prefix="canister-rivals-") as temporary, running_redis(Path(temporary)) as port:
        rivals = [rival for rival in RIVALS if only in rival.title.lower()]
        for number, rival in enumerate(rivals):
            url = f"redis://127.0.0.1:{port}/{number}"
            verdicts = run(rival, Path(temporary) / str(number), url)
            shown = [WORDS.get(verdicts[name], str(verdicts[name])) for name in CHECKS]
            print("|", " | ".join([rival.title, *shown]), "|", flush=True)


if __name__ == "__main__":
    main()
