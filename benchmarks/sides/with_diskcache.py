"""diskcache's side: SQLite behind a dictionary's interface."""

import json
import sys
from typing import Any

import diskcache
from serving import VALUE, ids, serve, timed, unknown, wide


class Side:
    """One cache."""

    def __init__(self, path: str, sessions: int) -> None:
        self.cache = diskcache.Cache(path)
        self.ids = ids(sessions)

    def fill(self) -> None:
        for name in self.ids:
            self.cache.set(name, VALUE, expire=1200)

    def fill_wide(self) -> None:
        for name in self.ids:
            self.cache.set("wide-" + name, wide(), expire=1200)

    def get(self, count: int) -> dict[str, float]:
        get, names = self.cache.get, self.ids
        return timed(lambda n: get(names[n % len(names)]), count)

    def get_unknown(self, count: int) -> dict[str, float]:
        get, names = self.cache.get, unknown(count)
        return timed(lambda n: get(names[n]), count)

    def load(self, count: int) -> dict[str, float]:
        get, names = self.cache.get, ["wide-" + name for name in self.ids]
        return timed(lambda n: get(names[n % len(names)]), count)

    def put(self, count: int) -> dict[str, float]:
        put, names = self.cache.set, self.ids
        return timed(lambda n: put(names[n % len(names)], VALUE, expire=1200), count)


def main(job: dict[str, Any]) -> None:
    serve(Side(job["path"], job["sessions"]))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
