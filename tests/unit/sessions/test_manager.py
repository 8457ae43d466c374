"""The awaitable forms, the set-up, what is logged, and what never is."""

import asyncio
import logging
from pathlib import Path

import pytest
from tests.unit.sessions.kit import END, KEY, create, forged, in_doubt, sent, token_of_elsewhere

from canister import Canister
from canister.errors import ConfigError
from canister.sessions import Session, SessionManager
from canister.sessions.token import Token, parse
from canister.testing.clock import ManualClock


def test_the_awaitable_forms_do_the_same(manager: SessionManager) -> None:
    async def request() -> None:
        session = await manager.aload([])
        session["a"] = 1
        cookie = sent((await manager.acommit(session)).set_cookie)
        session = await manager.aload([cookie])
        assert session == {"a": 1}
        assert (await manager.adestroy(session)).set_cookie == END
        assert await manager.aload([cookie]) == {}

    asyncio.run(request())


def test_peers_are_asked_and_disks_waited_for_in_a_thread_and_nothing_else(
    tmp_path: Path, clock: ManualClock, hops: list[str]
) -> None:
    async def requests(manager: SessionManager) -> None:
        cookie = create(manager, a=1)
        await manager.acommit(await manager.aload([cookie, "x"]))
        await manager.aload([])
        in_doubt(manager.canister)
        await manager.aload([cookie])
        await manager.aload([token_of_elsewhere(clock).text])

    for durability in ("normal", "full"):
        with Canister(tmp_path / durability, agent=False, clock=clock, durability=durability) as canister:
            asyncio.run(requests(SessionManager(canister, secret_keys=KEY)))
    assert hops == ["load", "commit", "load"]


# Set-up, logs, secrets.


def test_a_node_alone_needs_no_key(canister: Canister) -> None:
    cookie = create(SessionManager(canister), a=1)
    assert SessionManager(canister).load([cookie]) == {"a": 1}


def test_a_node_with_peers_needs_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CANISTER_SECRET_KEYS", raising=False)
    with (
        Canister(tmp_path / "data", agent=False, listen="127.0.0.1:7499") as canister,
        pytest.raises(ConfigError, match="same value on all nodes"),
    ):
        SessionManager(canister)


def test_an_unknown_choice_of_when_behind_is_refused(canister: Canister) -> None:
    with pytest.raises(ConfigError, match="'serve' or 'refuse'"):
        SessionManager(canister, secret_keys=KEY, when_behind="perhaps")  # type: ignore[arg-type]


def test_neither_the_database_nor_the_log_ever_holds_a_secret(
    manager: SessionManager, canister: Canister, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    cookies = [create(manager, a=n) for n in range(5)]
    session = manager.load([cookies[0]])
    session.regenerate()
    cookies.append(sent(manager.commit(session).set_cookie))
    manager.destroy(manager.load([cookies[1]]))
    manager.load([forged(cookies[2]), cookies[1]])
    files = [p for p in canister.node.store.files.path.iterdir() if p.is_file()]
    stored = b"".join(file.read_bytes() for file in files)
    assert {file.suffix for file in files} >= {".db", ".db-wal"}
    for cookie in cookies:
        token = parse(cookie, manager.keys)
        assert isinstance(token, Token)
        assert token.id in stored, "the search must be able to find what is there"
        assert token.handle in caplog.text
        for secret in (token.secret, token.secret.hex().encode(), cookie.encode(), cookie[30:70].encode()):
            assert secret not in stored
            assert secret.decode("latin-1") not in caplog.text
        assert repr(token.secret) not in caplog.text


def test_creation_end_and_refusal_are_logged_by_handle(
    manager: SessionManager, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "canister.sessions")
    cookie = create(manager, a=1)
    session = manager.load([cookie])
    handle = session.handle
    manager.destroy(session)
    manager.load([cookie])
    manager.load([forged(cookie)])
    assert [record.getMessage() for record in caplog.records] == [
        f"session {handle} was created",
        f"session {handle} was destroyed",
        f"session {handle} is gone; its cookie is refused",
        "a session cookie was refused: forged",
    ]


def test_a_change_that_is_never_committed_is_reported(
    canister: Canister, caplog: pytest.LogCaptureFixture
) -> None:
    manager = SessionManager(canister, secret_keys=KEY, strict=False)

    def finish(session: Session) -> str:
        caplog.clear()
        manager.finish(session, "http /cart")
        return caplog.text

    session = manager.load([])
    assert finish(session) == ""
    session["a"] = [1]
    manager.commit(session)
    assert finish(session) == ""
    session["a"].append(2)
    assert f"http /cart changed in session {session.handle}" in finish(session)
    session["a"] = object()
    assert "is lost" in finish(session)
    session = manager.load([])
    session["a"] = 1
    manager.commit(session)
    session.clear()
    assert "is lost" in finish(session)
    session.destroy()
    assert "is lost" in finish(session)


def test_strictness_may_come_as_text(canister: Canister) -> None:
    """A settings file's "no" means no."""
    manager = SessionManager(canister, secret_keys=KEY, strict="no")  # type: ignore[arg-type]
    session = manager.load([])
    manager.commit(session)
    session["a"] = 1
    manager.finish(session, "GET /")
    with pytest.raises(ConfigError, match="strict must be true or false"):
        SessionManager(canister, secret_keys=KEY, strict="banana")  # type: ignore[arg-type]
