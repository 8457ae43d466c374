"""Read your writes: what a reader has seen of a session, and whether this node may serve that reader.

What was seen is told by the newest versions of the session's rows, at most one for each node that wrote and
three in all. A node may serve the reader if, for each version, it has heard all commits of that node up to
there. Holding *a* row with such a version proves nothing: an earlier commit may still be missing.
"""

import base64
import binascii
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from canister.errors import InputError
from canister.record import VERSION_BYTES, NodeId, Record, Version, node_of, origin_of, stamp_of, versions

MOST_ENTRIES = 3

Seen = tuple[Version, ...]
"""What a reader has seen of a session."""


class Fetched(NamedTuple):
    """The outcome of asking all linked peers about a session.

    Attributes:
        answers: what each peer that answered had heard, by node; of itself too, unless it has forgotten some.
        everyone: whether all members have answered.
    """

    answers: list[dict[NodeId, int]]
    everyone: bool

    def covers(self, missing: Iterable[Version]) -> bool:
        """Tell whether the answers hold all that *missing* names."""
        return self.everyone or all(self._covers(version) for version in missing)

    def _covers(self, version: Version) -> bool:
        node, stamp = origin_of(version), stamp_of(version)
        return any(heard.get(node, 0) >= stamp for heard in self.answers)


def seen_in(record: Record) -> Seen:
    """Return what a reader has seen who was served a record."""
    return as_seen(versions(record))


def as_seen(versions: Iterable[Version], *, first: Sequence[Version] = ()) -> Seen:
    """Return the newest version of each node; where there is no room for all nodes, *first* comes first."""
    latest: dict[NodeId, Version] = {}
    for version in (*first, *versions):
        node = node_of(version)
        if version > latest.get(node, b""):
            latest[node] = version
    if len(latest) <= MOST_ENTRIES:
        return tuple(sorted(latest.values(), reverse=True))
    before = {node_of(version) for version in first}
    kept = sorted(latest.values(), key=lambda v: (node_of(v) in before, v), reverse=True)
    return tuple(sorted(kept[:MOST_ENTRIES], reverse=True))


def covers(seen: Seen, versions: Iterable[Version]) -> bool:
    """Tell whether who has seen *seen* has seen all of *versions*."""
    return all(any(node_of(have) == node_of(v) and have >= v for have in seen) for v in versions)


def missing(seen: Seen, heard_of: Callable[[NodeId], int]) -> list[Version]:
    """Return the versions in *seen* that this node cannot vouch for."""
    return [version for version in seen if heard_of(origin_of(version)) < stamp_of(version)]


def encode_seen(seen: Seen) -> str:
    """Return what was seen as text for a client to carry."""
    return base64.urlsafe_b64encode(b"".join(seen)).decode().rstrip("=")


def decode_seen(text: str) -> Seen:
    """Return what `encode_seen` wrote.

    Raises:
        InputError: *text* is nothing of the kind.
    """
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError, TypeError) as error:
        raise InputError(f"{text!r} is not a version; pass what version(id) returned") from error
    if len(data) % VERSION_BYTES or len(data) > MOST_ENTRIES * VERSION_BYTES:
        raise InputError(f"{text!r} is not a version; pass what version(id) returned")
    return tuple(Version(data[i : i + VERSION_BYTES]) for i in range(0, len(data), VERSION_BYTES))
