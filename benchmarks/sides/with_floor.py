"""The floor: the statements that a node issues, raw through apsw, and a dict with an encoded value."""

import base64
import fcntl
import hashlib
import hmac
import json
import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import apsw
import msgspec
from serving import KEY, VALUE, drawn, ids, paced, repeated, serve, timed, wide

from canister import Canister
from canister.store.rows import place_of

_GET = "SELECT record, held FROM sessions WHERE place BETWEEN ?1 AND ?1 + 127 AND id = ?2"
_CHANGE = "UPDATE sessions SET record = ? WHERE place = ?"
_PUT = "INSERT INTO sessions (place, id, record, retain) VALUES (?, ?, ?, ?)"
_APPEND = "INSERT INTO log (stamp, changes) VALUES (?, ?)"
_OVERHEAD = 120
"""Bytes of a record beside its values, and of a log entry beside its commit, in round numbers."""
_CELL = 31
"""Bytes of each further key, its value left out: with four of them a record no longer fits into its page."""


class Floor:
    """A database as a node makes it, without the node."""

    def __init__(self, path: Path, sessions: int) -> None:
        Canister(path, agent=False).close()
        self.connection = apsw.Connection(str(path / "canister.db"))
        self.execute = self.connection.execute
        self.connection.set_busy_timeout(5000)
        self.turn = os.open(path / "floor.lock", os.O_RDWR | os.O_CREAT)
        self.execute("PRAGMA wal_autocheckpoint=0")
        self.execute("PRAGMA synchronous=NORMAL")
        self.rows = self._rows(name.encode() for name in ids(sessions))
        self.wide_rows = self._rows(b"wide-" + name for _, name in self.rows)
        self.record = bytes(_OVERHEAD + len(VALUE))
        self.wide = bytes(_OVERHEAD + sum(map(len, wide().values())))
        self.stamp = 0
        self.table = {name: msgspec.msgpack.encode({KEY: VALUE}) for _, name in self.rows}

    @staticmethod
    def _rows(names: Iterable[bytes]) -> list[tuple[int, bytes]]:
        return [(place_of(name), name) for name in names]

    def fill(self) -> None:
        with self.connection:
            for place, name in self.rows:
                self.execute(_PUT, (place, name, self.record, time.time_ns() // 1000))

    def fill_wide(self) -> None:
        with self.connection:
            for place, name in self.wide_rows:
                self.execute(_PUT, (place, name, self.wide, 0))

    def _select(self, keys: list[tuple[int, bytes]], count: int) -> dict[str, float]:
        execute = self.execute
        return timed(lambda n: execute(_GET, keys[n % len(keys)]).fetchone(), count)

    def get(self, count: int) -> dict[str, float]:
        return self._select(self.rows, count)

    def load(self, count: int) -> dict[str, float]:
        return self._select(self.wide_rows, count)

    def get_unknown(self, count: int) -> dict[str, float]:
        return self._select(self._rows(b"unknown-%d" % n for n in range(len(self.rows))), count)

    def request(self, count: int) -> dict[str, float]:
        """What a request with a session cannot do without: reading it raw, and checking the cookie's MAC."""
        execute, keys = self.execute, self.rows
        text = base64.urlsafe_b64encode(bytes(84)).decode()
        mac = hashlib.blake2b(bytes(68), key=b"key", digest_size=16).digest()

        def step(number: int) -> None:
            data = base64.urlsafe_b64decode(text)
            hmac.compare_digest(hashlib.blake2b(data[:68], key=b"key", digest_size=16).digest(), mac)
            execute(_GET, keys[number % len(keys)]).fetchone()

        return timed(step, count)

    def put(self, count: int) -> dict[str, float]:
        return self._put(self.record, count)

    def update(self, count: int) -> dict[str, float]:
        return self._put(bytes(_OVERHEAD + 4 * len(VALUE) + 3 * _CELL), count)

    def _put(self, record: bytes, count: int) -> dict[str, float]:
        execute, rows = self.execute, self.rows

        def step(number: int) -> None:
            place, _ = rows[number % len(rows)]
            self.stamp = max(self.stamp + 1, time.time_ns() // 1000)
            # Another one each time: SQLite writes no page that stays as it is.
            changed = self.stamp.to_bytes(8, "big") + record[8:]
            execute("BEGIN IMMEDIATE")
            execute(_CHANGE, (changed, place))
            execute(_APPEND, (self.stamp, changed))
            execute("COMMIT")

        figures = timed(step, count)
        self.tidy()
        return figures

    def _write(self, name: int) -> None:
        """Do what `put` does among several processes: a kernel lock says whose turn it is."""
        place, _ = self.rows[name]
        fcntl.flock(self.turn, fcntl.LOCK_EX)
        self.execute("BEGIN IMMEDIATE")
        stamp = time.time_ns() // 1000
        changed = stamp.to_bytes(8, "big") + self.record[8:]
        self.execute(_CHANGE, (changed, place))
        self.execute(_APPEND, (stamp, changed))
        self.execute("COMMIT")
        fcntl.flock(self.turn, fcntl.LOCK_UN)

    def mixed_for(self, seconds: float) -> dict[str, float]:
        """Nine times read and decoded, once written."""
        execute, rows, decode = self.execute, self.rows, msgspec.msgpack.decode
        draw = drawn(range(len(rows)))

        def step(number: int) -> None:
            name = draw()
            if number % 10:
                execute(_GET, rows[name]).fetchone()
                decode(self.table[rows[name][1]])
            else:
                self._write(name)

        return repeated(step, seconds)

    def put_paced(self, count: int, rate: float) -> dict[str, float]:
        return paced(lambda n: self._write(n % len(self.rows)), count, rate)

    def tidy(self) -> None:
        """Make the log short again, while nobody writes."""
        self.connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        self.execute("DELETE FROM log")

    def get_dict(self, count: int) -> dict[str, float]:
        """A dict and the decoding of what it holds: what no store can beat."""
        table, names, decode = self.table, [name for _, name in self.rows], msgspec.msgpack.decode
        return timed(lambda n: decode(table[names[n % len(names)]])[KEY], count)


def main(job: dict[str, Any]) -> None:
    serve(Floor(Path(job["path"]), job["sessions"]))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
