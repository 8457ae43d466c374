"""Opening a data directory that is there, as the node that it is."""

from argparse import Namespace
from pathlib import Path
from typing import Any

from canister.addresses import without_secrets
from canister.canister import Canister
from canister.errors import StoreError
from canister.opening import is_url
from canister.store.datadir import DataDir


def open_existing(options: Namespace, *, serves: bool = False) -> Canister:
    """Open the data directory of a command, never making one and never as the agent.

    The cluster and the durability are the directory's own. A session that may exist on a member that
    cannot be asked raises `CannotTellError`: it must not look like one that is nowhere. *serves* is for
    what reads or writes sessions: it is refused, or done with both engines, while they move.

    Raises:
        MigrationError: *serves*, and this directory alone does not have all there is.
        StoreError: it is not a data directory, or cannot be used.
    """
    if is_url(options.datadir):
        raise StoreError(
            f"{without_secrets(options.datadir)} is no data directory: this command is for nodes of the mesh"
        )
    files = DataDir(Path(options.datadir))
    if not files.is_there():
        raise StoreError(
            f"{options.datadir} is not a data directory: there is no {files.database.name} in it; name the "
            "one that `canister node` or the application uses"
        )
    settings: dict[str, Any] = {**files.stored_settings(), "when_behind": "refuse"}
    return Canister(options.datadir, agent=False, serves=serves, **settings)
