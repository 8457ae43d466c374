"""Counters that add up across a split: every node keeps the sum of its own increments.

A grow-and-shrink counter of one register a node (Shapiro et al., "A comprehensive study of Convergent
and Commutative Replicated Data Types", 2011, section 3.1). A slot names the clear its node knew of, so
that what was counted before a clear never shows again.
"""

from canister.codec import decode_value, encode_value, key_slot
from canister.edits import Moment
from canister.record import COUNTER, NODE_ID_BYTES, VERSION_BYTES, NodeId, Record, Slot, Version, node_of
from canister.sizes import check_value

_NO_CLEAR = bytes(VERSION_BYTES)
_KEY_AT = 1 + NODE_ID_BYTES + VERSION_BYTES


def counter_key(key: object) -> bytes:
    """Return a counter's key, encoded.

    Raises:
        InvalidKeyError: as for any key.
    """
    return key_slot(key)[1:]


def counts_in(record: Record | None) -> dict[bytes, int]:
    """Return the counters of a session, by encoded key."""
    counts: dict[bytes, int] = {}
    if record is None:
        return counts
    clear = record.clear or _NO_CLEAR
    for slot, cell in record.cells.items():
        if slot[0] == COUNTER[0] and cell.value is not None and slot[1 + NODE_ID_BYTES : _KEY_AT] == clear:
            key = slot[_KEY_AT:]
            counts[key] = counts.get(key, 0) + decode_value(cell.value)
    return counts


def increment(
    record: Record, moment: Moment, key: bytes, by: int, most: int | None = None
) -> dict[Slot, bytes | None]:
    """Return what adds *by* to a counter of the stored session.

    Raises:
        TooLargeError: it would have more than *most* bytes.
    """
    slot = _slot(key, node_of(moment.version), record.clear)
    cell = record.cells.get(slot)
    own = decode_value(cell.value) if cell is not None and cell.value is not None else 0
    return {slot: check_value(encode_value(own + by), decode_value(key), most)}


def carry(record: Record, moment: Moment) -> dict[Slot, bytes | None]:
    """Return what gives the counters of one session to another, as increments of this node."""
    node = node_of(moment.version)
    return {_slot(key, node, None): encode_value(count) for key, count in counts_in(record).items()}


def _slot(key: bytes, node: NodeId, clear: Version | None) -> Slot:
    return Slot(COUNTER + node + (clear or _NO_CLEAR) + key)
