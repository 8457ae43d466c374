"""Opening a data directory that is there, as the node that it is."""

from argparse import Namespace
from pathlib import Path
from typing import Any

import apsw

from canister.addresses import without_secrets
from canister.canister import Canister
from canister.errors import StoreError
from canister.store.connections import explain
from canister.store.datadir import DataDir

_STORED = "SELECT key, value FROM meta WHERE key IN ('cluster', 'durability')"


def open_existing(options: Namespace, *, serves: bool = False) -> Canister:
    """Open the data directory of a command, never making one and never as the agent.

    The cluster and the durability are the directory's own. A session that may exist on a member that
    cannot be asked raises `CannotTellError`: it must not look like one that is nowhere. *serves* is for
    what reads or writes sessions: it is refused, or done with both engines, while they move.

    Raises:
        MigrationError: *serves*, and this directory alone does not have all there is.
        StoreError: it is not a data directory, or cannot be used.
    """
    if "://" in options.datadir:
        raise StoreError(
            f"{without_secrets(options.datadir)} is no data directory: this command is for nodes of the mesh"
        )
    path = Path(options.datadir)
    database = DataDir(path).database
    if not _is_there(database):
        raise StoreError(
            f"{path} is not a data directory: there is no {database.name} in it; name the one that "
            "`canister node` or the application uses"
        )
    settings: dict[str, Any] = {**_stored_settings(database), "when_behind": "refuse"}
    return Canister(path, agent=False, serves=serves, **settings)


def _is_there(database: Path) -> bool:
    try:
        database.stat()
    except PermissionError as error:
        raise StoreError(
            f"the data directory {database.parent} may not be entered; check its owner and permissions"
        ) from error
    except OSError:
        return False
    return True


def _stored_settings(database: Path) -> dict[str, Any]:
    """Return the settings that a directory keeps; none if it is not ours, which opening it will tell."""
    try:
        connection = apsw.Connection(str(database), flags=apsw.SQLITE_OPEN_READONLY)
        try:
            connection.set_busy_timeout(5000)
            rows: Any = connection.execute(_STORED)
            return dict(rows)
        finally:
            connection.close()
    except (apsw.SQLError, apsw.NotADBError, apsw.CorruptError):
        return {}
    except apsw.Error as error:
        raise explain(error, database) from error
