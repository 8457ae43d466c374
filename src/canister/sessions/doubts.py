"""What to say where a node cannot tell what a client's session is, or which one it has."""

from canister.sessions.token import Token


def unknown(token: Token) -> str:
    """Return what to say where a session may exist elsewhere."""
    return (
        f"session {token.handle} may exist on a member of the cluster that cannot be reached; "
        "the client's cookie was left as it is; try again"
    )


def too_late(token: Token) -> str:
    """Return what to say where the client has another cookie by now than the one it shows."""
    return (
        f"the cookie of session {token.handle} was good until less than a minute ago; its client was given "
        "the next one and goes on with that; nothing was written, try again"
    )


def behind(token: Token) -> str:
    """Return what to say where a session may be newer elsewhere."""
    return (
        f"session {token.handle} may be newer on a member of the cluster that cannot be reached than it is "
        "here; the client's cookie was left as it is; try again"
    )
