"""Read your writes: what the session manager does with the seen cookie that a client carries."""

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.unit.sessions.kit import KEY, MINUTE

from canister import Canister, edits
from canister.codec import encode_value, key_slot
from canister.errors import CannotTellError
from canister.freshness import Fetched, Seen, covers, encode_seen
from canister.record import NodeId, Record, Version, make_version
from canister.sessions import Outcome, Session, SessionManager, SessionStatus
from canister.sessions.limits import RATE
from canister.sessions.seen import read, seal
from canister.sessions.token import Token, draft, parse
from canister.testing.clock import ManualClock

PEER = NodeId(b"node-B..")
STRANGER = NodeId(b"node-X..")
NOBODY = Fetched([], everyone=False)


@pytest.fixture
def canister(tmp_path: Path, clock: ManualClock) -> Iterator[Canister]:
    with Canister(tmp_path / "data", agent=False, clock=clock, listen="127.0.0.1:7499") as canister:
        yield canister


class Client:
    """A cookie jar."""

    def __init__(self, manager: SessionManager) -> None:
        self.manager = manager
        self.token: list[str] = []
        self.seen: list[str] = []

    def load(self) -> Session:
        return self.manager.load(self.token, self.seen)

    def commit(self, session: Session) -> Outcome:
        outcome = self.manager.commit(session)
        if outcome.set_cookie is not None:
            self.token = [value] if (value := value_of(outcome.set_cookie)) else []
        if outcome.set_seen is not None:
            self.seen = [value] if (value := value_of(outcome.set_seen)) else []
        return outcome

    def write(self, **values: Any) -> Outcome:
        session = self.load()
        session.update(values)
        return self.commit(session)

    def read(self) -> tuple[dict[str, Any], Outcome]:
        session = self.load()
        data = dict(session)
        return data, self.commit(session)

    @property
    def good(self) -> Token:
        token = parse(self.token[0], self.manager.keys)
        assert isinstance(token, Token)
        return token

    @property
    def shown(self) -> Seen:
        return read(self.seen, self.good)

    def shows(self, *versions: Version) -> None:
        self.seen = [seal(versions, self.good)]


@pytest.fixture
def client(manager: SessionManager) -> Client:
    client = Client(manager)
    client.write(a=1)
    return client


def value_of(set_cookie: str) -> str:
    return set_cookie.partition(";")[0].partition("=")[2]


class Peers:
    """What the members that are linked answer, and how often they were asked."""

    def __init__(self, canister: Canister) -> None:
        self.asked = 0
        self.answer = NOBODY
        self.record: Record | None = None
        self._canister = canister

    def __call__(self, session: bytes) -> Fetched:
        self.asked += 1
        if self.record is not None:
            self._canister.node.store.merge([(session, self.record)], {})
        return self.answer


@pytest.fixture
def peers(canister: Canister, monkeypatch: pytest.MonkeyPatch) -> Peers:
    peers = Peers(canister)
    monkeypatch.setattr(canister.node, "_fetch", peers)
    return peers


def written_elsewhere(
    canister: Canister, client: Client, *, ahead: int = 0, **values: int
) -> tuple[Version, Record]:
    """Return a commit of the peer, whose clock is so far *ahead*, that only the client has seen."""
    now = canister.node.clock.now() + ahead
    version = make_version(now, PEER)
    stored = canister.node.store.load(client.good.session).record
    writes = {key_slot(key): encode_value(value) for key, value in values.items()}
    record = edits.write(stored, edits.Moment(version, now), canister.node.policy, writes)
    client.shows(version, *client.shown)
    return version, record


# When the cookie is sent.


def test_the_seen_cookie_names_what_was_written(canister: Canister, manager: SessionManager) -> None:
    client = Client(manager)
    outcome = client.write(a=1)
    assert outcome.set_seen is not None
    assert outcome.set_seen.startswith("__Host-seen=")
    assert outcome.set_seen.endswith("; Path=/; Secure; HttpOnly; SameSite=Lax")
    first = client.shown
    assert first == (client.good.issued,)
    assert client.write(b=2).set_seen is not None
    assert client.shown > first


def test_the_seen_cookie_is_not_sent_again_for_what_it_covers(client: Client, clock: ManualClock) -> None:
    for _ in range(3):
        assert client.read()[1].set_seen is None
    clock.advance(2 * MINUTE)
    assert client.read()[1].set_seen is not None, "the access was recorded: that is a version too"
    assert client.read()[1].set_seen is None


def test_what_another_request_wrote_is_stamped_when_it_is_served(
    client: Client, manager: SessionManager
) -> None:
    other = Client(manager)
    other.token = client.token
    other.write(b=2)
    data, outcome = client.read()
    assert (data["b"], outcome.set_seen is not None) == (2, True)
    assert client.shown == other.shown


def test_an_unused_session_is_not_stamped(client: Client, manager: SessionManager) -> None:
    Client(manager).token = client.token
    client.seen = []
    assert client.commit(client.load()) == Outcome(None, False)


def test_a_later_commit_stamps_what_it_wrote(client: Client) -> None:
    session = client.load()
    session["b"] = 1
    assert client.commit(session).set_seen is not None
    first = client.shown
    assert client.commit(session).set_seen is None
    session["b"] = 2
    assert client.commit(session).set_seen is not None
    assert client.shown > first


def test_a_new_id_has_a_seen_cookie_of_its_own_and_the_end_of_the_session_ends_it(client: Client) -> None:
    session = client.load()
    session.regenerate()
    assert client.commit(session).set_seen is not None
    assert client.shown == (client.good.issued,)
    session = client.load()
    session.destroy()
    outcome = client.commit(session)
    assert outcome.set_seen is not None
    assert outcome.set_seen.startswith("__Host-seen=; ")
    assert (client.token, client.seen) == ([], [])


def test_a_node_alone_neither_sends_nor_reads_a_stamp(tmp_path: Path, clock: ManualClock) -> None:
    with Canister(tmp_path / "alone", agent=False, clock=clock) as canister:
        client = Client(SessionManager(canister, secret_keys=KEY))
        assert client.write(a=1).set_seen is None
        client.shows(make_version(clock.now(), STRANGER))
        assert client.read() == ({"a": 1}, Outcome(None, True))
        session = client.load()
        session.destroy()
        assert client.commit(session).set_seen is None


# A node that is behind.


def test_what_the_client_has_seen_is_fetched_once(client: Client, canister: Canister, peers: Peers) -> None:
    version, peers.record = written_elsewhere(canister, client, b=2)
    peers.answer = Fetched([{PEER: 2**60}], everyone=False)
    for _ in range(20):
        data, _ = client.read()
        assert data == {"a": 1, "b": 2}
    assert peers.asked == 1
    assert covers(client.shown, [version])


def test_what_was_fetched_and_dropped_is_fetched_again(
    client: Client, canister: Canister, peers: Peers
) -> None:
    _, peers.record = written_elsewhere(canister, client, b=2)
    peers.answer = Fetched([{PEER: 2**60}], everyone=True)
    client.read()
    peers.record = canister.node.store.load(client.good.session).record
    canister.node.store.forget(client.good.session)
    knows_the_issue_only = {canister.node.store.node: 2**60}
    peers.answer = Fetched([knows_the_issue_only], everyone=False)
    assert client.load().is_behind
    assert peers.asked == 2


def test_what_was_heard_of_is_not_asked_for(client: Client, canister: Canister, peers: Peers) -> None:
    version, record = written_elsewhere(canister, client, b=2)
    canister.node.store.merge([(client.good.session, record)], {PEER: int.from_bytes(version[:8], "big")})
    assert client.read()[0]["b"] == 2
    assert peers.asked == 0


def test_what_is_held_back_is_not_passed_over(client: Client, canister: Canister, clock: ManualClock) -> None:
    """This node has heard of what the client has seen, but shows it only when its time has come."""
    version, record = written_elsewhere(canister, client, ahead=300_000_000, b=2)
    canister.node.store.merge([(client.good.session, record)], {PEER: int.from_bytes(version[:8], "big")})
    session = client.load()
    assert (session, session.is_behind) == ({"a": 1}, True)
    client.commit(session)
    assert covers(client.shown, [version])
    clock.advance(5 * MINUTE)
    canister.node.store.release()
    session = client.load()
    assert (session, session.is_behind) == ({"a": 1, "b": 2}, False)


def test_when_nobody_can_tell_it_is_served_and_said(
    client: Client, canister: Canister, peers: Peers, caplog: pytest.LogCaptureFixture
) -> None:
    version, _ = written_elsewhere(canister, client, b=2)
    carried = client.seen
    session = client.load()
    assert dict(session) == {"a": 1}
    assert (session.is_behind, session.cannot_tell) == (True, True)
    assert f"session {session.handle} may be newer on a member" in caplog.text
    assert client.commit(session) == Outcome(None, True)
    assert client.seen == carried
    assert client.write(c=3).set_cookie is None
    assert covers(client.shown, [version]), "or the next answer could be older and nobody would know"
    assert client.load().is_behind


def test_when_nobody_can_tell_it_may_be_refused(client: Client, canister: Canister, peers: Peers) -> None:
    written_elsewhere(canister, client, b=2)
    client.manager = SessionManager(canister, secret_keys=KEY, when_behind="refuse")
    assert client.commit(client.load()) == Outcome(None, False)
    for use in USES:
        session = client.load()
        assert session.cannot_tell
        with pytest.raises(CannotTellError, match="may be newer"):
            use(session)
        assert client.commit(session).cookies == []


USES: list[Callable[[Session], Any]] = [
    lambda s: s["a"],
    lambda s: s.get("a"),
    lambda s: s.peek("a"),
    lambda s: "a" in s,
    lambda s: bool(s),
    lambda s: len(s),
    lambda s: list(s),
    lambda s: dict(s),
    lambda s: {**s},
    lambda s: s == {},
    lambda s: s | {"b": 1},
    lambda s: s.__setitem__("b", 1),
    lambda s: s.update(b=1),
    lambda s: s.setdefault("b", 1),
    lambda s: s.pop("a", None),
    lambda s: s.clear(),
    lambda s: s.replace({}),
    lambda s: json.dumps(s),
    lambda s: copy.copy(s),
]


def test_a_refused_session_can_be_ended_or_replaced(client: Client, canister: Canister, peers: Peers) -> None:
    for log_in in (True, False):
        written_elsewhere(canister, client, b=2)
        client.manager = SessionManager(canister, secret_keys=KEY, when_behind="refuse")
        old = client.good.handle
        session = client.load()
        if log_in:
            session.regenerate()
            session["user"] = "ann"
            client.commit(session)
            assert client.read()[0] == {"user": "ann"}
        else:
            session.destroy()
            client.commit(session)
            assert client.token == []
        assert canister.record_status(old).status == "destroyed"


def test_a_session_that_is_behind_does_not_go_on_under_a_new_id(
    client: Client, canister: Canister, peers: Peers
) -> None:
    """The old one would be destroyed, and with it what only another member has."""
    written_elsewhere(canister, client, b=2)
    session = client.load()
    session.regenerate()
    with pytest.raises(CannotTellError):
        client.commit(session)
    assert client.read()[0] == {"a": 1}
    session = client.load()
    session.destroy()
    session["user"] = "ann"
    client.commit(session)
    assert client.read()[0] == {"user": "ann"}


def test_some_answers_are_better_than_none(client: Client, canister: Canister, peers: Peers) -> None:
    _, peers.record = written_elsewhere(canister, client, b=2)
    session = client.load()
    assert dict(session) == {"a": 1, "b": 2}
    assert session.is_behind, "who answered does not know whether that is all"


# False stamps.


def test_a_forged_stamp_costs_no_look_up_and_is_replaced(
    client: Client, manager: SessionManager, canister: Canister, peers: Peers
) -> None:
    other = Client(manager)
    other.write(a=1)
    strange = seal((make_version(2**50, STRANGER),), client.good)
    forged = strange[:-1] + ("A" if strange[-1] != "A" else "B")
    stolen = seal((make_version(2**50, STRANGER),), other.good)
    for text in (forged, stolen, "x", ""):
        client.seen = [text]
        assert client.read()[1].set_seen is not None, text
        assert client.read()[1].set_seen is None
    assert peers.asked == 0


def test_a_seen_cookie_of_a_node_nobody_knows_costs_one_look_up_and_is_replaced(
    client: Client, peers: Peers, clock: ManualClock
) -> None:
    before = client.shown
    peers.answer = Fetched([{PEER: 2**60}], everyone=True)
    client.shows(make_version(clock.now(), STRANGER), *before)
    for _ in range(5):
        assert client.commit(client.load()).set_cookie is None
    assert (peers.asked, client.shown) == (1, before)


def test_a_seen_cookie_older_than_the_grace_period_is_given_up_after_one_look_up(
    client: Client, canister: Canister, peers: Peers, clock: ManualClock
) -> None:
    client.manager = SessionManager(canister, secret_keys=KEY, when_behind="refuse")
    assert client.good.handle is not None
    canister.set_expiry(client.good.handle, idle="2h")
    client.shows(make_version(clock.now(), STRANGER))
    clock.advance(59 * MINUTE)
    assert client.load().state.refusal is not None
    clock.advance(MINUTE)
    asked = peers.asked
    session = client.load()
    assert (dict(session), session.is_behind) == ({"a": 1}, True)
    assert client.commit(session).set_seen is not None
    session = client.load()
    assert (dict(session), session.is_behind) == ({"a": 1}, False)
    assert peers.asked == asked + 1


def test_look_ups_that_nobody_can_answer_are_bounded(
    client: Client, canister: Canister, peers: Peers
) -> None:
    written_elsewhere(canister, client, b=2)
    for _ in range(10 * RATE):
        assert client.load().is_behind
    assert RATE <= peers.asked < 5 * RATE


# Not knowing is not absence.


def test_a_session_idle_here_that_the_client_used_elsewhere_is_not_ended(
    client: Client, canister: Canister, peers: Peers, clock: ManualClock
) -> None:
    clock.advance(15 * MINUTE)
    _, record = written_elsewhere(canister, client, b=2)
    clock.advance(10 * MINUTE)
    token = client.token
    session = client.load()
    assert session.cannot_tell
    assert client.commit(session) == Outcome(None, False)
    peers.record, peers.answer = record, Fetched([{PEER: 2**60}], everyone=True)
    assert client.read()[0] == {"a": 1, "b": 2}
    assert client.token == token


def test_a_form_of_a_session_that_idled_out_while_a_member_is_away(
    client: Client, canister: Canister, clock: ManualClock, peers: Peers
) -> None:
    """Nobody can tell whether it was in use there: a write is refused, unless the application begins anew."""
    old = client.good.handle
    clock.advance(30 * MINUTE)
    with pytest.raises(CannotTellError, match="may exist on a member of the cluster that cannot be reached"):
        client.write(b=2)
    assert client.good.handle == old
    session = client.load()
    assert session.cannot_tell
    session.regenerate()
    session["b"] = 2
    client.commit(session)
    assert client.read()[0] == {"b": 2}
    assert client.good.handle != old
    assert canister.record_status(old).status == "destroyed"


def test_a_destroyed_session_is_ended_whatever_the_seen_cookie_says(
    client: Client, canister: Canister, peers: Peers, clock: ManualClock
) -> None:
    written_elsewhere(canister, client, b=2)
    canister.destroy(client.good.handle)
    clock.advance(2 * MINUTE)
    outcome = client.commit(client.load())
    assert (value_of(outcome.cookies[0]), value_of(outcome.cookies[1])) == ("", "")
    assert peers.asked == 0


def test_a_session_made_a_moment_ago_on_a_linked_member_is_not_ended(
    manager: SessionManager, canister: Canister, peers: Peers, clock: ManualClock
) -> None:
    """All members are linked and compared, but the commit that made the session is still on its way."""
    assert canister.node.store.peers().doubts == 0
    token = draft(manager.keys).seal(make_version(clock.now(), PEER))
    session = manager.load([token.text])
    assert session.cannot_tell
    assert manager.commit(session) == Outcome(None, False)
    assert peers.asked == 1


def test_what_arrives_while_the_session_is_looked_for_is_not_missed(
    manager: SessionManager, canister: Canister, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = draft(manager.keys).seal(make_version(clock.now(), PEER))
    moment = edits.Moment(token.issued, clock.now())
    writes = {token.slot: encode_value(None), key_slot("a"): encode_value(1)}
    record = edits.write(None, moment, canister.node.policy, writes)
    arrive_after(canister, monkeypatch, [(token.session, record)], {PEER: clock.now()})
    session = manager.load([token.text])
    assert session == {"a": 1}
    assert session.status is SessionStatus.READ


def test_what_arrives_while_the_session_is_read_is_not_vouched_for(
    client: Client, canister: Canister, peers: Peers, monkeypatch: pytest.MonkeyPatch
) -> None:
    version, record = written_elsewhere(canister, client, b=2)
    heard = {PEER: int.from_bytes(version[:8], "big")}
    arrive_after(canister, monkeypatch, [(client.good.session, record)], heard)
    session = client.load()
    assert session.is_behind or session == {"a": 1, "b": 2}


def test_a_read_by_the_librarys_version_does_not_vouch_for_what_arrives_meanwhile(
    client: Client, canister: Canister, peers: Peers, monkeypatch: pytest.MonkeyPatch
) -> None:
    version, record = written_elsewhere(canister, client, b=2)
    heard = {PEER: int.from_bytes(version[:8], "big")}
    arrive_after(canister, monkeypatch, [(client.good.session, record)], heard)
    peers.answer = Fetched([], everyone=True)
    assert canister.get_data(client.good.handle, after=encode_seen((version,))) == {"a": 1, "b": 2}


def arrive_after(canister: Canister, monkeypatch: pytest.MonkeyPatch, batch: Any, heard: Any) -> None:
    """Have commits arrive just after the next session was read."""
    store = canister.node.store
    load = store.load

    def load_and_merge(session: bytes) -> Any:
        stored = load(session)
        monkeypatch.setattr(store, "load", load)
        store.merge(batch, heard)
        return stored

    monkeypatch.setattr(store, "load", load_and_merge)


def test_what_was_stored_before_the_response_is_in_its_stamp(client: Client) -> None:
    """By `session.commit()` in a handler, or Django's `save()`; the response has nothing left to store."""
    session = client.load()
    session["a"] = 2
    session.commit()
    written = session.state.written
    client.commit(session)
    assert written is not None
    assert covers(client.shown, (written,))
