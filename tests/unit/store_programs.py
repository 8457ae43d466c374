"""Programs that use one data directory, each run in a process of its own by test_sqlite_store.py.

Run as ``python -m tests.unit.store_programs NAME DIRECTORY [ARGUMENT...]``; what a program returns
is printed as JSON.
"""

import ctypes
import gc
import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import apsw
import pytest

from canister import forks
from canister.config import Config
from canister.errors import ForkError
from canister.record import stamp_of
from canister.store import connections
from canister.store.sqlite import SqliteStore
from canister.testing.contract import put, values, visible


def open_store(directory: str) -> SqliteStore:
    return SqliteStore(Path(directory), Config())


def fork_in_c() -> int:
    """Fork as C code does, without a word to Python."""
    return int(ctypes.PyDLL(None).fork())


def in_child(work: Callable[[], None], fork: Callable[[], int] = os.fork) -> int:
    """Fork, do *work* in the child, and return the child's exit code."""
    return exit_code(begin_child(work, fork))


def exit_code(pid: int) -> int:
    """Wait for a child."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def begin_child(work: Callable[[], None], fork: Callable[[], int]) -> int:
    """Fork, do *work* in the child, and return the child's number."""
    pid = fork()
    if pid:
        return pid
    code = 1
    try:
        work()
        code = 0
    finally:
        if code:
            traceback.print_exc()
        sys.stderr.flush()
        os._exit(code)


def write(directory: str, name: str, count: str) -> list[int]:
    """Put a number of sessions from two threads; return the stamps."""
    store = open_store(directory)

    def work(thread: int) -> list[int]:
        return [
            stamp_of(put(store, f"{name}-{thread}-{turn}".encode(), k=b"1")) for turn in range(int(count))
        ]

    with ThreadPoolExecutor(2) as executor:
        parts = list(executor.map(work, range(2)))
    assert all(part == sorted(set(part)) for part in parts)
    store.close()
    return parts[0] + parts[1]


def read(directory: str, *names: str) -> list[str | None]:
    """Return the value of the key k of each session, None for one that is not there."""
    store = open_store(directory)
    found = [store.load(name.encode()).record and values(store, name.encode())["k"] for name in names]
    store.close()
    return [value and value.decode() for value in found]


def fork(directory: str) -> None:
    """Fork with open connections: parent and child both read and write what is one store."""
    store = open_store(directory)
    put(store, b"before", k=b"1")

    def child() -> None:
        assert values(store, b"before") == {"k": b"1"}
        put(store, b"before", child=b"1")
        put(store, b"child", k=b"1")

    assert in_child(child) == 0
    assert values(store, b"before") == {"k": b"1", "child": b"1"}
    put(store, b"after", k=b"1")
    assert in_child(lambda: store.close()) == 0
    put(store, b"last", k=b"1")
    store.close()


def fork_locks(directory: str, *, fork: Callable[[], int] = os.fork) -> bool:
    """Tell whether a forked child that uses the store has locks of its own on the database."""
    store = open_store(directory)
    put(store, b"s", k=b"1")
    using, used = os.pipe()
    waiting, told = os.pipe()
    pid = fork()
    if not pid:
        store.load(b"not kept in memory")
        os.write(used, b".")
        os.read(waiting, 1)
        os._exit(0)
    os.read(using, 1)
    store.close()
    has_locks = locked(directory)
    os.write(told, b".")
    assert os.waitpid(pid, 0)[1] == 0
    return has_locks


def fork_untold(directory: str) -> list[int]:
    """Fork in C, with open connections; return the children's exit codes once each has written 50 keys."""
    store = open_store(directory)
    put(store, b"s", k=b"1")

    def work(name: int) -> None:
        signal.alarm(20)
        for turn in range(50):
            put(store, b"s", **{f"{name}-{turn}": b"1"})
        store.close()

    # From the only thread: where others wait for the interpreter, a child of such a fork may wait for them.
    children = [begin_child(partial(work, name), fork_in_c) for name in range(4)]
    codes = [exit_code(pid) for pid in children]
    put(store, b"s", last=b"1")
    assert len(values(store, b"s")) == 202
    store.close()
    return codes


def fork_untold_locks(directory: str) -> bool:
    """Do what `fork_locks` does, with a child that C code forks."""
    return fork_locks(directory, fork=fork_in_c)


def fork_untold_stuck(directory: str) -> None:
    """Fork in C while a connection is in use: the child gets an error, the parent goes on."""
    store = open_store(directory)
    put(store, b"s", k=b"1")

    def child() -> None:
        signal.alarm(10)
        for use in (lambda: store.load(b"not kept in memory"), lambda: put(store, b"s", k=b"2")):
            with pytest.raises(ForkError, match="lazy-apps"):
                use()
        store.close()

    with store.snapshot() as view:
        before = view.whole(b"s")
        assert in_child(child, fork_in_c) == 0
        assert view.whole(b"s") == before
    put(store, b"s", k=b"3")
    store.close()


def fork_busy(directory: str) -> int:
    """Fork again and again while threads write; return how many writes the threads made."""
    store = open_store(directory)
    done = threading.Event()

    def work(name: int) -> list[bytes]:
        written: list[bytes] = []
        while not done.is_set():
            session = b"thread-%d-%d" % (name, len(written))
            put(store, session, k=b"1")
            written.append(session)
        return written

    with ThreadPoolExecutor(3) as executor:
        running = [executor.submit(work, name) for name in range(3)]
        try:
            children = [b"child-%d" % number for number in range(15)]
            for session in children:
                assert in_child(lambda session=session: put(store, session, k=b"1") and None) == 0
        finally:
            done.set()
        written = [session for future in running for session in future.result()]
    for session in written + children:
        assert values(store, session) == {"k": b"1"}
    store.close()
    return len(written)


def fork_stuck(directory: str) -> None:
    """Fork while a connection is in use for too long: the child gets an error, the parent goes on."""
    connections._FORK_PATIENCE = 0.1
    store = open_store(directory)
    put(store, b"s", k=b"1")

    def child() -> None:
        for use in (lambda: store.load(b"not kept in memory"), lambda: put(store, b"s", k=b"2")):
            with suppress(ForkError):
                use()
                raise AssertionError("the child used the parent's connection")
        with open_store(directory).snapshot() as view:
            assert view.whole(b"s") is not None

    with store.snapshot() as view:
        before = view.whole(b"s")
        assert in_child(child) == 0
        assert view.whole(b"s") == before
    put(store, b"s", k=b"3")
    store.close()


def fork_together(directory: str) -> None:
    """Fork from two threads at the same time, while a third one opens the directory again and again."""
    store = open_store(directory)
    done = threading.Event()

    def child() -> None:
        connections = [found for found in gc.get_objects() if isinstance(found, apsw.Connection)]
        assert not connections, "the parent had some open"
        signal.alarm(10)
        put(store, b"child", k=b"1")

    def work() -> list[int]:
        return [in_child(child) for _ in range(30)]

    def reopen() -> None:
        while not done.is_set():
            open_store(directory).close()

    with ThreadPoolExecutor(3) as executor:
        opening = executor.submit(reopen)
        forking = [executor.submit(work) for _ in range(2)]
        try:
            assert [code for future in forking for code in future.result(50)] == [0] * 60
        finally:
            done.set()
        opening.result()
    store.close()


def fork_interrupted(directory: str) -> None:
    """Fork while a connection is in use, and be interrupted meanwhile: the child gets an error."""
    store = open_store(directory)
    put(store, b"s", k=b"1")

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    def child() -> None:
        with suppress(ForkError):
            put(store, b"s", k=b"2")
            raise AssertionError("the child used the parent's files")

    signal.signal(signal.SIGALRM, interrupt)
    with store.snapshot():
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        assert in_child(child) == 0
    put(store, b"s", k=b"3")
    store.close()


def fork_told(directory: str, failing: str) -> list[str]:
    """Return in which order those who asked to be told of a fork are told; *failing* names one who raises."""
    told: list[str] = []
    names = "abcdefgh"

    class Owner:
        def __init__(self, name: str) -> None:
            self.name = name
            forks.watch_forks(self)

        def before_fork(self) -> None:
            self.tell("rest")

        def after_fork(self, *, child: bool) -> None:
            self.tell("child" if child else "parent")

        def tell(self, what: str) -> None:
            told.append(f"{what} {self.name}")
            if self.name == failing:
                raise RuntimeError

    def child() -> None:
        assert told[len(names) :] == [f"child {name}" for name in names]

    owners = [Owner(name) for name in names]
    assert in_child(child) == 0
    del owners
    return told


def locked(directory: str) -> bool:
    """Tell whether another process holds SQLite's shared lock on the database file."""
    import fcntl

    pending_byte, shared_bytes = 0x40000000, 510
    with Path(directory, "canister.db").open("r+b") as file, suppress(BlockingIOError):
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, shared_bytes, pending_byte + 2)
        return False
    return True


def die(directory: str) -> None:
    """Put, say so, and die without any farewell."""
    store = open_store(directory)
    version = put(store, b"s", k=b"1")
    assert visible(store, b"s").cells
    print(stamp_of(version), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    programs: dict[str, Callable[..., Any]] = {
        program.__name__: program
        for program in (
            *(write, read, fork, fork_locks, fork_busy, fork_stuck, fork_together, fork_interrupted),
            *(fork_untold, fork_untold_locks, fork_untold_stuck, fork_told, locked, die),
        )
    }
    print(json.dumps(programs[sys.argv[1]](*sys.argv[2:])))
