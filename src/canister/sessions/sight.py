"""What a client has seen of its session: what its seen cookie says, and what the next one is to say."""

from canister.freshness import Seen, as_seen, covers
from canister.record import Version


class Sight:
    """What one client has seen, from the load of its session to what it is answered.

    Attributes:
        carried: whether the client carries a seen cookie, good or not.
        shown: what it has seen, by that cookie.
        lacking: the part of that which may be missing here.
        behind: whether it has seen newer state than what is here.
        renews: whether the cookie is to be replaced even if it covers what was served.
        served: what it has seen after this request; None until something was written.
    """

    carried: bool = False
    shown: Seen = ()
    lacking: Seen = ()
    behind: bool = False
    renews: bool = False
    served: Seen | None = None

    def begin_anew(self, issued: Version) -> None:
        """Note that the client goes on with a new session, of which it has seen the creation."""
        self.shown, self.lacking, self.behind, self.served = (), (), False, (issued,)

    def next(self, served: Seen, written: Version | None) -> Seen | None:
        """Return what the seen cookie is to say from now on; None where the client's says enough.

        Args:
            served: what it has seen of what is here.
            written: the version of what it has written.
        """
        own: tuple[Version, ...] = () if written is None else (written,)
        # What it lacks stays in the cookie, or the next answer could be older and nobody would know.
        self.served = as_seen((*served, *own), first=self.lacking)
        if self.served == self.shown or (covers(self.shown, self.served) and not self.renews):
            return None
        self.shown, self.renews = self.served, False
        return self.served
