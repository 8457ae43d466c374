import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from canister.errors import ConfigError
from canister.sessions import keys
from canister.sessions.keys import VARIABLE, Key, KeyRing, find_keys

ONE = "one-0123456789-abcdefghijklmnopqrs"
TWO = "two-0123456789-abcdefghijklmnopqrs"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [("", "at least 32"), ("x" * 31, "at least 32"), ("ab" * 40, "only 2 different")],
)
def test_a_weak_key_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint) as caught:
        Key(text)
    assert text == "" or text not in str(caught.value)


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [(5, "a list of texts, not int"), ([None], "not of type NoneType"), (ONE.encode(), "not of type int")],
)
def test_what_is_no_text_is_refused_and_not_shown(wrong: Any, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        find_keys(wrong, None, clustered=False)


def test_bytes_of_the_environment_that_are_no_text_are_refused() -> None:
    with pytest.raises(ConfigError, match="UTF-8"):
        find_keys(None, None, clustered=False, environ={VARIABLE: f"{ONE}\udcff"})


def test_no_key_at_all_is_refused() -> None:
    with pytest.raises(ConfigError, match="empty"):
        KeyRing([])


def test_the_first_key_signs_and_all_are_found() -> None:
    ring = KeyRing([ONE, TWO, ONE])
    assert ring.current.number == Key(ONE).number
    assert ring.find(Key(TWO).number) is not None
    assert ring.find(b"???") is None
    assert ring.fingerprints == [Key(ONE).number.hex(), Key(TWO).number.hex()]


def test_mac_and_hash_come_of_different_keys() -> None:
    key = Key(ONE)
    assert key.mac(b"data") != key.hash_secret(b"", b"data")[:16]
    assert key.mac(b"data") != Key(TWO).mac(b"data")


def test_two_keys_of_one_number_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "NUMBER_BYTES", 1)
    numbers: dict[bytes, str] = {}
    for n in range(300):
        text = f"{n:03}-0123456789-abcdefghijklmnopqrs"
        twin = numbers.setdefault(Key(text).number, text)
        if twin != text:
            with pytest.raises(ConfigError, match="same number"):
                KeyRing([text, twin])
            return
    pytest.fail("256 numbers for 300 keys")


def test_no_repr_shows_a_key() -> None:
    for shown in (repr(Key(ONE)), repr(KeyRing([ONE]))):
        assert ONE not in shown


def test_a_configured_key_comes_before_the_variable(tmp_path: Path) -> None:
    environ = {"CANISTER_SECRET_KEYS": TWO}
    assert find_keys(ONE, tmp_path, clustered=True, environ=environ).current.number == Key(ONE).number
    assert find_keys([ONE], tmp_path, clustered=True, environ=environ).current.number == Key(ONE).number


def test_the_variable_lists_keys_separated_by_commas(tmp_path: Path) -> None:
    ring = find_keys(None, tmp_path, clustered=True, environ={"CANISTER_SECRET_KEYS": f" {TWO}, {ONE} ,"})
    assert ring.fingerprints == [Key(TWO).number.hex(), Key(ONE).number.hex()]
    assert list(tmp_path.iterdir()) == []


def test_an_empty_variable_is_no_way_to_get_a_key_of_a_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="empty"):
        find_keys(None, tmp_path, clustered=False, environ={"CANISTER_SECRET_KEYS": ""})


def test_a_node_with_peers_needs_a_configured_key(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="same value on all nodes"):
        find_keys(None, tmp_path, clustered=True, environ={})
    assert list(tmp_path.iterdir()) == []


def test_a_node_that_gets_peers_is_told_of_the_key_it_has(tmp_path: Path) -> None:
    find_keys(None, tmp_path, clustered=False, environ={})
    with pytest.raises(ConfigError, match=r"secret\.key to keep the sessions"):
        find_keys(None, tmp_path, clustered=True, environ={})


def test_a_node_alone_makes_a_key_only_its_owner_can_read(tmp_path: Path) -> None:
    first = find_keys(None, tmp_path, clustered=False, environ={})
    (file,) = tmp_path.iterdir()
    assert file.name == "secret.key"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert find_keys(None, tmp_path, clustered=False, environ={}).fingerprints == first.fingerprints


def test_processes_that_start_at_once_agree_on_one_key(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        rings = list(pool.map(lambda _: find_keys(None, tmp_path, clustered=False, environ={}), range(64)))
    assert len({tuple(ring.fingerprints) for ring in rings}) == 1
    assert [file.name for file in tmp_path.iterdir()] == ["secret.key"]


def test_the_process_that_comes_second_takes_the_first_ones_key(tmp_path: Path) -> None:
    file = tmp_path / "secret.key"
    keys._make(file)
    before = file.read_text()
    keys._make(file)
    assert file.read_text() == before
    assert list(tmp_path.iterdir()) == [file]


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    find_keys(None, tmp_path, clustered=False, environ={})
    (tmp_path / "secret.key").chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        find_keys(None, tmp_path, clustered=False, environ={})


def test_a_file_that_cannot_be_made_is_explained(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read or made"):
        find_keys(None, tmp_path / "missing", clustered=False, environ={})
