"""Nodes that share the test's process, each with its agent in a thread."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.integration.cluster import eventually, free_port

from canister import Canister, StoreUnavailableError


def address() -> str:
    """Return an address that nobody listens on."""
    return f"127.0.0.1:{free_port()}"


def last_write(node: Canister) -> int:
    """Return the stamp of a node's last commit, 0 before the first. The log itself is trimmed meanwhile."""
    with node.node.store.snapshot() as snapshot:
        return snapshot.last_stamp()


@contextmanager
def store_away(canister: Canister) -> Iterator[None]:
    """Let the store raise what that of a server raises which is away."""

    def raising(*_: object) -> Any:
        raise StoreUnavailableError("the server is away")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(canister.engine.store, "load", raising)
        patch.setattr(canister.engine.store, "commit", raising)
        yield


@contextmanager
def open_pair(directory: Path, **settings: Any) -> Iterator[tuple[Canister, Canister]]:
    """Open two nodes and link them. Without settings for it they are compared at link-up only."""
    first, second = address(), address()
    settings = {"digest_interval": "1h", **settings}
    with (
        Canister(directory / "one", listen=first, seeds=[second], **settings) as one,
        Canister(directory / "two", listen=second, seeds=[first], **settings) as two,
    ):
        linked((one, two))
        yield one, two


def states(node: Canister) -> list[str]:
    """Return the states of a node's members, its own first."""
    return [member.state for member in node.members()]


def linked(nodes: Sequence[Canister]) -> None:
    """Wait until every node has compared itself with every other one."""
    wanted = ["self"] + ["up"] * (len(nodes) - 1)
    for node in nodes:
        eventually(lambda node=node: states(node) == wanted, message=f"{states(node)} becomes {wanted}")


def agree(nodes: Sequence[Canister]) -> None:
    """Wait until all nodes print the same digest as of the same instant."""

    def same() -> bool:
        at = nodes[0].node.clock.now()
        return len({node.node.status(at).digest for node in nodes}) == 1

    eventually(same, message="digests are equal")


def is_split(node: Canister) -> bool:
    """Tell whether a node sees nobody else."""
    return "up" not in states(node) and "comparing" not in states(node)


def split(nodes: Sequence[Canister]) -> None:
    """Cut every node off from all others."""
    for node in nodes:
        node.node.isolate(on=True)
    for node in nodes:
        eventually(lambda node=node: is_split(node), message="the split")


def heal(nodes: Sequence[Canister]) -> None:
    """Let the nodes back, and wait until they are linked and agree."""
    for node in nodes:
        node.node.isolate(on=False)
    linked(nodes)
    agree(nodes)
