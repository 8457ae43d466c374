"""Sessions that a peer is asked for because a commit came without the one that created them."""


class Awaited:
    """What is asked for on one link: each session once at a time."""

    def __init__(self) -> None:
        self._by_number: dict[int, bytes] = {}
        self._sessions: set[bytes] = set()

    def __len__(self) -> int:
        return len(self._by_number)

    def __contains__(self, session: bytes) -> bool:
        return session in self._sessions

    def add(self, number: int, session: bytes) -> None:
        """Note that a fetch asks for a session."""
        self._by_number[number] = session
        self._sessions.add(session)

    def pop(self, number: int) -> bytes | None:
        """Return what a fetch has asked for, now that it is answered; None if it was none of these."""
        session = self._by_number.pop(number, None)
        if session is not None:
            self._sessions.discard(session)
        return session
