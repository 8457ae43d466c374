"""A move of sessions between a data directory and Redis, one way or the other, for the tests of its rules."""

import os
import secrets
from pathlib import Path
from typing import Any

from tests.integration.test_cli_kit import run

from canister import Canister, Status
from canister.codec import encode_id
from canister.config import Config
from canister.edits import destroy
from canister.engine import Engine
from canister.life import status
from canister.migration.board import Board
from canister.migration.engine import Side
from canister.opening import open_side
from canister.record import Record
from canister.testing.clock import ManualClock

KEY = "key-0123456789-abcdefghijklmnopqrs"


class Move:
    """A move, one way or the other; *settings* are those of all that is opened."""

    def __init__(self, directory: Path, url: str, *, to_servers: bool) -> None:
        self.settings: dict[str, Any] = {"cluster": secrets.token_hex(8)}
        self.directory, self.url, self.to_servers = str(directory), url, to_servers
        places = (self.directory, url)
        self.source, self.target = places if to_servers else places[::-1]
        os.environ["CANISTER_CLUSTER"] = self.settings["cluster"]
        with Canister(self.directory, agent=False):
            pass

    def plain(self, place: str, **settings: Any) -> Canister:
        """Open one engine alone, as an application does."""
        return Canister(place, agent=False, **self.settings, **settings)

    def both(self, **settings: Any) -> Canister:
        """Open both, as an application does while its sessions move."""
        return self.plain(self.source, migrate_to=self.target, **settings)

    def side(self, place: str, clock: ManualClock | None = None) -> Side:
        """Open an engine whatever its sessions are doing."""
        return open_side(place, Config(**self.settings), clock, may_run_agent=False)

    def take(self, *steps: str) -> None:
        """Take steps by the command."""
        for step in steps:
            run("migrate", self.source, self.target, step, "--json")

    def refuses(self, step: str) -> str:
        """Return what the command says of a step that it must refuse."""
        said = run("migrate", self.source, self.target, step, code=3).err.splitlines()[-1]
        assert said.startswith("canister: ")
        return said

    def board(self) -> Board:
        return Board(self.url, self.settings["cluster"], 5)

    def records(self, session: str) -> list[Record | None]:
        """Return a session as the old and as the new engine hold it."""
        found: list[Record | None] = []
        for place in (self.source, self.target):
            side = self.side(place)
            found.append(side.store.load(encode_id(session)).record)
            side.close()
        return found

    def statuses(self, session: str) -> list[Status]:
        """Return what a session is in the old and in the new engine."""
        now = self.now()
        return [status(record, now) for record in self.records(session)]

    def now(self) -> int:
        side = self.side(self.url)
        now = side.clock.now()
        side.close()
        return now


def destroyed(canister: Canister | Side, session: str) -> None:
    """Destroy a session in one engine alone."""
    engine: Engine = canister.engine if isinstance(canister, Canister) else canister
    engine.commit([(encode_id(session), lambda r, m: destroy(r, m, engine.policy))])
