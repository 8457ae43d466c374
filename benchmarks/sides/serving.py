"""What all sides of a comparison share: a process that does as it is told, and how it times itself.

Each side is a script of its own, run by the Python of its own environment; this module is all that it
shares with the harness, and needs nothing but the standard library. Requests and answers are JSON lines.
"""

import asyncio
import itertools
import json
import os
import random
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

T = TypeVar("T")

KEY = "user"
VALUE = "v" * 200
_DRAWN = 100_000


def ids(count: int) -> list[str]:
    """Return *count* ids of 32 bytes, the same on every side, in an order that is not sorted."""
    chance = random.Random(count)
    return [f"{chance.getrandbits(128):032x}" for _ in range(count)]


def unknown(count: int) -> list[str]:
    """Return *count* ids that no side has."""
    return [f"unknown-{n:024d}" for n in range(count)]


def wide(keys: int = 10) -> dict[str, str]:
    """Return a session of so many keys with 100 bytes each."""
    return {f"key{n}": f"{n % 10}" * 100 for n in range(keys)}


def drawn(things: Sequence[T]) -> Callable[[], T]:
    """Return what draws one of some things by chance: from what was drawn before anything is timed."""
    return itertools.cycle(random.Random().choices(things, k=_DRAWN)).__next__


def work() -> None:
    """Be a page that computes for a millisecond of processor time."""
    end = time.thread_time_ns() + 1_000_000
    while time.thread_time_ns() < end:
        pass


def timed(step: Callable[[int], object], count: int) -> dict[str, float]:
    """Call *step* with 0 to *count* - 1; return what a call took, in microseconds."""
    clock = time.perf_counter_ns
    spent = [0] * count
    cpu, begun = time.process_time_ns(), clock()
    for number in range(count):
        before = clock()
        step(number)
        spent[number] = clock() - before
    return _figures(spent, clock() - begun, time.process_time_ns() - cpu)


async def timed_async(step: Callable[[int], Awaitable[object]], count: int) -> dict[str, float]:
    """Do what `timed` does, for a step that is awaited."""
    clock = time.perf_counter_ns
    spent = [0] * count
    cpu, begun = time.process_time_ns(), clock()
    for number in range(count):
        before = clock()
        await step(number)
        spent[number] = clock() - before
    return _figures(spent, clock() - begun, time.process_time_ns() - cpu)


def paced(step: Callable[[int], object], count: int, rate: float) -> dict[str, float]:
    """Call *step* *rate* times a second; return what a call took. Who is late makes up for it at once."""
    clock = time.perf_counter_ns
    spent = [0] * count
    cpu, begun = time.process_time_ns(), clock()
    for number in range(count):
        wait = begun + int(number * 1e9 / rate) - clock()
        if wait > 0:
            time.sleep(wait / 1e9)
        before = clock()
        step(number)
        spent[number] = clock() - before
    return _figures(spent, clock() - begun, time.process_time_ns() - cpu)


def repeated(step: Callable[[int], object], seconds: float) -> dict[str, float]:
    """Call *step* for some seconds; return how often a second."""
    begun = time.perf_counter()
    number = 0
    while (elapsed := time.perf_counter() - begun) < seconds:
        step(number)
        number += 1
    return {"rate": number / elapsed}


def serve(side: object) -> None:
    """Call what is asked for of the public methods of *side* until the harness hangs up."""
    _answer({"ready": os.getpid()})
    for line in sys.stdin:
        request = json.loads(line)
        value = getattr(side, request["do"])(**request["arguments"])
        if asyncio.iscoroutine(value):
            value = asyncio.run(value)
        _answer({"value": value})


def _answer(answer: dict[str, Any]) -> None:
    print(json.dumps(answer), flush=True)


def _figures(spent: list[int], elapsed: int, cpu: int) -> dict[str, float]:
    ordered = sorted(spent)
    count = len(ordered)

    def share(part: float) -> float:
        return ordered[min(count - 1, int(count * part))] / 1000

    return {
        "p50": share(0.5),
        "p99": share(0.99),
        "p999": share(0.999),
        "max": ordered[-1] / 1000,
        "mean": elapsed / count / 1000,
        "cpu": cpu / count / 1000,
        "rate": count / elapsed * 1e9,
    }
