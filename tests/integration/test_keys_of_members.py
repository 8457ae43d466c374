"""Nodes whose secret keys do not fit: an alarm, in the log, in the status and in the check."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.cluster import eventually
from tests.integration.test_cli_kit import pair, run

from canister import Canister
from canister.checks.finding import Finding
from canister.checks.points import check
from canister.checks.subject import Settings
from canister.sessions import SessionManager

pytestmark = pytest.mark.integration

ONE = "one-0123456789-abcdefghijklmnopqrs"
TWO = "two-0123456789-abcdefghijklmnopqrs"


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[tuple[Canister, Canister]]:
    with pair(tmp_path) as both:
        yield both


def peer_fits(node: Canister) -> bool | None:
    _, peer = node.members()
    return peer.keys_fit


def verdict(manager: SessionManager) -> Finding:
    [finding] = [one for one in check(Settings.of(manager)) if one.point == "M1"]
    return finding


def test_keys_that_do_not_fit_are_an_alarm(
    nodes: tuple[Canister, Canister], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    a, b = nodes
    first = SessionManager(a, secret_keys=ONE)
    assert peer_fits(a) is None, "the other has said nothing yet"
    assert verdict(first).verdict == "yours to do"
    SessionManager(b, secret_keys=TWO)
    eventually(lambda: peer_fits(a) is False and peer_fits(b) is False, message="both nodes know")
    for here, there in ((a, b), (b, a)):
        said = f"the secret keys of {here.config.listen} "
        alarms = [record for record in caplog.records if record.message.startswith(said)]
        assert len(alarms) == 1, "once"
        assert alarms[0].levelno == logging.ERROR
        assert f"{there.config.listen} do not fit" in alarms[0].message
        assert "CANISTER_SECRET_KEYS" in alarms[0].message
    for secret in (ONE, TWO):
        assert secret not in caplog.text
    text = run("status", tmp_path / "a").out
    assert f"secret keys     DO NOT FIT those of {b.config.listen}; give all nodes the same\n" in text
    assert [m["keys_fit"] for m in run("members", tmp_path / "a", "--json").json] == [None, False]
    finding = verdict(first)
    assert finding.verdict == "fail"
    assert str(b.config.listen) in finding.evidence


def test_keys_that_fit_after_all(nodes: tuple[Canister, Canister], tmp_path: Path) -> None:
    a, b = nodes
    first = SessionManager(a, secret_keys=ONE)
    SessionManager(b, secret_keys=TWO)
    eventually(lambda: peer_fits(a) is False)
    b.close()
    with Canister(tmp_path / "b", listen=b.config.listen, seeds=(a.config.listen,)) as again:
        SessionManager(again, secret_keys=[TWO, ONE])
        eventually(lambda: peer_fits(a) is False, message="it signs with a key that the other lacks")
    with Canister(tmp_path / "b", listen=b.config.listen, seeds=(a.config.listen,)) as again:
        SessionManager(again, secret_keys=[ONE, TWO])
        eventually(lambda: peer_fits(a) is True and peer_fits(again) is True)
        assert "secret keys     fit those of 1 other node\n" in run("status", tmp_path / "a").out
        assert verdict(first).verdict == "pass"


def test_the_hello_alone_tells(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Members that know each other have nothing else to say when they meet again."""
    with pair(tmp_path) as (a, b):
        SessionManager(a, secret_keys=ONE)
        SessionManager(b, secret_keys=TWO)
        eventually(lambda: peer_fits(a) is False and peer_fits(b) is False)
        addresses = [str(node.config.listen) for node in (a, b)]
    caplog.clear()
    with (
        Canister(tmp_path / "a", listen=addresses[0]) as a,
        Canister(tmp_path / "b", listen=addresses[1], seeds=addresses[:1]) as b,
    ):
        eventually(lambda: peer_fits(a) is False and peer_fits(b) is False, message="the hellos are compared")
        alarms = [record.message for record in caplog.records if "do not fit" in record.message]
        assert len(alarms) == 2, "one of each node, as before"


def test_a_hello_says_what_the_node_said_before_it_was_restarted(tmp_path: Path) -> None:
    with Canister(tmp_path / "a", agent=False) as a:
        manager = SessionManager(a, secret_keys=[ONE, TWO])
        assert a.node.store.fingerprints() == [manager.keys.fingerprints]
    with Canister(tmp_path / "a", agent=False) as a:
        assert a.node.store.fingerprints() == [manager.keys.fingerprints]
        other = SessionManager(a, secret_keys=TWO)
        assert a.node.store.fingerprints() == [other.keys.fingerprints], "it is what is in use now"
        second = SessionManager(a, secret_keys=ONE)
        assert a.node.store.fingerprints() == [other.keys.fingerprints, second.keys.fingerprints]


def test_nodes_without_web_sessions_have_nothing_to_compare(
    nodes: tuple[Canister, Canister], tmp_path: Path
) -> None:
    assert peer_fits(nodes[0]) is None
    assert "secret keys     not compared with any other node\n" in run("status", tmp_path / "a").out


def test_a_node_alone_has_nothing_to_check(tmp_path: Path) -> None:
    with Canister(tmp_path / "alone", agent=False) as alone:
        assert verdict(SessionManager(alone)).verdict == "pass"


def test_without_an_agent_the_check_says_where_to_look(tmp_path: Path) -> None:
    with Canister(tmp_path / "a", listen="127.0.0.1:1", agent=False) as node:
        finding = verdict(SessionManager(node, secret_keys=ONE))
    assert finding.verdict == "yours to do"
    assert "no agent runs" in finding.evidence
