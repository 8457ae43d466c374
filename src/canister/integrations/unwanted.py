"""``session.modified = False``, as Flask and Django have it: what was changed so far is not to be saved."""

from canister.sessions import Session


class Unwanted:
    """What a session's changes were when the application said that it was not modified.

    Args:
        session: the session.

    Raises:
        InputError: a key or a value cannot be stored.
    """

    def __init__(self, session: Session) -> None:
        self._wishes = _wishes(session)

    def is_all(self, session: Session) -> bool:
        """Tell whether that is all there is; a log-in, a log-out and a new id stand, with all else.

        Raises:
            InputError: a key or a value cannot be stored.
        """
        return not _stands(session) and _wishes(session) == self._wishes


def is_changed(session: Session) -> bool:
    """Tell whether there is anything to save.

    Raises:
        InputError: a key or a value cannot be stored.
    """
    return _stands(session) or session.changes().any


def _stands(session: Session) -> bool:
    return session.state.pending.retired is not None or session.state.pending.logging_in


def _wishes(session: Session) -> tuple[object, ...]:
    """Return what tells changes from others; the functions in them are made anew each time."""
    changes, pending = session.changes(), session.state.pending
    asked = dict(pending.increments), pending.wanted, pending.renew, pending.resend
    return changes.writes, changes.updates, changes.clear, changes.times, asked
