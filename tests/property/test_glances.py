"""What a request is served at a glance is what a closer look finds, whatever happened in between."""

import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    multiple,
    rule,
    run_state_machine_as_test,
)
from tests.unit.sessions.kit import KEY

from canister import Canister, edits
from canister.codec import encode_id, encode_value, key_slot
from canister.edits import Moment
from canister.errors import CanisterError
from canister.integrations.flask_parts import FlaskSession
from canister.record import NodeId, make_version
from canister.sessions import Session, SessionManager
from canister.testing.clock import ManualClock

MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
PEER = NodeId(b"\xff\xff\xff\xff\xff\xff\xff.")
"""Hardly ever less than the id that a node draws: of two versions with one stamp, the same wins each time."""
SETTINGS: dict[str, Any] = {
    "session_timeout": "1h",
    "absolute_lifetime": "8h",
    "lock_timeout": "40m",
    "renewal_timeout": "2h",
    "renewal_window": "10m",
}

minutes = st.sampled_from([0, 1, 2, 5, 9, 11, 20, 41, 61, 121])
users = st.sampled_from(["ann", "bob"])
values = st.sampled_from([1, True, 1.0, "a", None, [1], [], {"b": 1}])


class Card(NamedTuple):
    """What a client shows: the values of both cookies."""

    token: list[str]
    seen: list[str]


class Glancing(RuleBasedStateMachine):
    """Two managers serve the same requests: one glances first, the other one always takes a closer look."""

    listen: str | None = None
    kind = Session
    glances = calm = 0
    cards: Bundle[Card] = Bundle("cards")

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory(dir=MEMORY)
        self.clock = ManualClock()
        node = {"agent": False, "clock": self.clock, "listen": self.listen, **SETTINGS}
        self.canister = Canister(Path(self.directory.name), **node)
        self.elsewhere = Canister(Path(self.directory.name), **node)
        self.has_forgotten = False
        self.quick = SessionManager(self.canister, secret_keys=KEY)
        self.careful = SessionManager(self.canister, secret_keys=KEY)
        self.quick.session_class = self.careful.session_class = self.kind
        self.careful._at_a_glance = lambda *_: None  # type: ignore[method-assign]
        self.careful._glances.keep = lambda *_: None  # type: ignore[method-assign]

    def teardown(self) -> None:
        self.elsewhere.close()
        self.canister.close()
        self.directory.cleanup()

    @initialize(target=cards)
    def begin(self) -> Any:
        return self.visit(Card([], []), lambda session: session.update(a=1))

    @rule(target=cards, card=cards, key=st.sampled_from("ab"), value=values)
    def write(self, card: Card, key: str, value: Any) -> Any:
        return self.visit(card, lambda session: session.__setitem__(key, value))

    @rule(target=cards, card=cards)
    def change_in_place(self, card: Card) -> Any:
        def change(session: Session) -> None:
            for value in session.values():
                if isinstance(value, list):
                    value.append(2)

        return self.visit(card, change)

    @rule(target=cards, card=cards)
    def keep(self, card: Card) -> Any:
        def keep(session: Session) -> None:
            if isinstance(session, FlaskSession):
                session.permanent = not session.permanent

        return self.visit(card, keep)

    @rule(target=cards, card=cards)
    def rename_a_key(self, card: Card) -> Any:
        return self.visit(card, lambda s: s.update(b=s.pop("a", None)))

    @rule(target=cards, card=cards, user=users)
    def log_in(self, card: Card, user: str) -> Any:
        return self.visit(card, lambda session: session.login(user))

    @rule(target=cards, card=cards)
    def log_out(self, card: Card) -> Any:
        return self.visit(card, Session.logout)

    @rule(target=cards, card=cards)
    def regenerate(self, card: Card) -> Any:
        return self.visit(card, Session.regenerate)

    @rule(target=cards, card=cards)
    def renew(self, card: Card) -> Any:
        return self.visit(card, Session.renew)

    @rule(target=cards, card=cards)
    def end_soon(self, card: Card) -> Any:
        return self.visit(card, lambda session: session.set_expiry(timedelta(minutes=5)))

    @rule(target=cards, card=cards)
    def count(self, card: Card) -> Any:
        return self.visit(card, lambda session: session.increment("n"))

    @rule(target=cards, card=cards)
    def clear(self, card: Card) -> Any:
        return self.visit(card, Session.clear)

    @rule(target=cards, card=cards, passive=st.booleans())
    def read(self, card: Card, passive: bool) -> Any:
        def look(session: Session) -> None:
            session.get("a")
            if passive:
                session.mark_passive()

        return self.visit(card, look)

    @rule(target=cards, card=cards)
    def leave_unused(self, card: Card) -> Any:
        return self.visit(card, lambda session: None)

    @rule(by=minutes)
    def wait(self, by: int) -> None:
        self.clock.advance(timedelta(minutes=by))

    @rule(user=users)
    def end_all_of(self, user: str) -> None:
        self.careful.users.end_all(user)

    @rule(card=cards)
    def forget(self, card: Card) -> None:
        handle = self.careful.load(card.token).handle
        if handle is not None:
            self.canister.node.store.forget(encode_id(handle))
            self.has_forgotten = True

    @rule(card=cards, how=st.sampled_from(["write", "destroy", "touch"]))
    def act_in_another_process(self, card: Card, how: str) -> None:
        handle = self.careful.load(card.token).handle
        try:
            if handle is not None and how == "write":
                self.elsewhere.put(handle, "a", 3)
            elif handle is not None:
                getattr(self.elsewhere, how)(handle)
        except CanisterError:
            pass  # it has ended

    @rule(card=cards, ahead=st.integers(0, 2), vouch=st.booleans())
    def hear_of_a_peers_write(self, card: Card, ahead: int, vouch: bool) -> None:
        handle = self.careful.load(card.token).handle
        if handle is None:
            return
        store, now = self.canister.node.store, self.clock.now()
        moment = Moment(make_version(now + ahead, PEER), now)
        writes = {key_slot("a"): encode_value(ahead)}
        record = edits.write(store.load(encode_id(handle)).record, moment, self.canister.node.policy, writes)
        store.merge([(encode_id(handle), record)], {PEER: now + ahead} if vouch else {})

    @rule(count=st.integers(0, 1))
    def doubt(self, count: int) -> None:
        self.canister.node.store.set_doubts(count)

    def visit(self, card: Card, act: Any) -> Any:
        """Have a request served by both; what it does is done by the one that glances."""
        for _ in range(2):  # the second time there is something to glance at
            session, closely = self.quick.load(*card), self.careful.load(*card)
            assert seen_of(session, self.has_forgotten) == seen_of(closely, self.has_forgotten)
            type(self).glances += self.quick._at_a_glance(*card) is not None
            self.only_read(session, closely)
        session = self.quick.load(*card)
        before = card
        for _ in range(2):  # what a stream does after its headers have left is stored by another commit
            try:
                act(session)
                outcome = self.quick.commit(session)
            except CanisterError:
                return multiple()
            self.quick.finish(session)
            token = card.token if outcome.set_cookie is None else jar(outcome.set_cookie)
            card = Card(token, card.seen if outcome.set_seen is None else jar(outcome.set_seen))
        if session.state.token is not None and session.state.refusal is None:
            assert dict(session) == dict(self.careful.load(*card))
        return multiple() if card == before else card

    def only_read(self, session: Session, closely: Session) -> None:
        """Where the one that glances finds nothing to do, there is nothing to do."""
        for one in (session, closely):
            if one.state.refusal is None:
                one.get("a")
        if self.quick._at_rest(session) is None:
            return
        type(self).calm += 1
        before = self.canister.node.last_stamp()
        assert self.quick.commit(session) == self.careful.commit(closely)
        assert self.canister.node.last_stamp() == before


class GlancingInACluster(Glancing):
    listen = "127.0.0.1:7499"


class GlancingInFlask(Glancing):
    kind = FlaskSession


def seen_of(session: Session, has_forgotten: bool) -> Any:
    """Return all that an application can see of a session.

    A node that has forgotten another session knows no more of this one that it has heard everything; at a
    glance it does, as this one is still as it was.
    """
    state = session.state
    refusal = None if state.refusal is None else (type(state.refusal), str(state.refusal))
    data = None if refusal else repr(sorted(dict.items(session)))
    facts = (session.handle, session.is_locked, session.ends)
    if not has_forgotten:
        facts += (session.cannot_tell, session.is_behind, state.sight.shown)
    return refusal, data, facts, None if refusal else session.identity, state.max_age


def jar(set_cookie: str) -> list[str]:
    value = set_cookie.partition(";")[0].partition("=")[2]
    return [value] if value else []


def check(machine: type[Glancing]) -> None:
    machine.glances = machine.calm = 0
    some = settings(max_examples=100, stateful_step_count=40, deadline=None)
    run_state_machine_as_test(machine, settings=some)
    assert machine.glances > 100, "there was something to compare"
    assert machine.calm > 100


def test_what_is_seen_at_a_glance_is_what_is_there() -> None:
    check(Glancing)


def test_what_is_seen_at_a_glance_in_a_cluster_is_what_is_there() -> None:
    check(GlancingInACluster)


def test_what_is_seen_at_a_glance_in_flask_is_what_is_there() -> None:
    check(GlancingInFlask)
