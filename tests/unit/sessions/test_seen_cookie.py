import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.records import A, B, C, at

from canister.freshness import MOST_ENTRIES, as_seen, covers
from canister.record import NodeId, Version
from canister.sessions import limits, seen
from canister.sessions.keys import Key, KeyRing
from canister.sessions.limits import MOST_SESSIONS, RATE, LookupLimits
from canister.sessions.seen import MOST_SHOWN, read, seal
from canister.sessions.token import Token, draft

RING = KeyRing(["key-0123456789-abcdefghijklmnopqrs", "other-0123456789-abcdefghijklmnopq"])
TOKEN = draft(RING).seal(at(1, A))
STAMP = (at(9, B), at(5, A))
D = NodeId(b"node-D..")
VERSIONS = st.binary(min_size=16, max_size=16).map(Version)


def with_key(key: Key) -> Token:
    return Token(TOKEN.id, TOKEN.secret, key, TOKEN.issued, TOKEN.text)


# What a client carries.


@given(st.lists(VERSIONS, max_size=6).map(as_seen))
def test_a_seen_cookie_round_trips_in_cookie_octets(seen: tuple[Version, ...]) -> None:
    text = seal(seen, TOKEN)
    assert len(text) <= 87
    assert set(text) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
    assert read([text], TOKEN) == seen


def test_a_seen_cookie_is_bound_to_its_session() -> None:
    other = draft(RING).seal(at(1, A))
    assert read([seal(STAMP, TOKEN)], other) == ()


def test_a_seen_cookie_is_good_for_a_renewed_secret_of_the_session() -> None:
    renewed = Token(TOKEN.id, bytes(32), TOKEN.key, at(7, A), "")
    assert read([seal(STAMP, TOKEN)], renewed) == STAMP


def test_a_seen_cookie_of_another_key_is_none() -> None:
    other = RING.find(bytes.fromhex(RING.fingerprints[1]))
    assert other is not None
    assert read([seal(STAMP, with_key(other))], TOKEN) == ()


def test_a_tokens_mac_is_no_stamps_mac() -> None:
    assert TOKEN.key.mac_seen(b"", b"data") != TOKEN.key.mac(b"data")


@given(st.integers(min_value=0), st.sampled_from("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-_"))
def test_a_changed_stamp_is_none(place: int, character: str) -> None:
    text = seal(STAMP, TOKEN)
    place %= len(text)
    changed = text[:place] + character + text[place + 1 :]
    assert read([changed], TOKEN) == (STAMP if changed == text else ())


@given(st.text())
def test_any_text_is_read(text: str) -> None:
    assert read([text], TOKEN) == ()


def sealed(data: bytes) -> str:
    return base64.urlsafe_b64encode(data + TOKEN.key.mac_seen(TOKEN.id, data)).decode().rstrip("=")


@pytest.mark.parametrize(
    "data",
    [b"", b"\x02" + at(9, B), b"\x01" + at(9, B)[1:], b"\x01" + at(1, A) + at(2, B) + at(3, C) + at(4, D)],
    ids=["nothing", "another format", "half a version", "four versions"],
)
def test_what_is_signed_and_no_stamp_is_none(data: bytes) -> None:
    assert read([sealed(data)], TOKEN) == ()


def test_a_seen_cookie_has_one_spelling() -> None:
    text = seal((at(0xFBEFBEFBEFBE, NodeId(b"\xfb\xef\xbe\xfb\xef\xbe\xfb\xef")),), TOKEN)
    for other in (text + "=", text + "==", " " + text, text.replace("-", "+").replace("_", "/")):
        assert other == text or read([other], TOKEN) == ()


def test_several_stamps_are_one() -> None:
    texts = ["x", seal((at(9, B), at(3, A)), TOKEN), seal((at(5, A),), TOKEN)]
    assert read(texts, TOKEN) == STAMP


def test_only_a_few_stamps_of_one_request_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(seen, "_open", lambda text, token: opened.append(text) or ())
    read(["x"] * 100, TOKEN)
    assert len(opened) == MOST_SHOWN


# Putting stamps together.


def test_of_too_many_nodes_the_oldest_is_left_out_but_never_what_must_stay() -> None:
    assert as_seen([at(1, A), at(2, B), at(3, C), at(4, D)]) == (at(4, D), at(3, C), at(2, B))
    assert as_seen([at(2, B), at(3, C), at(4, D)], first=(at(1, A),)) == (at(4, D), at(3, C), at(1, A))
    assert as_seen([at(2, A)], first=(at(1, A),)) == (at(2, A),)


@given(st.lists(VERSIONS), st.lists(VERSIONS, max_size=MOST_ENTRIES))
def test_a_seen_cookie_covers_what_it_was_made_of(seen: list[Version], first: list[Version]) -> None:
    made = as_seen(seen, first=first)
    assert len(made) <= MOST_ENTRIES
    assert covers(made, first)


def test_covering_is_told_node_by_node() -> None:
    assert covers(STAMP, [at(9, B), at(4, A)])
    assert not covers(STAMP, [at(6, A)])
    assert not covers(STAMP, [at(1, C)])
    assert covers((), [])


# How often the peers are asked.


class Time:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_look_ups_of_one_session_are_bounded_and_come_back_with_time() -> None:
    time = Time()
    bounds = LookupLimits(time)
    assert sum(bounds.may_ask(b"s") for _ in range(100)) == RATE
    assert bounds.may_ask(b"another")
    time.now += 1 / RATE
    assert [bounds.may_ask(b"s") for _ in range(2)] == [True, False]
    time.now += 1000
    assert sum(bounds.may_ask(b"s") for _ in range(100)) == RATE


def test_being_refused_does_not_put_the_next_look_up_off() -> None:
    time = Time()
    bounds = LookupLimits(time)
    granted = 0
    for _ in range(1000):
        granted += bounds.may_ask(b"s")
        time.now += 0.01
    assert RATE * 10 <= granted <= RATE * 11


def test_what_a_look_up_brought_is_not_asked_for_again() -> None:
    bounds = LookupLimits()
    bounds.fetched(b"s", [at(5, A)])
    bounds.fetched(b"s", [at(7, B)])
    assert bounds.has(b"s", at(5, A))
    assert bounds.has(b"s", at(4, A))
    assert bounds.has(b"s", at(7, B))
    assert not bounds.has(b"s", at(6, A))
    assert not bounds.has(b"t", at(5, A))


def test_the_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MOST_SESSIONS", 3)
    assert MOST_SESSIONS == 4096
    bounds = LookupLimits()
    for number in range(10):
        bounds.may_ask(b"%d" % number)
        bounds.fetched(b"%d" % number, [at(5, A)])
    assert [bounds.has(b"%d" % number, at(5, A)) for number in range(10)] == [False] * 7 + [True] * 3
    assert len(bounds._buckets) == 3
