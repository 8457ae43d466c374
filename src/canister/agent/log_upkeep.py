"""The write-ahead log: what is in it gets to the disk, and into the database."""

import asyncio
import logging
from typing import NoReturn

from canister.agent.helpers import Helpers
from canister.store.sqlite import SqliteStore

logger = logging.getLogger("canister.agent")

_CHECKPOINT_AT, _CHECKPOINT_EVERY = 2000, 0.2
"""Pages in the log from which they are moved into the database, and how often at the most, in seconds."""
_SYNC_AT, _SYNC_EVERY = 256, 1.0
"""Pages from which the log is synced, and how many seconds it is not synced at the most."""
_LOOK, _LOOK_IDLE = 0.04, 0.2
"""Seconds between two looks at the log: while it grows by as much meanwhile, and while it does not."""
_MOST_IN_VAIN = 50
"""Checkpoints that found the database locked, one after the other, about ten seconds of them: a warning."""


async def keep_log_short(store: SqliteStore, helpers: Helpers) -> NoReturn:
    """Sync the log little by little, and move it into the database once it is worth a checkpoint.

    Thousands of pages that are synced at once keep a processor for milliseconds, for which writers wait.

    Raises:
        StoreError: the log cannot be synced or moved: what was acknowledged may never get to the disk.
    """
    loop = asyncio.get_running_loop()
    pending, synced, synced_at, moved_at, in_vain = 0, 0, loop.time(), 0.0, 0
    while True:
        before, pending, now = pending, store.pending_pages(), loop.time()
        if pending >= _CHECKPOINT_AT and now >= moved_at + _CHECKPOINT_EVERY:
            synced, synced_at, moved_at = 0, now, now
            in_vain = 0 if await helpers.run(store.checkpoint) else in_vain + 1
            if in_vain == _MOST_IN_VAIN:
                logger.warning(
                    "%s is kept locked by another program: its write-ahead log grows until that ends",
                    store.files.database,
                )
        elif pending >= synced + _SYNC_AT or (pending != synced and now >= synced_at + _SYNC_EVERY):
            synced, synced_at = pending, now
            await helpers.run(store.sync)
        await asyncio.sleep(_LOOK if pending >= before + _SYNC_AT else _LOOK_IDLE)
