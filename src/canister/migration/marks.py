"""How far a move of the sessions is, and the mark of it that both engines keep.

The mark is an entry beside the sessions. In a data directory it replicates like they do, so that a process
without ``migrate_to`` is refused on every node where it would serve what is no longer, or not yet, all.
"""

from enum import IntEnum

import msgspec

from canister import entries
from canister.codec import entry_id
from canister.edits import Moment
from canister.engine import Engine
from canister.errors import MigrationError
from canister.record import Record

_ID = entry_id(["canister.migration"], "mark")


class Step(IntEnum):
    """The steps of a move. Processes of one step get along with those of the next."""

    NONE = 0
    """No move has begun."""
    BEGUN = 1
    """All processes read both, and write where the sessions come from."""
    SWITCHED = 2
    """All processes read both, and write where the sessions go to."""
    COPIED = 3
    """The same; a first copy of everything has been made."""
    FINISHED = 4
    """Everything is where it was to go; nobody needs the other engine any more."""


class Mark(msgspec.Struct, frozen=True):
    """A move as both engines know it; places without user and password."""

    source: str
    target: str
    to_servers: bool
    step: Step


def read_mark(engine: Engine) -> Mark | None:
    """Return an engine's mark, None if it has none."""
    entry = entries.read(engine.store.load(_ID).record, engine.clock.now())
    mark = None if entry is None else msgspec.msgpack.decode(entry.value, type=Mark)
    return None if mark is None or mark.step is Step.NONE else mark


def write_mark(engine: Engine, mark: Mark) -> None:
    """Set an engine's mark, if it is another one."""
    if read_mark(engine) == mark:
        return
    value, policy, most = msgspec.msgpack.encode(mark), engine.policy, engine.config.max_value

    def edit(_: Record | None, moment: Moment) -> Record:
        return entries.put(moment, value, None, policy.grace, most)

    engine.commit([(_ID, edit)])


def check_mark(engine: Engine, *, on_servers: bool) -> None:
    """Refuse to serve one engine alone while its sessions are moving.

    Raises:
        MigrationError: says what to do.
    """
    mark = read_mark(engine)
    if mark is None:
        return
    is_source = mark.to_servers != on_servers
    if is_source and mark.step is Step.FINISHED:
        raise MigrationError(f"the sessions of {mark.source} have moved to {mark.target}; open that")
    if is_source and mark.step >= Step.SWITCHED:
        raise MigrationError(
            f"the sessions of {mark.source} are moving to {mark.target}, and new ones are there only: open "
            "both, with migrate_to=, until `canister migrate` has finished"
        )
    if not is_source and mark.step < Step.FINISHED:
        raise MigrationError(
            f"the sessions of {mark.source} are moving to {mark.target} and not all there yet: open both, "
            "with migrate_to=, until `canister migrate` has finished (if it has, run it on this host)"
        )
