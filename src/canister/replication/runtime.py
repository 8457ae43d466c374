"""What a replica acts through: the only way out of the protocol."""

from collections.abc import Sequence
from typing import Protocol

from canister.replication.healing import HealReport
from canister.replication.link import LinkId
from canister.replication.messages import Message


class Runtime(Protocol):
    """What a replica acts through."""

    def send(self, links: Sequence[LinkId], message: Message) -> None:
        """Queue a message on links; never blocks, drops a link whose queue is full."""
        ...

    def drop(self, link: LinkId, reason: str) -> None:
        """Close a link; `Replica.closed` follows."""
        ...

    def healed(self, report: HealReport) -> None:
        """Tell whoever runs the node what a heal did."""
        ...

    def alarm(self, what: str) -> None:
        """Tell whoever runs the node."""
        ...
