"""What nodes are called: their addresses, and the name of their cluster in certificates."""

import ipaddress
from urllib.parse import quote

from canister.errors import ConfigError


def parse_address(address: str) -> tuple[str, int]:
    """Return the host and port of ``"host:port"`` or ``"[host]:port"``.

    Raises:
        ConfigError: *address* has another form.
    """
    host, colon, port = str(address).rpartition(":")
    if not colon or not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ConfigError(f"an address is 'host:port', such as '127.0.0.1:7400', not {address!r}")
    return host.strip("[]"), int(port)


def is_loopback(address: str) -> bool:
    """Tell whether an address stays on this machine."""
    host, _ = parse_address(address)
    ip = parse_ip(host)
    return host == "localhost" if ip is None else ip.is_loopback


def check_dialable(address: str) -> None:
    """Refuse a wildcard such as ``0.0.0.0:7400``, which nobody can call.

    Raises:
        ConfigError: says so.
    """
    ip = parse_ip(parse_address(address)[0])
    if ip is not None and ip.is_unspecified:
        raise ConfigError(
            f"{address} is a wildcard, which nobody can call; name the address that the other members are "
            "to dial, for this node itself as advertise='host:port'"
        )


def parse_ip(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return a host that is an IP address as one, None for any other."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def cluster_uri(cluster: str) -> str:
    """Return the URI that the certificates of a cluster's nodes carry."""
    return f"canister:{quote(cluster, safe='')}"
