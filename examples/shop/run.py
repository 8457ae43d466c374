"""The demo: three nodes on this machine, each a web server process of its own running the shop.

.venv/bin/python examples/shop/run.py [--port N] [--data DIR]
"""

import argparse
import contextlib
import os
import select
import shlex
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import FrameType

from nodes import FIRST_PORT, HOST, DemoError, Node, await_answer, choose_ports, prepare

PATIENCE = 20.0
"""Seconds a node may take to start."""


ending = threading.Event()
"""Set when the demo ends: signals do nothing more then."""


class Stopped(Exception):
    """Ctrl-C was typed, or something else asked the demo to end."""


class Demo:
    """Starts the nodes, watches them and takes commands, until it is told to stop."""

    def __init__(self, nodes: list[Node], key: str) -> None:
        self.nodes = nodes
        self._key = key
        self._input = 0 if sys.stdin is not None else None  # closed, the number may be another file's
        self._typed = b""

    def run(self, data: Path, *, keeps: bool) -> None:
        """Run until `Stopped` is raised, then end all nodes."""
        try:
            for node in self.nodes:
                self._spawn(node)
            for node in self.nodes:
                await_answer(node, PATIENCE)
            self._await_peers()
            self._read_commands()  # finds out whether there is anybody to type them
            self._greet(data, keeps=keeps)
            while True:
                self._read_commands()
                self._notice_ends()
        except Stopped:
            pass
        finally:
            ending.set()  # nothing breaks off the end, which takes some seconds at most
            self._stop_all()

    # Starting and stopping.

    def _spawn(self, node: Node) -> None:
        node.start(
            {
                # In the environment and not in the arguments, which every user of the machine can list.
                "CANISTER_SECRET_KEYS": self._key,
                "CANISTER_LISTEN": node.mesh,
                "CANISTER_SEEDS": ",".join(other.mesh for other in self.nodes if other is not node),
                "SHOP_NODE": str(node.number),
                "SHOP_DATA": str(node.data),
                "SHOP_PORTS": ",".join(str(other.port) for other in self.nodes),
                "SHOP_MESH": ",".join(other.mesh for other in self.nodes),
                "SHOP_COMMAND": canister_command(),
            }
        )

    def _await_peers(self) -> None:
        """Wait until the nodes have met; usually they have by now."""
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            if all(node.peers_up() == len(self.nodes) - 1 for node in self.nodes):
                return
            time.sleep(0.05)

    def _stop_all(self) -> None:
        running = [node for node in self.nodes if node.pid is not None]
        pids = ", ".join(str(node.pid) for node in running)
        for node in running:
            node.end(signal.SIGTERM)
        for node in running:
            node.wait(5)
            node.collect()
        say(f"\nStopped {len(running)} nodes (pid {pids})." if running else "\nNo node was running.")

    # While it runs.

    def _notice_ends(self) -> None:
        for node in self.nodes:
            pid, code = node.pid, node.collect()
            if code is None:
                continue
            how = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
            again = f" Type `start {node.number}` to start it again." if self._input is not None else ""
            say(f"Node {node.number} (pid {pid}) {how}. The others go on.{again}")

    def _read_commands(self) -> None:
        """Wait a moment for typed lines; where nobody can type, just wait."""
        if self._input is None:
            time.sleep(0.2)
            return
        data = b""
        with contextlib.suppress(OSError):
            if not select.select([self._input], [], [], 0.2)[0]:
                return
            data = os.read(self._input, 4096)
        if not data:
            self._input = None
            return
        *lines, self._typed = (self._typed + data).split(b"\n")
        for line in lines:
            self._obey(line.decode(errors="replace").split())

    def _obey(self, words: list[str]) -> None:
        by_number = {str(node.number): node for node in self.nodes}
        match words:
            case []:
                pass
            case ["status"]:
                self._print_status()
            case ["start", number] if number in by_number:
                self._start(by_number[number])
            case ["kill", number] if number in by_number:
                self._kill(by_number[number])
            case ["quit" | "exit" | "stop"]:
                raise Stopped
            case _:
                say("The commands are: status, kill N, start N (N is 1, 2 or 3), quit")

    def _start(self, node: Node) -> None:
        self._notice_ends()
        if node.pid is not None:
            say(f"Node {node.number} runs already (pid {node.pid}).")
            return
        try:
            self._spawn(node)
            await_answer(node, PATIENCE)
            say(f"Node {node.number} is back on {node.url} (pid {node.pid}).")
        except DemoError as error:
            say(str(error))

    def _kill(self, node: Node) -> None:
        if node.pid is None:
            say(f"Node {node.number} does not run.")
            return
        say(f"kill -9 {node.pid}")
        node.end(signal.SIGKILL)
        node.wait(5)
        self._notice_ends()

    def _print_status(self) -> None:
        self._notice_ends()
        for node in self.nodes:
            where = node.where() if node.pid is not None else None
            if where is None:
                say(f"  node {node.number}   {'does not run' if node.pid is None else 'does not answer'}")
                continue
            linked = "CUT OFF" if where["isolated"] else f"{node.peers_up()} peers up"
            say(
                f"  node {node.number}   pid {where['pid']}   {linked}   sessions {where['sessions']}   "
                f"digest {where['digest'][:12]}"
            )

    def _greet(self, data: Path, *, keeps: bool) -> None:
        say("The Canister shop runs on three nodes. Each is a process with its own copy of all sessions.\n")
        for node in self.nodes:
            say(f"  node {node.number}   {node.url}   pid {node.pid}")
        say("\nOpen one in a browser and log in; then go on at another: no node is special.")
        say(f"Data and logs are in {data} ({'kept' if keeps else 'removed at the end'}).\n")
        if self._input is not None:
            say("Type here, then Enter:   status   kill 1   start 1")
        say("In another terminal:")
        for verb in ("status", "cut", "heal"):
            say("  " + shlex.join([canister_command(), verb, str(self.nodes[-1].data)]))
        say("\nCtrl-C ends everything.")


def say(text: str) -> None:
    with contextlib.suppress(OSError):  # the terminal may be gone
        print(text, flush=True)


def canister_command() -> str:
    """Return how to call the `canister` command that belongs to this Python, from here."""
    command, here = Path(sys.executable).with_name("canister"), Path.cwd()
    return str(command.relative_to(here) if command.is_relative_to(here) else command)


def catch_signals() -> None:
    """Let Ctrl-C, `kill` and a closed terminal end the demo by raising `Stopped`, once."""

    def stop(number: int, frame: FrameType | None) -> None:
        if not ending.is_set():
            ending.set()
            raise Stopped

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as under nohup
        signal.signal(signal.SIGHUP, stop)
    signal.signal(signal.SIGTTIN, signal.SIG_IGN)  # in the background, reading fails instead


def serve() -> None:
    """Run one node's web server: what each child process does."""
    import uvicorn
    from app import create_app
    from settings import settings_from_environment

    from canister import CanisterError

    threading.Thread(target=end_with_the_demo, daemon=True).start()
    settings = settings_from_environment()
    try:
        app = create_app(settings)
    except CanisterError as error:
        sys.exit(f"{type(error).__name__}: {error}")
    uvicorn.run(
        app,
        host=HOST,
        port=settings.ports[settings.node - 1],
        log_level="warning",
        access_log=False,
        ws="none",
        timeout_graceful_shutdown=2,
    )


def end_with_the_demo() -> None:
    """Wait for the demo's end of the pipe to close, then end this process."""
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def main() -> None:
    parser = argparse.ArgumentParser(description="Run the example shop on three nodes of this machine.")
    parser.add_argument(
        "--port",
        type=int,
        metavar="N",
        help=f"first of three ports, {FIRST_PORT} by default; 0: any free ones",
    )
    parser.add_argument("--data", type=Path, metavar="DIR", help="keep the nodes' data here")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve()
        return
    try:
        catch_signals()
        ports = choose_ports(arguments.port)
        kept = contextlib.nullcontext(arguments.data) if arguments.data else None
        with kept or tempfile.TemporaryDirectory(prefix="canister-") as directory:
            data = Path(directory).resolve()
            key, mesh = prepare(data)
            nodes = [Node(n, *at, data / f"node{n}") for n, at in enumerate(zip(ports, mesh, strict=True), 1)]
            Demo(nodes, key).run(data, keeps=arguments.data is not None)
    except Stopped:
        pass
    except (DemoError, OSError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
