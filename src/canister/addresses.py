"""What nodes are called: their addresses, and the name of their cluster in certificates."""

import ipaddress
from urllib.parse import quote

from canister.errors import ConfigError

MAX_ADDRESS = 100
"""Characters of a member's address."""


def parse_address(address: str) -> tuple[str, int]:
    """Return the host and port of ``"host:port"`` or ``"[host]:port"``.

    Raises:
        ConfigError: *address* has another form.
    """
    host, colon, port = str(address).rpartition(":")
    if not colon or not host or not port.isdecimal() or len(port) > 5 or not 0 < int(port) < 65536:
        raise ConfigError(f"an address is 'host:port', such as '127.0.0.1:7400', not {address!r}")
    return host.strip("[]"), int(port)


def is_loopback(address: str) -> bool:
    """Tell whether an address stays on this machine."""
    host, _ = parse_address(address)
    ip = parse_ip(host)
    return host == "localhost" if ip is None else ip.is_loopback


def check_dialable(address: str) -> None:
    """Refuse what nobody can call: a wildcard such as ``0.0.0.0:7400``, and what is no host's name.

    Raises:
        ConfigError: says so.
    """
    host, _ = parse_address(address)
    try:
        host.encode("idna")
    except UnicodeError as error:
        raise ConfigError(f"the host in {address!r} is no name that can be looked up: {error}") from error
    if len(address) > MAX_ADDRESS:
        raise ConfigError(f"an address has at most {MAX_ADDRESS} characters, {address!r} has {len(address)}")
    ip = parse_ip(host)
    if ip is not None and ip.is_unspecified:
        raise ConfigError(
            f"{address} is a wildcard, which nobody can call; name the address that the other members are "
            "to dial, for this node itself as advertise='host:port'"
        )


def without_secrets(url: str) -> str:
    """Return a URL without user, password and query, for logs and messages; any other text as it is."""
    scheme, slashes, rest = url.partition("://")
    if not slashes:
        return url
    place, _, query = rest.partition("?")
    if "@" in query and "@" not in place:
        return f"{scheme}://..."  # that '?' may be one of the password's
    return f"{scheme}://{place.rpartition('@')[2]}"


def parse_ip(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return a host that is an IP address as one, None for any other."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def cluster_uri(cluster: str) -> str:
    """Return the URI that the certificates of a cluster's nodes carry."""
    return f"canister:{quote(cluster, safe='')}"
