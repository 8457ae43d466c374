"""Builders of records for tests. Instants are small numbers here: nothing reads a clock."""

from canister.config import Policy
from canister.record import KEY, Birth, Cell, NodeId, Slot, Touch, Version, make_version

A, B, C = NodeId(b"node-A.."), NodeId(b"node-B.."), NodeId(b"node-C..")

POLICY = Policy(idle=200, interval=10, absolute=10_000, grace=600, drift=60, fixed_interval=False)


def at(stamp: int, node: NodeId = A) -> Version:
    return make_version(stamp, node)


def slot(name: str, space: bytes = KEY) -> Slot:
    return Slot(space + name.encode())


def birth(born: int = 1000, node: NodeId = A) -> Birth:
    """Return the birth of a session that lives by `POLICY`."""
    policy = POLICY
    times = (policy.absolute, policy.idle, policy.interval, policy.grace)
    return Birth(at(born, node), born, *times)


def touch(access: int, node: NodeId = A) -> Touch:
    return Touch(at(access, node), access)


def cells(stamp: int, node: NodeId = A, /, **values: bytes | None) -> dict[Slot, Cell]:
    return {slot(name): Cell(at(stamp, node), value) for name, value in sorted(values.items())}
