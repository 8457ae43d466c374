"""Checks of the channels: to the clients, and between the nodes."""

from canister.addresses import is_loopback
from canister.checks.finding import Result
from canister.checks.subject import Subject


def plain_http(subject: Subject) -> Result:
    """The cookie is never sent over http."""
    if subject.cookie.plain_http:
        return False, "plain_http is set: tokens travel in the clear"
    return True, "Secure is set; send Strict-Transport-Security as well"


def links(subject: Subject) -> Result:
    """Tokens and data are encrypted to the client and between the nodes."""
    holds, evidence = plain_http(subject)
    config = subject.config
    if config.listen is None:
        return holds, f"{evidence}; no links to other nodes"
    if config.uses_tls:
        return holds, f"{evidence}; links are mutual TLS"
    if is_loopback(config.listen):
        return holds, f"{evidence}; links stay on this machine"
    return False, f"{evidence}; links are plain TCP (plain_tcp)"
