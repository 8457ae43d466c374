"""What a node notes outside its database: in the file of the write lock, as memory of all its processes.

Only the writer whose turn it is changes a note. Each of them is whole after a kill at any moment: the
stamp that was committed is noted after its commit and may lag behind, the stamp that was drawn before
it and may run ahead.
"""

from mmap import mmap
from pathlib import Path

from canister.record import NODE_ID_BYTES
from canister.store.shared import make_room, shared_memory

_STAMP_BYTES = 8
_COMMITTED = slice(0, _STAMP_BYTES)
_NODE = slice(_COMMITTED.stop, _COMMITTED.stop + NODE_ID_BYTES)
_DRAWN = slice(_NODE.stop, _NODE.stop + _STAMP_BYTES)
_BUSY = slice(_DRAWN.stop, _DRAWN.stop + 2)
_NO_NODE = bytes(NODE_ID_BYTES)


class Notes:
    """The notes of a node.

    Args:
        path: the file of the write lock.

    Raises:
        StoreError: the file cannot be used.
    """

    def __init__(self, path: Path) -> None:
        make_room(path, _BUSY.stop)
        self._memory: mmap | bytearray = shared_memory(path, _BUSY.stop)
        self.busy = memoryview(self._memory)[_BUSY]
        """For `canister.store.turn`."""

    def close(self) -> None:
        """Release the file, with the last one who looks at a note just now."""
        self.busy.release()
        self._memory = bytearray(_BUSY.stop)

    def committed(self) -> int:
        """Return a stamp that the last commit has reached; 0 before the first."""
        return int.from_bytes(self._memory[_COMMITTED], "big")

    def note_committed(self, stamp: int) -> None:
        """Note the stamp of what is committed."""
        self._memory[_COMMITTED] = stamp.to_bytes(_STAMP_BYTES, "big")

    def drawn(self) -> int:
        """Return a stamp that no commit has passed."""
        return int.from_bytes(self._memory[_DRAWN], "big")

    def note_drawn(self, stamp: int) -> None:
        """Note the stamp of what is about to be committed."""
        self._memory[_DRAWN] = stamp.to_bytes(_STAMP_BYTES, "big")

    def node(self) -> bytes:
        """Return the node id; empty if none is noted."""
        node = bytes(self._memory[_NODE])
        return b"" if node == _NO_NODE else node

    def note_node(self, node: bytes) -> None:
        """Note the node id."""
        self._memory[_NODE] = node
