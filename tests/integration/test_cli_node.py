import fcntl
import os
import signal
import socket
import time
from pathlib import Path

import pytest
from tests.integration.cluster import eventually, free_port
from tests.integration.test_cli_kit import made, node, refused, run

from canister import Canister

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_runs_until_a_signal_and_ends_well(number: signal.Signals, tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    with node(tmp_path / "d", "--listen", address, "--session-timeout", "7m") as process:
        assert f"listens on {address};" in process.line
        assert "session_timeout=420s" in process.line
        assert run("status", tmp_path / "d", "--json").json["agent_pid"] == process.popen.pid
        assert process.end(number) == 0
    assert not (tmp_path / "d" / "agent.sock").exists()


@pytest.mark.parametrize("pause", [0.0, 0.005, 0.01, 0.02, 0.04])
def test_a_second_signal_does_not_kill_what_ends(pause: float, tmp_path: Path) -> None:
    """Whoever presses Ctrl-C twice sees the same as after once."""
    with node(tmp_path) as process:
        for _ in range(10):
            process.popen.send_signal(signal.SIGINT)
            time.sleep(pause)
        assert process.popen.wait(timeout=20) == 0
        assert "Traceback" not in process.log


def test_without_listen_it_says_that_it_is_alone(tmp_path: Path) -> None:
    with node(tmp_path) as process:
        assert "listens nowhere" in process.line
        assert process.end() == 0


def test_two_nodes_find_each_other_through_a_seed(tmp_path: Path) -> None:
    first, second = (f"127.0.0.1:{free_port()}" for _ in range(2))
    with (
        node(tmp_path / "a", "--listen", first),
        node(tmp_path / "b", "--listen", second, "--seed", first),
    ):
        run("put", tmp_path / "a", "i", "k", "v")
        eventually(lambda: "'v'" in run("get", tmp_path / "b", "i").out)


def test_a_second_process_says_so_and_takes_over(tmp_path: Path) -> None:
    with node(tmp_path) as first, node(tmp_path) as second:
        assert f"process {first.popen.pid} is the node's agent already" in second.line
        first.end(signal.SIGKILL)
        eventually(lambda: run("status", tmp_path, "--json").json["agent_pid"] == second.popen.pid)
        eventually(lambda: "listens nowhere" in second.log, message="it says that it took over")
        assert second.end() == 0


def test_a_second_process_ends_while_it_waits(tmp_path: Path) -> None:
    with Canister(tmp_path) as application, node(tmp_path) as process:
        assert f"process {os.getpid()} is the node's agent already" in process.line
        assert process.end() == 0
        assert application.node.status(0).pid == os.getpid()


def test_an_agent_that_does_not_answer_is_told(tmp_path: Path) -> None:
    with (made(tmp_path) / "agent.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with node(tmp_path) as process:
            assert "agent does not answer" in process.line
            fcntl.flock(lock, fcntl.LOCK_UN)
            eventually(lambda: run("status", tmp_path, "--json").json["agent_pid"] == process.popen.pid)
            assert process.end() == 0


def test_an_address_in_use_is_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with node(tmp_path, "--listen", address) as process:
            assert process.popen.wait(timeout=20) == 3
            assert process.line == ""
        assert f"cannot listen on {address}" in refused("node", tmp_path, "--listen", address)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--session-timeout", "soon"], "session_timeout"),
        (["--listen", "127.0.0.1"], "host:port"),
        (["--seed", "127.0.0.1:1"], "seeds are given without listen"),
        (["--cluster", "other"], "belongs to cluster 'shop'"),
    ],
)
def test_a_wrong_setting_is_told(words: list[str], said: str, tmp_path: Path) -> None:
    with Canister(tmp_path, cluster="shop", agent=False):
        pass
    assert said in refused("node", tmp_path, *words)


def test_signal_handlers_are_put_back(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    refused("node", tmp_path, "--session-timeout", "soon")
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_an_unknown_log_level_is_wrong_usage(tmp_path: Path) -> None:
    assert "--log-level" in run("node", tmp_path / "d", "--log-level", "loud", code=2).err
    assert not (tmp_path / "d").exists()
