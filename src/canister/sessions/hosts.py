"""Which hosts may be served over plain http: those that only a private network can reach."""

import ipaddress

_PRIVATE_SUFFIXES = (".localhost", ".local", ".internal", ".test", ".home.arpa")


def is_private_host(host: str) -> bool:
    """Tell whether a Host header names this machine or one of a private network.

    That is an address of a private range, a name without a dot, or one under a suffix that is reserved
    for such networks (RFC 6761, RFC 6762, RFC 8375).
    """
    name = host.strip().lower()
    name = name[1:].partition("]")[0] if name.startswith("[") else name.partition(":")[0]
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return "." not in name or name.endswith(_PRIVATE_SUFFIXES)
    return address.is_private or address.is_loopback or address.is_link_local
