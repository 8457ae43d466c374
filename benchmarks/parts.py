"""``python -m benchmarks.parts``: where the time of a get, a put and the apply of a peer's commits goes.

Each statement is timed where it is issued; what is left is Python. Processor time of one process, without an
agent and without a rival.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from canister import Canister
from canister.codec import encode_id, encode_value, key_slot
from canister.record import Cell, Record, make_version, new_node_id

sys.path.insert(0, str(Path(__file__).with_name("sides")))
from serving import KEY, VALUE, ids

_SESSIONS = 2_000
_AT_ONCE = 100
"""Commits of a peer that are applied in one transaction."""


def main() -> None:
    """Measure and print."""
    with TemporaryDirectory(prefix="canister-parts-") as folder:
        names = ids(_SESSIONS)
        with Canister(folder, agent=False) as canister, Canister(folder, agent=False) as other:
            for name in names:
                canister.put(name, KEY, VALUE)
            canister.node.store.checkpoint()
            _tell("get, in memory", canister, lambda n: canister.get(names[n], KEY))
            _tell("get, read from the database", other, lambda n: other.get(names[n], KEY))
            _tell("get of an unknown id", canister, lambda n: canister.get(f"unknown-{n}", KEY))
            _tell("put", canister, lambda n: canister.put(names[n], KEY, VALUE))
            apply = _applying(canister, names)
            _tell(f"apply of {_AT_ONCE} commits of a peer", canister, apply, _SESSIONS // _AT_ONCE)


def _applying(canister: Canister, names: list[str]) -> Callable[[int], object]:
    """Return what merges newer values of a peer into some of the sessions."""
    store, peer = canister.node.store, new_node_id()
    slot, value = key_slot(KEY), encode_value(VALUE)

    def apply(number: int) -> object:
        delta = Record(cells={slot: Cell(make_version(time.time_ns() // 1000, peer), value)})
        some = names[number * _AT_ONCE : (number + 1) * _AT_ONCE]
        return store.merge([(encode_id(name), delta) for name in some], {})

    return apply


def _tell(title: str, canister: Canister, step: Callable[[int], object], count: int = _SESSIONS) -> None:
    """Print what a step takes, and which part of it each statement takes."""
    pool = canister.node.store._pool
    handle = pool.take()
    execute, write = handle.execute, handle.write
    spent: dict[str, int] = {}
    parts: dict[str, list[float]] = {}

    def timed(run: Callable[..., Any]) -> Callable[..., Any]:
        def measured(sql: str, *arguments: Any) -> Any:
            begun = time.thread_time_ns()
            cursor = run(sql, *arguments)
            word = " ".join(sql.split()[:3])
            spent[word] = spent.get(word, 0) + time.thread_time_ns() - begun
            return cursor

        return measured

    handle.execute, handle.write = timed(execute), timed(write)
    pool.give(handle)
    for number in range(count):
        spent.clear()
        begun = time.thread_time_ns()
        step(number)
        total = time.thread_time_ns() - begun
        for word, nanoseconds in {**spent, "Python": total - sum(spent.values()), "in all": total}.items():
            parts.setdefault(word, []).append(nanoseconds / 1000)
    handle.execute, handle.write = execute, write
    whole = median(parts["in all"])
    print(f"\n{title}: {whole:.1f} us of processor")
    for word, values in sorted(parts.items(), key=lambda item: -median(item[1])):
        if len(values) < count / 2 or word == "in all":
            continue  # once in a while: what is kept in memory was read
        print(f"  {median(values):8.1f} us {median(values) / whole:5.0%}  {word}")


if __name__ == "__main__":
    main()
