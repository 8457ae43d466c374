"""Texts that others wrote, as logs and terminals may hold them."""


def shown(text: str) -> str:
    """Return a text on one line: what names a request or a session can hold line ends and terminal codes."""
    return text if text.isprintable() else text.encode("unicode_escape").decode("ascii")
