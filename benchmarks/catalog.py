"""All benchmarks by name, in the order in which they are run."""

from collections.abc import Callable

from benchmarks.bench import Bench
from benchmarks.results import Result
from benchmarks.suite import clusters, growth, operations, processes, web

BENCHMARKS: dict[str, Callable[[Bench], list[Result]]] = {
    "get": operations.get,
    "load": operations.load,
    "get_unknown": operations.get_unknown,
    "put": operations.put,
    "update": operations.update,
    "mixed": processes.mixed,
    "worst": processes.worst,
    "peers": processes.peers,
    "lag": clusters.lag,
    "converge": clusters.converge,
    "stopped": clusters.stopped,
    "join": clusters.join,
    "heal": clusters.heal,
    "start": clusters.start,
    "sweep": clusters.sweep,
    "growth": growth.growth,
    "starlette": web.starlette,
    "django": web.django,
    "flask": web.flask,
}
