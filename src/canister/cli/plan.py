"""``canister plan``: what a site needs on the mesh and on a Redis Cluster, and which to choose."""

import math
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable

from canister.cli.command import Command, declare_json
from canister.cli.output import print_json, print_pairs, print_table
from canister.cli.sizing import Advice, MeshPlan, RedisPlan, Share, Site, advise, plan_mesh, plan_redis
from canister.config import Config

_UNITS = ("B", "kB", "MB", "GB", "TB")
_MOST = 10**12
_LARGEST = Config().max_session
_NAMES = {"mesh": "the mesh", "redis": "a Redis Cluster"}


def _declare(parser: ArgumentParser) -> None:
    declare_json(parser)
    parser.add_argument("--nodes", type=_whole(1), required=True, metavar="N", help="application hosts")
    parser.add_argument(
        "--sessions", type=_whole(0), required=True, metavar="N", help="sessions that are held at a time"
    )
    parser.add_argument(
        "--writes-per-second",
        type=_rate,
        required=True,
        metavar="N",
        help="requests that change their session, on all hosts together",
    )
    parser.add_argument(
        "--value-size",
        type=_whole(0, _LARGEST),
        required=True,
        metavar="N",
        help="bytes of what a session holds",
    )


def _whole(least: int, most: int = _MOST) -> Callable[[str], int]:
    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError as error:
            raise ArgumentTypeError(f"a whole number is needed, not {text!r}") from error
        if not least <= number <= most:
            raise ArgumentTypeError(f"a number from {least} to {most} is needed, not {text}")
        return number

    return parse


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError as error:
        raise ArgumentTypeError(f"a number is needed, not {text!r}") from error
    if not (math.isfinite(rate) and 0 <= rate <= _MOST):
        raise ArgumentTypeError(f"a number from 0 to {_MOST} is needed, not {text}")
    return rate


def _run(options: Namespace) -> None:
    site = Site(options.nodes, options.sessions, options.writes_per_second, options.value_size)
    mesh, redis, advice = plan_mesh(site), plan_redis(site), advise(site)
    if options.json:
        print_json(
            {
                "mesh": {"node": mesh.node._asdict(), "join": mesh.join},
                "redis": {
                    "masters": redis.masters,
                    "server": redis.server._asdict(),
                    "node": redis.node._asdict(),
                },
                "choice": advice.choice,
                "reasons": advice.reasons,
            }
        )
    else:
        _show(site, mesh, redis, advice)


def _show(site: Site, mesh: MeshPlan, redis: RedisPlan, advice: Advice) -> None:
    rows = [
        ["mesh", f"each of {site.nodes} nodes", *_cells(mesh.node)],
        ["Redis Cluster", f"each of {2 * redis.masters} servers", *_cells(redis.server)],
        ["", f"each of {site.nodes} nodes", *_cells(redis.node)],
    ]
    print_table(["ENGINE", "WHERE", "MEMORY", "DISK", "NETWORK", "PROCESSOR"], rows)
    print()
    print_pairs(
        [
            ("a new node", f"joins the mesh in {mesh.join:.0f} s"),
            ("choose", _NAMES[advice.choice]),
            *(("because", reason) for reason in advice.reasons),
        ]
    )


def _cells(share: Share) -> list[str]:
    return [
        _bytes(share.memory),
        _bytes(share.disk),
        f"{_bytes(share.network)}/s",
        f"{share.processor:.3f} cores",
    ]


def _bytes(number: float) -> str:
    for unit in _UNITS[:-1]:
        if number < 999.5:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.1f} {_UNITS[-1]}"


COMMANDS = (
    Command(
        "plan",
        "tell what sessions need, on the mesh and on Redis Cluster",
        _declare,
        _run,
        datadir=False,
    ),
)
