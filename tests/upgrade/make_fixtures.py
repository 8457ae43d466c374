"""Writes the fixtures of database format 4 and protocol 1. Run once, by the release that defined them:

    python -m tests.upgrade.make_fixtures

A later format or protocol gets fixtures of its own beside these; these are never written again.
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import apsw
import msgspec
from tests.upgrade.contents import (
    BEGIN,
    END,
    HEARD,
    MEMBERS,
    MESSAGES,
    META_SLOT,
    MINUTE,
    PEER,
    SLOT,
    VALUES,
    made_by_peer,
)

from canister import Canister, edits
from canister.clock import DAY, to_datetime
from canister.codec import encode_id
from canister.config import Policy
from canister.record import IDENTITY, Destroy, Record, Slot, make_version
from canister.replication.digests import DigestTree
from canister.replication.messages import encode_message
from canister.store.sqlite import SqliteStore
from canister.testing.clock import ManualClock

HERE = Path(__file__).parent


def fill(canister: Canister, clock: ManualClock) -> None:
    """Write sessions of every kind."""
    store = canister.node.store
    policy = Policy.of(canister.config)
    canister.put("expired", "k", "over")
    canister.put("purgeable", "k", "gone")
    canister.set_expiry("purgeable", idle="1m")
    clock.advance(45 * MINUTE)
    canister.update("values", VALUES)
    canister.put(b"\x00bytes id\xff", "k", "bytes")
    canister.put("0123456789abcdef" * 2, "k", "hex digits")
    canister.put("changed", "k", 1)
    canister.put("changed", "k", 2)
    canister.put("changed", "removed", "x")
    canister.put("changed", "l", [1])
    canister.remove("changed", "removed")
    canister.put("cleared", "k", 1)
    canister.clear("cleared")
    canister.put("refilled", "old", 1)
    canister.clear("refilled")
    canister.put("refilled", "new", 2)
    canister.put("destroyed", "k", 1)
    canister.destroy("destroyed")
    canister.destroy("never here")
    canister.put("expiry", "k", 1)
    canister.set_expiry("expiry", idle="2h", until=to_datetime(END + DAY))
    writes = {META_SLOT: b"\x01", Slot(IDENTITY + b"user"): b"\xa3eva", SLOT: b"\x05"}
    store.commit([(encode_id("metadata"), lambda r, at: edits.write(r, at, policy, writes))])
    clock.advance(5 * MINUTE)
    canister.put("touched", "k", 1)
    clock.set(END - 5 * MINUTE)
    canister.touch("touched")
    now = clock.now()
    tombstone = Record(destroy=Destroy(make_version(now, PEER), END + 30 * DAY))
    store.merge(
        [
            (encode_id("from peer"), made_by_peer(now, b"\xa4peer")),
            (encode_id("destroyed by peer"), tombstone),
            (encode_id("held"), made_by_peer(END + 10 * MINUTE, b"\xa5later")),
        ],
        HEARD,
    )
    canister.put("partly held", "k", "now")
    late = made_by_peer(END + 10 * MINUTE, b"\xa5later")
    store.merge([(encode_id("partly held"), Record(touch=late.touch, cells=late.cells))], {})
    store.save_members(MEMBERS)
    clock.set(END)


def digest(store: SqliteStore, at: int) -> bytes:
    """Return the digest of all that a store holds as of *at*."""
    tree = DigestTree()
    with store.snapshot() as snapshot:
        tree.build(snapshot, at)
    return tree.root()


def main() -> None:
    target = HERE / "format-4"
    if target.exists() and "--again" not in sys.argv:
        sys.exit("the fixtures are there; they stay as they are (--again while their format is unreleased)")
    target.mkdir(exist_ok=True)
    clock = ManualClock(BEGIN)
    with TemporaryDirectory() as directory:
        with Canister(Path(directory) / "node", agent=False, clock=clock) as canister:
            fill(canister, clock)
            (target / "digest.txt").write_text(digest(canister.node.store, END).hex() + "\n")
            database = canister.node.store.files.database
        connection = apsw.Connection(str(database))
        connection.pragma("wal_checkpoint", "TRUNCATE")
        connection.execute("UPDATE meta SET value = 'elsewhere' WHERE key IN ('boot', 'file')")
        connection.execute("VACUUM")
        connection.pragma("wal_checkpoint", "TRUNCATE")
        connection.close()
        (target / "canister.db").write_bytes(database.read_bytes())
    frames = [(type(message).__name__, encode_message(message)) for message in MESSAGES]
    (HERE / "protocol-1.msgpack").write_bytes(msgspec.msgpack.encode(frames))


if __name__ == "__main__":
    main()
