"""The steps of a move, as the command takes them: each refused out of order, each safe to take again."""

import time
from collections.abc import Callable, Iterator

from canister.clock import to_datetime
from canister.codec import decode_id
from canister.errors import AcknowledgementError, MigrationError
from canister.migration import leases
from canister.migration.board import Board, State
from canister.migration.copying import Progress, Verified, copy, verify
from canister.migration.engine import Side
from canister.migration.marks import Mark, Step, write_mark
from canister.node import Node
from canister.record import SERVERS, make_version
from canister.store.base import Member

_POLL = 0.1
_PATIENCE = 30.0
"""Seconds for which the other members of the mesh are waited for."""
_NAMED = 5
_STUCK = "some processes do not take the step; take it again"
_MEMBERS = "see `canister members`, bring back or remove those that are down, and take the step again"

_NEXT = {
    Step.NONE: "begin",
    Step.BEGUN: "switch",
    Step.SWITCHED: "copy",
    Step.COPIED: "finish",
    Step.FINISHED: None,
}


class Move:
    """One move of all sessions.

    Args:
        mesh: the data directory.
        servers: the servers.
        board: what the processes are told by.
        places: what the source and the target are called.
        to_servers: which way the sessions go.
    """

    def __init__(
        self, mesh: Node, servers: Side, board: Board, places: tuple[str, str], *, to_servers: bool
    ) -> None:
        self._mesh = mesh
        self._old: Side = mesh if to_servers else servers
        self._new: Side = servers if to_servers else mesh
        self._board = board
        self._source, self._target = places
        self._to_servers = to_servers

    def state(self) -> State:
        """Return where the move is; nothing is on the board of one that has not begun.

        Raises:
            MigrationError: the sessions are moving the other way.
        """
        state = self._board.read()
        if state.mark is None or state.mark.to_servers == self._to_servers:
            return state
        if state.step is Step.FINISHED:
            return State(None, state.now, 0, b"", 0, [])
        raise MigrationError(
            f"the sessions are moving from {state.mark.source} to {state.mark.target}; finish that first"
        )

    def next_step(self) -> str | None:
        """Return the word of the step to take next, None if nothing is left to do."""
        return _NEXT[self.state().step]

    def begin(self) -> None:
        """Let processes open both engines; they go on writing to the old one."""
        state = self._at(Step.NONE, Step.BEGUN)
        if state.step is Step.NONE:
            self._board.wipe()
        self._enter(Step.BEGUN)

    def switch(self) -> None:
        """Have all processes write to the new engine; return once they do."""
        state = self._at(Step.BEGUN, Step.SWITCHED)
        self._check_everywhere(state)
        self._enter(Step.SWITCHED)
        if not state.settled:
            self._board.write({"settled": self.state().now})

    def copy(self) -> Iterator[Progress]:
        """Carry over everything, going on where a copy that was broken off had come to."""
        state = self._at(Step.SWITCHED, Step.COPIED)
        if not state.settled:
            raise MigrationError("the step `switch` was broken off; take it again")
        position = b"" if state.step is Step.COPIED else state.position
        before = 0 if state.step is Step.COPIED else state.copied
        for progress in copy(self._old, self._new, position):
            progress = progress._replace(carried=before + progress.carried)
            self._board.write({"position": progress.position, "copied": progress.carried})
            yield progress
        self._put_up(Step.COPIED)

    def finish(self) -> Iterator[float | Verified]:
        """Show that the new engine has everything, then have all processes use it alone."""
        state = self._at(Step.COPIED, Step.FINISHED)
        if state.step is not Step.FINISHED:
            yield from self._verify(state)
        self._enter(Step.FINISHED)

    def cancel(self) -> None:
        """Undo `begin`; nothing but tombstones has been written to the new engine."""
        state = self._at(Step.NONE, Step.BEGUN)
        if any(holder.until > state.now for holder in state.holders):
            raise MigrationError("processes still run with migrate_to; deploy without it, then cancel")
        self._put_up(Step.NONE)
        self._board.wipe()

    def _at(self, *allowed: Step) -> State:
        """Return where the move is, which has to be one of *allowed*."""
        state = self.state()
        if state.step not in allowed:
            at = "no move has begun" if state.step is Step.NONE else f"the move is {state.step.name.lower()}"
            after = _NEXT[state.step]
            way = "nothing is left to do" if after is None else f"the next step is `{after}`"
            raise MigrationError(f"{at}; {way}")
        return state

    def _enter(self, step: Step) -> None:
        """Put up a step, and wait until nobody goes by an earlier one any more."""
        self._put_up(step)
        _wait(
            lambda: self.state().behind(step) == 0,
            2 * leases.LEASE,
            _STUCK,
        )

    def _put_up(self, step: Step) -> None:
        mark = Mark(self._source, self._target, self._to_servers, step)
        # First the marks: when processes take the step, none may come any more that opens the wrong engine.
        for engine in (self._old, self._new):
            write_mark(engine, mark)
        self._board.put_up(mark)

    def _check_everywhere(self, state: State) -> None:
        """Refuse to go on before every member of the mesh has been seen to take part."""
        seen = {holder.node for holder in state.holders}
        places = {self._mesh.store.node.hex(): str(self._mesh.store.files.path)}
        places |= {member.node.hex(): member.address for member in self._peers()}
        lacking = sorted(place for node, place in places.items() if node not in seen)
        if lacking:
            raise MigrationError(
                f"no process with migrate_to has been seen on {', '.join(lacking)}; deploy it to "
                "all, and end all that run without it, then switch"
            )

    def _verify(self, state: State) -> Iterator[float | Verified]:
        limit = state.settled * 1000 + self._mesh.policy.drift
        if self._to_servers:
            self._await_peers()
        for step in verify(self._old, self._new, limit):
            yield step
            if isinstance(step, Verified):
                self._judge(step, state)
        if not self._to_servers:
            self._hand_over()

    def _judge(self, found: Verified, state: State) -> None:
        held = self._mesh.store.held()
        if held:
            raise MigrationError(
                f"{_named(held)} hold writes dated further ahead than max_clock_drift; wait until their time "
                "has come, or destroy them, and take the step again"
            )
        if found.differing:
            raise MigrationError(f"{_named(found.differing)} differ; take the step again")
        if found.written_late:
            self._board.write({"settled": state.now})
            since = to_datetime(state.settled * 1000).isoformat(timespec="seconds")
            raise MigrationError(
                f"{_named(found.written_late)} were written to {self._source} alone since {since}: a process "
                "without migrate_to still runs; nothing is lost; end it and take the step again"
            )

    def _await_peers(self) -> None:
        """Wait until what other members wrote before is here."""
        if not self._peers():
            return
        now = self._mesh.clock.now()
        self._mesh.resync(None)
        _wait(
            lambda: self._mesh.status(now).compared >= now,
            _PATIENCE,
            f"this node has not been compared with all members; {_MEMBERS}",
        )

    def _hand_over(self) -> None:
        """Wait until all members hold what came from the servers, and let them know that it is all."""
        version = make_version(self._mesh.last_stamp(), self._mesh.store.node)

        def is_held() -> bool:
            try:
                self._mesh.await_acks(version, "all")
            except AcknowledgementError:
                return False
            return True

        if self._peers():
            _wait(is_held, _PATIENCE, f"not all members hold what has come; {_MEMBERS}")
        # Nobody writes there any more. Their clock may be ahead; what is too far ahead no peer believes.
        self._mesh.store.merge([], {SERVERS: self._mesh.clock.now() + self._mesh.policy.drift // 2})

    def _peers(self) -> list[Member]:
        mesh = self._mesh.store
        return [member for member in mesh.members() if not member.removed and member.node != mesh.node]


def _named(sessions: list[bytes]) -> str:
    shown = ", ".join(str(decode_id(session)) for session in sessions[:_NAMED])
    more = f" and {len(sessions) - _NAMED} more" if len(sessions) > _NAMED else ""
    return f"the sessions {shown}{more}"


def _wait(condition: Callable[[], bool], patience: float, failure: str) -> None:
    end = time.monotonic() + patience
    while not condition():
        if time.monotonic() > end:
            raise MigrationError(failure)
        time.sleep(_POLL)
