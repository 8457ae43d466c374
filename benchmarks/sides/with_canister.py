"""Canister's side: one process of a node."""

import json
import logging
import sys
import time
from typing import Any

from serving import KEY, VALUE, drawn, ids, paced, repeated, serve, timed, unknown, wide

from canister import Canister
from canister.agent.connection import Connection
from canister.clock import SECOND
from canister.codec import encode_id, encode_value, key_slot
from canister.edits import Moment, write
from canister.record import Record

_AT_ONCE = 500
"""Sessions in one transaction while a node is filled."""
_PAUSE = 0.0001
"""Seconds between two looks for what has to arrive: without it the reader takes a core from who brings it."""


class Side:
    """A handle on a node, and the operations that are measured on it."""

    def __init__(self, store: Canister, sessions: int) -> None:
        self.store = store
        self.ids = ids(sessions)

    def fill(self, prefix: str = "", count: int = 0, size: int = len(VALUE)) -> None:
        """Store the sessions that are read, or *count* others, many in a transaction."""
        names = [f"{prefix}{n:024d}" for n in range(count)] if prefix else self.ids
        writes = {key_slot(KEY): encode_value("v" * size)}
        policy = self.store.node.policy

        def edit(record: Record | None, moment: Moment) -> Record | None:
            return write(record, moment, policy, writes)

        for start in range(0, len(names), _AT_ONCE):
            self.store.node.commit([(encode_id(name), edit) for name in names[start : start + _AT_ONCE]])

    def fill_expired(self, prefix: str, count: int) -> None:
        """Store sessions whose time was over two hours ago, some in a transaction."""
        writes = {key_slot(KEY): encode_value(VALUE)}
        policy = self.store.node.policy

        def edit(record: Record | None, moment: Moment) -> Record | None:
            return write(None, Moment(moment.version, moment.now - 2 * 3600 * SECOND), policy, writes)

        names = [f"{prefix}{n:024d}" for n in range(count)]
        for start in range(0, len(names), _AT_ONCE):
            self.store.node.commit([(encode_id(name), edit) for name in names[start : start + _AT_ONCE]])

    def sweep(self) -> dict[str, float]:
        """Drop what is over; return how long it took."""
        begun = time.monotonic()
        dropped = self.store.clear_untouched_sessions()
        return {"seconds": time.monotonic() - begun, "dropped": dropped}

    def moved(self) -> int:
        """Return how many bytes this node's agent, if it runs here, has sent to peers."""
        return _Counted.sent

    def fill_wide(self, keys: int = 10) -> None:
        for name in self.ids:
            self.store.update("wide-" + name, wide(keys))

    def put_key(self, count: int) -> dict[str, float]:
        put, names = self.store.put, ["wide-" + name for name in self.ids]
        return timed(lambda n: put(names[n % len(names)], "key0", VALUE[:100]), count)

    def get(self, count: int, begin: int = 0) -> dict[str, float]:
        get, names = self.store.get, self.ids
        return timed(lambda n: get(names[(begin + n) % len(names)], KEY), count)

    def get_unknown(self, count: int) -> dict[str, float]:
        get, names = self.store.get, unknown(count)
        return timed(lambda n: get(names[n], KEY), count)

    def load(self, count: int) -> dict[str, float]:
        load, names = self.store.get_data, ["wide-" + name for name in self.ids]
        return timed(lambda n: load(names[n % len(names)]), count)

    def put(self, count: int, begin: int = 0) -> dict[str, float]:
        put, names = self.store.put, self.ids
        return timed(lambda n: put(names[(begin + n) % len(names)], KEY, VALUE), count)

    def put_new(self, count: int, prefix: str) -> dict[str, float]:
        put = self.store.put
        return timed(lambda n: put(f"{prefix}{n:024d}", KEY, VALUE), count)

    def put_paced(self, count: int, rate: float) -> dict[str, float]:
        put, names = self.store.put, self.ids
        return paced(lambda n: put(names[n % len(names)], KEY, VALUE), count, rate)

    def update(self, count: int) -> dict[str, float]:
        update, names = self.store.update, self.ids
        keys = {f"key{n}": VALUE for n in range(3)}
        return timed(lambda n: update(names[n % len(names)], keys), count)

    def put_for(self, seconds: float) -> dict[str, float]:
        put, names = self.store.put, self.ids
        return repeated(lambda n: put(names[n % len(names)], KEY, VALUE), seconds)

    def mixed_for(self, seconds: float) -> dict[str, float]:
        """Nine loads to one put."""
        store, draw = self.store, drawn(self.ids)

        def step(number: int) -> None:
            name = draw()
            if number % 10:
                store.get_data(name)
            else:
                store.put(name, KEY, VALUE)

        return repeated(step, seconds)

    def send_stamped(self, count: int, rate: float, run: str) -> dict[str, float]:
        """Put the time of the put itself, for another node to read."""
        put = self.store.put
        return paced(lambda n: put(f"{run}-{n}", KEY, time.monotonic_ns()), count, rate)

    def await_stamped(self, count: int, run: str) -> dict[str, float]:
        """Read each of the sessions that `send_stamped` puts elsewhere until it is here."""
        get = self.store.get
        lags: list[float] = []
        for number in range(count):
            name = f"{run}-{number}"
            while (sent := get(name, KEY, local=True)) is None:
                time.sleep(_PAUSE)
            lags.append((time.monotonic_ns() - sent) / 1e6)
        lags.sort()
        return {"p50": lags[count // 2], "p99": lags[int(count * 0.99)], "max": lags[-1]}

    def get_for(self, seconds: float) -> dict[str, float]:
        """Read some hundred times a second."""
        get, names = self.store.get, self.ids
        spent: list[float] = []
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for _ in range(10):
                before = time.perf_counter_ns()
                get(names[len(spent) % len(names)], KEY, local=True)
                spent.append((time.perf_counter_ns() - before) / 1000)
            time.sleep(0.02)
        spent.sort()
        return {"p50": spent[len(spent) // 2], "p99": spent[int(len(spent) * 0.99)], "max": spent[-1]}

    def digest(self, at: int) -> str:
        return self.store.node.status(at).digest

    def is_linked(self, peers: int) -> bool:
        """Tell whether the node has compared itself with as many peers."""
        return sum(member.state == "up" for member in self.store.members()) == peers

    def isolate(self, on: bool) -> None:
        self.store.node.isolate(on=on)


class _Counted:
    """Counts what is written to peers."""

    sent = 0

    @classmethod
    def install(cls) -> None:
        write = Connection.write

        def counted(self: Connection, payload: bytes) -> None:
            cls.sent += len(payload)
            write(self, payload)

        Connection.write = counted  # type: ignore[method-assign]


def main(job: dict[str, Any]) -> None:
    logging.basicConfig(level=logging.ERROR)
    _Counted.install()
    with Canister(job["path"], **job["settings"]) as store:
        serve(Side(store, job["sessions"]))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
