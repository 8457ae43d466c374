import hmac
import string

import pytest

from canister.codec import encode_id
from canister.record import NodeId, make_version
from canister.sessions import token as tokens
from canister.sessions.keys import KeyRing
from canister.sessions.token import LENGTH, Refusal, Token, draft, parse

RING = KeyRing(["first-0123456789-abcdefghijklmnopq"])
OTHER = KeyRing(["other-0123456789-abcdefghijklmnopq"])
VERSION = make_version(1_800_000_000_000_000, NodeId(b"node-A.."))
ALPHABET = string.ascii_letters + string.digits + "-_"


def test_a_token_says_what_was_sealed_in_it() -> None:
    made = draft(RING)
    token = made.seal(VERSION)
    read = parse(token.text, RING)
    assert isinstance(read, Token)
    assert read == token
    assert (read.id, read.secret, read.issued) == (made.id, made.secret, VERSION)
    assert (len(read.id), len(read.secret)) == (16, 32)


def test_a_token_is_made_of_cookie_octets_and_has_no_padding() -> None:
    text = draft(RING).seal(VERSION).text
    assert len(text) == LENGTH
    assert set(text) <= set(ALPHABET)


def test_a_token_with_any_character_changed_is_refused() -> None:
    text = draft(RING).seal(VERSION).text
    for place in range(len(text)):
        for character in ("A", "b", "7", "-", "_", "+", "/", "=", " ", "é"):
            changed = text[:place] + character + text[place + 1 :]
            if changed != text:
                assert isinstance(parse(changed, RING), Refusal), (place, character)


def test_every_change_past_format_and_key_number_is_found_by_the_mac() -> None:
    text = draft(RING).seal(VERSION).text
    first_of_id = 6  # 4 bytes are 5 1/3 characters
    for place in range(first_of_id, len(text)):
        changed = text[:place] + ("A" if text[place] != "A" else "B") + text[place + 1 :]
        assert parse(changed, RING) is Refusal.FORGED


@pytest.mark.parametrize("length", [0, 1, LENGTH - 4, LENGTH - 1, LENGTH + 1, LENGTH + 4, 5000])
def test_a_token_of_another_length_is_malformed(length: int) -> None:
    text = draft(RING).seal(VERSION).text
    assert parse((text * 50)[:length], RING) is Refusal.MALFORMED


def test_a_token_of_another_format_is_malformed() -> None:
    text = draft(RING).seal(VERSION).text
    assert parse("B" + text[1:], RING) is Refusal.MALFORMED


def test_a_token_of_an_unlisted_key_is_told_from_a_forged_one() -> None:
    assert parse(draft(OTHER).seal(VERSION).text, RING) is Refusal.UNKNOWN_KEY


def test_all_keys_verify_and_the_first_signs() -> None:
    texts = ["first-0123456789-abcdefghijklmnopq", "other-0123456789-abcdefghijklmnopq"]
    both = KeyRing(texts)
    assert isinstance(parse(draft(OTHER).seal(VERSION).text, both), Token)
    assert parse(draft(both).seal(VERSION).text, OTHER) is Refusal.UNKNOWN_KEY


def test_the_mac_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []

    def compare(a: bytes, b: bytes) -> bool:
        compared.append((a, b))
        return hmac.compare_digest(a, b)

    class Spy:
        compare_digest = staticmethod(compare)

    monkeypatch.setattr(tokens, "hmac", Spy)
    text = draft(RING).seal(VERSION).text
    assert isinstance(parse(text, RING), Token)
    assert parse(text[:-1] + ("A" if text[-1] != "A" else "B"), RING) is Refusal.FORGED
    assert len(compared) == 2
    assert all(len(a) == len(b) == 16 for a, b in compared)


def test_neither_repr_shows_the_secret() -> None:
    made = draft(RING)
    token = made.seal(VERSION)
    for shown in (repr(made), repr(token), str(token)):
        assert made.secret.hex() not in shown
        assert repr(made.secret) not in shown
        assert token.text not in shown
        assert token.text[60:90] not in shown


def test_the_handle_and_the_slot_do_not_hold_the_secret() -> None:
    made = draft(RING)
    assert made.handle == made.id.hex()
    assert made.session == encode_id(made.handle)
    assert made.secret not in made.slot
    assert made.slot == made.seal(VERSION).slot


def test_the_hash_depends_on_the_id_the_secret_and_the_key() -> None:
    one = draft(RING)
    other_id = tokens.Draft(bytes(16), one.secret, one.key)
    other_secret = tokens.Draft(one.id, bytes(32), one.key)
    other_key = tokens.Draft(one.id, one.secret, OTHER.current)
    assert len({one.slot, other_id.slot, other_secret.slot, other_key.slot}) == 4
