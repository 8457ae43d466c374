"""A process of a node, run by `tests.integration.cluster`: opens a `Canister` and does as it is told.

Commands and answers are JSON lines on the socket whose descriptor is the first of ``channels``; a forked
child takes the next one. A closed channel ends the process, so that nothing outlives the tests.
"""

import json
import logging
import os
import signal
import socket
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any

from canister import Canister, CanisterError


class Load:
    """Threads that put without pause, and note each put once it has returned.

    Every put goes to a key of its own. The notes are written unbuffered, one write a line, so that they
    are whole whenever the process is killed.
    """

    def __init__(self, store: Canister, name: str, notes: str, threads: int, sessions: int, pause: float):
        self._store = store
        self._name = name
        self._sessions = sessions
        self._pause = pause
        self._notes = os.open(notes, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._stopping = threading.Event()
        self._failures: list[str] = []
        self._threads = [threading.Thread(target=self._run, args=(n,), daemon=True) for n in range(threads)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> list[str]:
        """Stop, and return what went wrong."""
        self._stopping.set()
        for thread in self._threads:
            thread.join()
        return self._failures

    def _run(self, thread: int) -> None:
        count = 0
        try:
            while not self._stopping.is_set():
                session, key = f"load-{count % self._sessions}", f"{self._name}-{thread}-{count}"
                self._store.put(session, key, count)
                os.write(self._notes, f"{session} {key} {count}\n".encode())
                count += 1
                time.sleep(self._pause)
        except (CanisterError, OSError) as error:
            self._failures.append(repr(error))


class Worker:
    """One process, its store and its channel."""

    def __init__(self, store: Canister, channels: list[int]) -> None:
        self._store = store
        self._spare = channels[1:]
        self._load: Load | None = None
        self._take(channels[0])

    def serve(self) -> None:
        """Answer commands until the channel closes."""
        self._answer({"ready": os.getpid()})
        for line in self._channel:
            command = json.loads(line)
            try:
                answer = {"value": self._do(command["do"], command["arguments"])}
            except CanisterError as error:
                answer = {"error": type(error).__name__, "message": str(error)}
            self._answer(answer)

    def close(self) -> None:
        """Let go of the channels."""
        self._channel.close()
        self._socket.close()
        for channel in self._spare:
            os.close(channel)

    def _take(self, channel: int) -> None:
        self._socket = socket.socket(fileno=channel)
        self._channel = self._socket.makefile("rb")

    def _answer(self, answer: dict[str, Any]) -> None:
        self._socket.sendall(json.dumps(answer, default=str).encode() + b"\n")

    def _do(self, name: str, arguments: dict[str, Any]) -> Any:
        own = getattr(self, f"do_{name}", None)
        return own(**arguments) if own else getattr(self._store, name)(**arguments)

    def do_load(
        self, name: str, notes: str, threads: int = 1, sessions: int = 50, pause: float = 0.0
    ) -> None:
        self._load = Load(self._store, name, notes, threads, sessions, pause)

    def do_stop_load(self) -> list[str]:
        load, self._load = self._load, None
        return load.stop() if load else []

    def do_fork(self) -> int:
        """Fork; the child serves on the next spare channel."""
        channel = self._spare.pop(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of forking a process that has threads
            child = os.fork()
        if child:
            os.close(channel)
            return child
        self._channel.close()
        self._socket.close()  # the parent's is still open there
        self._take(channel)
        self.serve()
        self._store.close()
        os._exit(0)

    def do_sockets(self) -> list[str]:
        """Return the local and remote ends of this process's TCP sockets."""
        found: list[str] = []
        for entry in os.listdir("/proc/self/fd"):
            try:
                duplicate = socket.socket(fileno=os.dup(int(entry)))
            except OSError:
                continue
            with duplicate:
                if duplicate.family in (socket.AF_INET, socket.AF_INET6):
                    found.append(f"{duplicate.getsockname()}")
        return found


def main(job: dict[str, Any]) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    logging.basicConfig(
        level=logging.INFO,
        filename=job["log"],
        format="%(asctime)s %(process)d %(levelname)s %(name)s %(message)s",
    )
    logging.captureWarnings(capture=True)
    with Canister(Path(job["path"]), **job["settings"]) as store:
        worker = Worker(store, job["channels"])
        try:
            worker.serve()
        finally:
            worker.close()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
