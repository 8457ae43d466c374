"""Requests of one client that are answered at once, or out of their order."""

import asyncio
import concurrent.futures
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.unit.sessions.kit import KEY, MINUTE, create, sent

from canister import Canister, CannotTellError, SessionDestroyedError
from canister.clock import SECOND
from canister.sessions import CookieSettings, Session, SessionManager
from canister.testing.clock import ManualClock

DAY = timedelta(days=1)


@pytest.fixture
def canister(tmp_path: Path, clock: ManualClock) -> Iterator[Canister]:
    settings = {"session_timeout": "8h", "renewal_timeout": "1h", "renewal_window": "10m"}
    with Canister(tmp_path / "data", agent=False, clock=clock, **settings) as canister:
        yield canister


@pytest.fixture
def keeping(canister: Canister) -> SessionManager:
    """Return a manager whose cookies outlive the browser."""
    return SessionManager(canister, secret_keys=KEY, cookie=CookieSettings(max_age=DAY))


def log_in(manager: SessionManager, cookie: str) -> str:
    session = manager.load([cookie])
    session.login("ann")
    return sent(manager.commit(session).set_cookie)


def keep_for_a_day(session: Session) -> None:
    session.set_cookie_age(DAY)


@pytest.mark.parametrize("act", [lambda session: session.get("a"), keep_for_a_day])
def test_a_late_answer_does_not_put_the_token_of_before_back(
    keeping: SessionManager, manager: SessionManager, clock: ManualClock, act: Callable[[Session], Any]
) -> None:
    """It would be the cookie of a session that is over, in place of the one of the log-in."""
    used = manager if act is keep_for_a_day else keeping
    cookie = create(used, a=1)
    clock.advance(30 * MINUTE)  # an access is to be recorded
    late = used.load([cookie])
    act(late)
    log_in(used, cookie)
    assert used.commit(late).set_cookie is None


def test_a_late_answer_does_not_put_a_token_back_whose_user_was_logged_out_everywhere(
    manager: SessionManager, tmp_path: Path, clock: ManualClock
) -> None:
    """On another node, which did not know of this session: here only the user's record tells."""
    cookie = log_in(manager, create(manager, a=1))
    late = manager.load([cookie])
    keep_for_a_day(late)
    with Canister(tmp_path / "other", agent=False, clock=clock) as other:
        SessionManager(other, secret_keys=KEY).users.end_all("ann")
        manager.canister.node.store.merge(other.node.store.scan(), {})
    assert manager.commit(late).set_cookie is None


def test_a_late_request_does_not_take_the_next_cookie_away(
    manager: SessionManager, clock: ManualClock
) -> None:
    """Whether it was sent before a log-in or before a renewal; later the browser is rid of it."""
    before = create(manager, a=1)
    cookie = log_in(manager, before)
    clock.advance(61 * MINUTE)
    for _ in range(2):  # renewed, and shown
        session = manager.load([cookie])
        session.get("a")
        renewed = manager.commit(session).set_cookie
        before, cookie = cookie, sent(renewed) if renewed else cookie
        if renewed:
            replaced = before
    assert manager.commit(manager.load([replaced])).set_cookie is None
    clock.advance(2 * MINUTE)
    assert manager.commit(manager.load([replaced])).set_cookie == manager.cookie.end()


def show_a_form(session: Session) -> None:
    session.csrf_token()


def write_a_key(session: Session) -> None:
    session["a"] = session.get("a", 0) + 1


@pytest.mark.parametrize("late_act", [write_a_key, show_a_form])
def test_a_late_request_that_writes_does_not_take_the_next_cookie_away(
    manager: SessionManager, clock: ManualClock, late_act: Callable[[Session], Any]
) -> None:
    """The client is told to try again: it shows the next cookie then. A log-in goes through at any time."""
    before = create(manager, a=1)
    session = manager.load([before])
    session.renew()
    cookie = sent(manager.commit(session).set_cookie)
    session = manager.load([cookie])
    session["b"] = 2  # the new secret has shown up
    manager.commit(session)
    late = manager.load([before])
    assert late.cannot_tell, "nobody who is logged in is sent to the log-in"
    late_act(late)
    with pytest.raises(CannotTellError, match="less than a minute ago"):
        manager.commit(late)
    assert manager.load([log_in(manager, before)]).user == "ann"
    clock.advance(2 * MINUTE)
    late = manager.load([before])
    late_act(late)
    sent(manager.commit(late).set_cookie)


def log_in_once(session: Session) -> None:
    session.login("ann")


def log_out_and_go_on(session: Session) -> None:
    session.logout()
    session["message"] = "See you!"


@pytest.mark.parametrize("act", [log_in_once, Session.regenerate, log_out_and_go_on])
@pytest.mark.parametrize("late_act", [write_a_key, show_a_form])
def test_a_late_request_does_not_take_the_cookie_of_the_session_that_followed_away(
    manager: SessionManager,
    clock: ManualClock,
    act: Callable[[Session], Any],
    late_act: Callable[[Session], Any],
) -> None:
    """A client that never got it waits for ten seconds, or logs in."""
    before = create(manager, a=1)
    session = manager.load([before])
    act(session)
    sent(manager.commit(session).set_cookie)
    late = manager.load([before])
    late_act(late)
    with pytest.raises(CannotTellError, match="was given the next one"):
        manager.commit(late)
    for ask in (Session.known_user, lambda session: session.is_csrf_token("00" * 64)):
        with pytest.raises(CannotTellError):
            ask(manager.load([before]))
    assert manager.load([log_in(manager, before)]).user == "ann"
    clock.advance(11 * SECOND)
    late = manager.load([before])
    assert late.known_user() is None
    late_act(late)
    sent(manager.commit(late).set_cookie)


@pytest.mark.parametrize("end", [Session.logout, Session.clear])
def test_a_late_log_out_is_not_lost(manager: SessionManager, end: Callable[[Session], Any]) -> None:
    """The session that followed lives on, and the client's next try has its cookie."""
    before = log_in(manager, create(manager, a=1))
    session = manager.load([before])
    session.regenerate()
    cookie = sent(manager.commit(session).set_cookie)
    late = manager.load([before])

    def log_out() -> None:
        end(late)
        manager.commit(late)

    with pytest.raises(CannotTellError, match="was given the next one"):
        log_out()
    assert manager.load([cookie]).user == "ann"


@pytest.mark.parametrize("end", [Session.logout, log_out_and_go_on])
@pytest.mark.parametrize("act", [log_in_once, Session.regenerate])
def test_a_log_out_that_was_overtaken_is_not_answered_as_done(
    manager: SessionManager, act: Callable[[Session], Any], end: Callable[[Session], Any]
) -> None:
    """Both have loaded the session before either of them was stored."""
    before = log_in(manager, create(manager, a=1))
    overtaken, session = manager.load([before]), manager.load([before])
    act(session)
    cookie = sent(manager.commit(session).set_cookie)
    end(overtaken)
    with pytest.raises(CannotTellError, match="was given the next one"):
        manager.commit(overtaken)
    assert manager.load([cookie]).user == "ann"
    again = manager.load([cookie])
    end(again)
    manager.commit(again)
    assert manager.load([cookie]).user is None


def test_two_log_outs_at_once_are_both_done(manager: SessionManager) -> None:
    before = log_in(manager, create(manager, a=1))
    for session in [manager.load([before]), manager.load([before])]:
        session.logout()
        assert manager.commit(session).set_cookie == manager.cookie.end()


def test_a_session_that_goes_on_under_a_new_id_is_not_told_to_be_ended(
    manager: SessionManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = log_in(manager, create(manager, a=1))
    session = manager.load([before])
    handle, live = str(session.handle), manager.users._live

    def listed(user: bytes) -> Any:
        found = list(live(user))
        session.regenerate()  # once it was found
        manager.store(session)
        return found

    monkeypatch.setattr(manager.users, "_live", listed)
    assert manager.users.end("ann", handle) is False
    assert manager.users.end("ann", str(session.handle)) is False, "it has gone on once more"
    monkeypatch.undo()
    assert manager.users.end("ann", str(session.handle)) is True


def test_a_new_session_follows_one_that_the_same_request_has_ended_before(manager: SessionManager) -> None:
    """As where a framework ends the old session at once, and stores the new one with the response."""
    before = log_in(manager, create(manager, a=1))
    session = manager.load([before])
    session.logout()
    manager.store(session)
    session.login("bob")
    cookie = sent(manager.commit(session).set_cookie)
    late = manager.load([before])
    late["a"] = 2
    with pytest.raises(CannotTellError, match="was given the next one"):
        manager.commit(late)
    assert manager.load([cookie]).user == "bob"


def test_a_client_whose_session_was_ended_is_shown_a_form_at_once(manager: SessionManager) -> None:
    """A log-in page has one; nobody can tell that the client has no other cookie."""
    cookie = log_in(manager, create(manager, a=1))
    handle = manager.load([cookie]).handle
    assert handle is not None
    assert manager.users.end("ann", handle)
    session = manager.load([cookie])
    session.csrf_token()
    assert manager.load([sent(manager.commit(session).set_cookie)]).user is None


def test_who_says_so_begins_anew_at_once(manager: SessionManager) -> None:
    before = create(manager, a=1)
    manager.destroy(manager.load([before]))
    session = manager.load([before])
    session.regenerate()
    session["b"] = 2
    assert manager.load([sent(manager.commit(session).set_cookie)]) == {"b": 2}


def test_a_request_that_reads_does_not_fail_as_another_one_logs_out(
    manager: SessionManager, clock: ManualClock
) -> None:
    """Neither a renewal that is due nor replaced secrets that are to be retired are worth an error."""
    cookie = create(manager, a=1)
    clock.advance(61 * MINUTE)
    session = manager.load([cookie])
    session.get("a")
    renewed = sent(manager.commit(session).set_cookie)
    for shown, wait in ((renewed, 0), (cookie, 0)):
        late = manager.load([shown])
        late.get("a")
        clock.advance(wait * MINUTE)
        if shown == renewed:
            manager.destroy(manager.load([renewed]))
        assert manager.commit(late).set_cookie is None


def test_a_renewal_that_was_asked_for_is_refused_as_another_one_logs_out(manager: SessionManager) -> None:
    cookie = create(manager, a=1)
    late = manager.load([cookie])
    late.renew()
    manager.destroy(manager.load([cookie]))
    with pytest.raises(SessionDestroyedError):
        manager.commit(late)


def test_two_pages_at_once_get_forms_that_are_both_good(manager: SessionManager) -> None:
    cookie = create(manager, a=1)
    pages = [manager.load([cookie]) for _ in range(2)]
    forms = [page.csrf_token() for page in pages]
    for page in pages:
        manager.commit(page)
    assert [manager.load([cookie]).is_csrf_token(form) for form in forms] == [True, True]


class Slow:
    """Lets something happen while a commit is under way."""

    def __init__(self, canister: Canister, monkeypatch: pytest.MonkeyPatch) -> None:
        self._commit = canister.engine.commit
        self.meanwhile: Callable[[], Any] = lambda: None
        monkeypatch.setattr(canister.engine, "commit", self)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        version = self._commit(*args, **kwargs)
        meanwhile, self.meanwhile = self.meanwhile, lambda: None
        meanwhile()
        return version


def ask_for_all(session: Session) -> str:
    """Ask for whatever a session can be asked for; return a form's token."""
    session["late"] = 1
    session.increment("visits")
    session.update_key("cart", lambda cart: [*cart, "tea"])
    session.update_key("seats", lambda seats: seats + 1, default=1)
    session.set_expiry(timedelta(hours=2))
    return session.csrf_token()


def test_what_another_task_asks_for_while_a_commit_waits_is_not_lost(
    manager: SessionManager, canister: Canister, monkeypatch: pytest.MonkeyPatch, clock: ManualClock
) -> None:
    """Two tasks of a WebSocket share its session."""
    cookie = create(manager, cart=[])
    session = manager.load([cookie])
    session.increment("visits")
    session.update_key("cart", lambda cart: [*cart, "milk"])
    slow, forms = Slow(canister, monkeypatch), []
    slow.meanwhile = lambda: forms.append(ask_for_all(session))
    asyncio.run(manager.acommit(session))
    asyncio.run(manager.acommit(session))
    found = manager.load([cookie])
    assert found == {"cart": ["milk", "tea"], "late": 1, "seats": 2} == session
    assert (found.count("visits"), session.count("visits")) == (2, 2)
    assert found.is_csrf_token(forms[0])
    clock.advance(timedelta(hours=3))
    assert manager.load([cookie]).handle is None, "it has the times that were asked for"


def test_what_is_asked_for_as_a_commit_in_another_thread_ends_is_done_once(
    manager: SessionManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commit takes account of what it did either before more is asked for or after it."""
    cookie = create(manager, n=1)
    session = manager.load([cookie])
    session.increment("visits")
    session.update_key("n", lambda n: n + 1)
    work_out = msgspec.structs.replace
    with ThreadPoolExecutor(1) as pool:

        def commit() -> None:
            if not commits:
                commits.append(pool.submit(manager.store, session))
                concurrent.futures.wait(
                    commits, timeout=0.2
                )  # where it is kept waiting, it goes on afterwards

        def interrupted(*args: Any, **wishes: Any) -> Any:
            commit()
            return work_out(*args, **wishes)

        commits: list[Any] = []
        with monkeypatch.context() as patched:
            patched.setattr(msgspec.structs, "replace", interrupted)
            session.increment("visits")
        commits.pop().result()

        def add(n: int) -> int:
            commit()
            return n + 1

        session.update_key("n", add)
        commits.pop().result()
    assert (session.count("visits"), session["n"]) == (2, 3)
    manager.store(session)
    found = manager.load([cookie])
    assert (found.count("visits"), found["n"]) == (2, 3)


def test_an_update_that_ran_again_is_shown_and_goes_on_from_there(
    manager: SessionManager, canister: Canister, monkeypatch: pytest.MonkeyPatch
) -> None:
    cookie = create(manager, n=1)
    session, other = manager.load([cookie]), manager.load([cookie])
    session.update_key("n", lambda n: n + 1)
    other["n"] = 10
    manager.commit(other)
    slow = Slow(canister, monkeypatch)
    slow.meanwhile = lambda: session.update_key("n", lambda n: n * 2)
    manager.commit(session)
    assert session["n"] == 22
    manager.commit(session)
    assert manager.load([cookie])["n"] == 22


def test_a_log_out_while_a_commit_waits_stays(
    manager: SessionManager, canister: Canister, monkeypatch: pytest.MonkeyPatch
) -> None:
    cookie = create(manager, a=1)
    session = manager.load([cookie])
    session["a"] = 2
    slow = Slow(canister, monkeypatch)
    slow.meanwhile = session.logout
    manager.commit(session)
    assert manager.commit(session).set_cookie == manager.cookie.end()
    assert manager.load([cookie]).handle is None


@pytest.fixture
def durable(tmp_path: Path) -> Iterator[SessionManager]:
    """Return a manager whose awaited commits run in threads: they wait for the disk."""
    with Canister(tmp_path / "durable", agent=False, durability="full") as canister:
        yield SessionManager(canister, secret_keys=KEY)


def test_tasks_that_commit_one_session_at_once(durable: SessionManager) -> None:
    """Each goes on from what the one before has stored: nothing is lost, nor added twice."""
    cookie = create(durable, log=[])
    session = durable.load([cookie])

    async def work(name: str) -> None:
        for _ in range(10):
            session.increment(name)
            session.update_key("log", lambda log: [*log, name])
            await session.acommit()

    async def work_together() -> None:
        await asyncio.gather(work("in"), work("out"))

    asyncio.run(work_together())
    found = durable.load([cookie])
    assert [found.count("in"), found.count("out"), len(found["log"])] == [10, 10, 20]


def test_tasks_that_store_a_new_session_at_once(durable: SessionManager) -> None:
    session = durable.load([])

    async def store(name: str) -> None:
        session[name] = 1
        await durable.acommit(session)

    async def store_together() -> None:
        await asyncio.gather(*(store(name) for name in "abc"))

    asyncio.run(store_together())
    assert durable.canister.num_local_sessions() == 1
    assert durable.canister.get_data(session.handle or "") == {"a": 1, "b": 1, "c": 1} == session


def test_threads_that_commit_one_session_at_once(manager: SessionManager) -> None:
    cookie = create(manager, a=1)
    session = manager.load([cookie])

    def work(name: str) -> None:
        for _ in range(50):
            session.increment(name)
            session.commit()

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(work, "abcd"))
    assert [manager.load([cookie]).count(name) for name in "abcd"] == [50] * 4


def test_a_log_in_that_is_sent_twice(manager: SessionManager) -> None:
    """Both are logged in, each in a session of its own with what the visitor had: either may be kept."""
    cookie = create(manager, cart=["tea"])
    requests = [manager.load([cookie]) for _ in range(2)]
    for request in requests:
        request.login("ann")
    for request in requests:
        found = manager.load([sent(manager.commit(request).set_cookie)])
        assert (found.user, found) == ("ann", {"cart": ["tea"]})


def test_a_log_in_after_a_log_out_elsewhere_takes_nothing_over(manager: SessionManager) -> None:
    cookie = log_in(manager, create(manager, cart=["tea"]))
    late = manager.load([cookie])
    manager.destroy(manager.load([cookie]))
    late.login("ann")
    found = manager.load([sent(manager.commit(late).set_cookie)])
    assert (found.user, found) == ("ann", {})
