"""Checks of the channels: to the clients, and between the nodes."""

from canister.addresses import is_loopback
from canister.checks.finding import Result
from canister.checks.subject import Subject
from canister.errors import AgentError


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


def keys(subject: Subject) -> Result:
    """The secret keys of all members fit."""
    if subject.config.listen is None:
        return True, "no other nodes"
    canister = subject.settings.canister
    if canister is None:
        return None, "see `canister status` of each node, or name the application"
    try:
        members = canister.members()
    except AgentError as error:
        return None, f"see `canister status` of each node: {error}"
    misfits = [member.address for member in members if member.keys_fit is False]
    if misfits:
        return False, f"not those of {', '.join(misfits)}: give all nodes the same secret_keys"
    others = [member for member in members if member.state not in ("self", "removed")]
    unknown = sum(member.keys_fit is None for member in others)
    if unknown or not others:
        return None, f"see `canister status` later: {unknown} of {len(others)} members have yet to tell"
    return True, f"the keys fit those of {len(others)} other nodes"
