"""Redis's side: redis-py with hiredis over the loopback; a session of many keys is one JSON text."""

import json
import sys
from typing import Any

import redis
from serving import KEY, VALUE, drawn, ids, paced, repeated, serve, timed, unknown, wide


class Side:
    """One client."""

    def __init__(self, port: int, sessions: int) -> None:
        self.client = redis.Redis(host="127.0.0.1", port=port)
        self.ids = ids(sessions)
        self.value = VALUE.encode()
        self.session = json.dumps({KEY: VALUE})

    def fill(self) -> None:
        for name in self.ids:
            self.client.set(name, self.value, ex=1200)

    def fill_sessions(self) -> None:
        for name in self.ids:
            self.client.set(name, self.session, ex=1200)

    def fill_wide(self) -> None:
        text = json.dumps(wide())
        for name in self.ids:
            self.client.set("wide-" + name, text, ex=1200)

    def get(self, count: int) -> dict[str, float]:
        get, names = self.client.get, self.ids
        return timed(lambda n: get(names[n % len(names)]), count)

    def get_unknown(self, count: int) -> dict[str, float]:
        get, names = self.client.get, unknown(count)
        return timed(lambda n: get(names[n]), count)

    def load(self, count: int) -> dict[str, float]:
        get, names = self.client.get, ["wide-" + name for name in self.ids]
        return timed(lambda n: json.loads(get(names[n % len(names)])), count)

    def put(self, count: int) -> dict[str, float]:
        put, names = self.client.set, self.ids
        return timed(lambda n: put(names[n % len(names)], self.value, ex=1200), count)

    def put_paced(self, count: int, rate: float) -> dict[str, float]:
        put, names = self.client.set, self.ids
        return paced(lambda n: put(names[n % len(names)], self.value, ex=1200), count, rate)

    def update(self, count: int) -> dict[str, float]:
        put, names = self.client.hset, ["hash-" + name for name in self.ids]
        keys = {f"key{n}": VALUE for n in range(3)}
        return timed(lambda n: put(names[n % len(names)], mapping=keys), count)

    def put_for(self, seconds: float) -> dict[str, float]:
        put, names = self.client.set, self.ids
        return repeated(lambda n: put(names[n % len(names)], self.value, ex=1200), seconds)

    def mixed_for(self, seconds: float) -> dict[str, float]:
        """Nine loads, decoded as on the other sides, to one put."""
        client, draw, session = self.client, drawn(self.ids), self.session

        def step(number: int) -> None:
            name = draw()
            if number % 10:
                json.loads(client.get(name))
            else:
                client.set(name, session, ex=1200)

        return repeated(step, seconds)


def main(job: dict[str, Any]) -> None:
    serve(Side(job["port"], job["sessions"]))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
