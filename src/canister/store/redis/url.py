"""The URLs of Redis: where the servers are, and what it takes to be let in."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from canister.errors import ConfigError

_PORT = 6379
_SENTINEL_PORT = 26379
_FILES = ("ca", "cert", "key")
_OPTIONS = (*_FILES, "allow_eviction", "sentinel_username", "sentinel_password")
_FORMS = (
    "redis://[user:password@]host[:port][/db], redis+sentinel://host[:port],.../service[/db] or "
    "redis+cluster://host[:port],...; rediss for TLS"
)

Address = tuple[str, int]
"""Host and port of a server."""


class Login(NamedTuple):
    """Who asks to be let in; empty where nobody has to."""

    username: str = ""
    password: str = ""


class Topology(StrEnum):
    """How the servers belong together."""

    SINGLE = "single"
    SENTINEL = "sentinel"
    CLUSTER = "cluster"


_TOPOLOGIES = {"": Topology.SINGLE, "sentinel": Topology.SENTINEL, "cluster": Topology.CLUSTER}


@dataclass(frozen=True, slots=True)
class RedisUrl:
    """What a URL says.

    Attributes:
        topology: how the servers belong together.
        addresses: the server, the sentinels, or some nodes of the cluster.
        service: the name by which the sentinels know the server.
        tls: whether connections are TLS.
        files: the files for TLS, by the names of the options.
        login: what the servers ask for.
        database: the number of the database.
        sentinel_login: what the sentinels ask for.
        allow_eviction: whether the servers may drop sessions when their memory is full.
    """

    topology: Topology
    addresses: tuple[Address, ...]
    service: str
    tls: bool
    files: Mapping[str, str]
    login: Login = field(repr=False)
    database: int
    sentinel_login: Login = field(repr=False)
    allow_eviction: bool

    def __str__(self) -> str:
        """Return where it points to, without user and password."""
        places = ",".join(show(address) for address in self.addresses)
        return f"{self.service} at {places}" if self.service else places


def is_redis_url(text: str) -> bool:
    """Tell whether a text is a URL of this module's."""
    scheme, colon, _ = text.partition("://")
    server, _, topology = scheme.partition("+")
    return bool(colon) and server in ("redis", "rediss") and topology in _TOPOLOGIES


def parse_url(text: str) -> RedisUrl:
    """Return what a URL says.

    Raises:
        ConfigError: it is not of a form that is known; the message shows no password.
    """
    if not is_redis_url(text):
        raise ConfigError(f"the forms of a URL of Redis are: {_FORMS}")
    try:
        parts = urlsplit(text)
        query = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
    except ValueError:  # its text may hold the password, as may any part of a URL that is written wrongly
        raise ConfigError(f"the URL of Redis cannot be read; its forms are: {_FORMS}") from None
    server, _, kind = parts.scheme.partition("+")
    topology, tls = _TOPOLOGIES[kind], server == "rediss"
    _check_options(query, topology, tls=tls)
    user, _, places = parts.netloc.rpartition("@")
    if topology is Topology.SINGLE and "," in places:
        raise ConfigError(
            "redis:// names one server; for several it is redis+sentinel:// or redis+cluster://"
        )
    port = _SENTINEL_PORT if topology is Topology.SENTINEL else _PORT
    service, database = _path(parts, topology)
    return RedisUrl(
        topology,
        tuple(_address(place, port) for place in places.split(",")),
        service,
        tls,
        {option: query[option] for option in _FILES if option in query},
        Login(*map(unquote, user.partition(":")[::2])),
        database,
        Login(query.get("sentinel_username", ""), query.get("sentinel_password", "")),
        query.get("allow_eviction") == "yes",
    )


def show(address: Address) -> str:
    """Return an address as text."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _address(place: str, port: int) -> Address:
    host, given = place, ""
    if not place.endswith("]"):
        host, _, given = place.rpartition(":") if ":" in place else (place, "", "")
    host = host.strip("[]")
    if not host or not (given or str(port)).isdecimal() or not 0 < int(given or port) < 65536:
        raise ConfigError(
            f"a server in the URL of Redis is not 'host' or 'host:port'; its forms are: {_FORMS}"
        )
    return host, int(given or port)


def _path(parts: SplitResult, topology: Topology) -> tuple[str, int]:
    """Return the service and the number of the database."""
    steps = [unquote(step) for step in parts.path.split("/")[1:]]
    service = steps.pop(0) if topology is Topology.SENTINEL and steps else ""
    number = steps.pop(0) if steps else ""
    if steps or not (number or "0").isdecimal() or (topology is Topology.SENTINEL and not service):
        raise ConfigError(f"the path of the URL of Redis is wrong; its forms are: {_FORMS}")
    if topology is Topology.CLUSTER and number not in ("", "0"):
        raise ConfigError(f"a cluster has one database, 0; /{number} cannot be used")
    return service, int(number or 0)


def _check_options(query: Mapping[str, str], topology: Topology, *, tls: bool) -> None:
    if query.keys() - set(_OPTIONS):
        raise ConfigError(f"the options in a URL of Redis are {', '.join(_OPTIONS)}")
    if query.get("allow_eviction", "no") not in ("yes", "no"):
        raise ConfigError("allow_eviction in the URL of Redis is 'yes' or 'no'")
    if topology is not Topology.SENTINEL and any(name.startswith("sentinel_") for name in query):
        raise ConfigError("sentinel_username and sentinel_password are for redis+sentinel:// only")
    for option in (option for option in _FILES if option in query):
        if not tls:
            raise ConfigError(f"{option} in the URL of Redis is for TLS; the scheme is then rediss://")
        if not Path(query[option]).is_file():
            raise ConfigError(f"{option} in the URL of Redis: there is no file {query[option]}")
