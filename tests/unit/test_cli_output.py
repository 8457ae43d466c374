import json
import sys
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from canister.agent.control import MemberState
from canister.cli.members import member_row
from canister.cli.output import count, print_pairs, print_table, show_id, show_time, show_value, to_json


@pytest.mark.parametrize(
    "value", [None, True, 0, 2**100, 1.5, "text", "\ud800", [1, [None]], {"a": {"b": []}}, {"type": 1}, {}]
)
def test_what_json_has_stays_as_it_is(value: Any) -> None:
    assert json.loads(json.dumps(to_json(value))) == value


@pytest.mark.parametrize(
    ("value", "kind", "shown"),
    [
        (b"\x00\xff", "bytes", "00ff"),
        ((1, (2,)), "tuple", [1, {"type": "tuple", "value": [2]}]),
        (set("hgfedcba"), "set", list("abcdefgh")),
        (frozenset({2, 1}), "frozenset", [1, 2]),
        ({1: 2}, "dict", [[1, 2]]),
        ({"type": "x", "value": "y"}, "dict", [["type", "x"], ["value", "y"]]),
        (datetime(2026, 1, 2, 3, tzinfo=UTC), "datetime", "2026-01-02T03:00:00+00:00"),
        (date(2026, 1, 2), "date", "2026-01-02"),
        (time(3, 4), "time", "03:04:00"),
        (timedelta(seconds=1.5), "timedelta", "1.5"),
        (Decimal("1.50"), "Decimal", "1.50"),
        (UUID(int=1), "UUID", "00000000-0000-0000-0000-000000000001"),
        (float("inf"), "float", "inf"),
        (float("nan"), "float", "nan"),
    ],
)
def test_what_json_lacks_says_its_type(value: Any, kind: str, shown: Any) -> None:
    assert to_json(value) == {"type": kind, "value": shown}
    assert to_json([value]) == [to_json(value)]
    assert to_json({"k": value}) == {"k": to_json(value)}


def test_integers_of_any_length_show_and_the_limit_comes_back() -> None:
    limit = sys.get_int_max_str_digits()
    assert show_value([10**5000]) == "[1" + "0" * 5000 + "]"
    assert sys.get_int_max_str_digits() == limit


def test_a_table_is_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("A", "LONGER"), [("wide cell", "1"), ("x", "")])
    assert capsys.readouterr().out == "A          LONGER\nwide cell  1\nx\n"


def test_pairs_are_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    print_pairs([("a", "1"), ("bcd", "2")])
    print_pairs([])
    assert capsys.readouterr().out == "a    1\nbcd  2\n"


def test_a_member_row() -> None:
    assert member_row(MemberState("h:1", "self", "00")) == ("h:1", "self", "-", "-")
    assert member_row(MemberState("h:1", "up", "00", 0.25, -0.0001)) == ("h:1", "up", "0.250 s", "0.000 s")


def test_small_texts() -> None:
    assert show_id("as is") == "as is"
    assert show_id("one\nother\x1b[31m") == r"one\nother\x1b[31m"
    assert show_id(b"\x01") == "--bytes-id 01"
    assert show_time(None) == "-"
    assert show_time(datetime(2026, 1, 2, tzinfo=UTC)) == "2026-01-02T00:00:00.000Z"
    assert (count(0, "peer"), count(1, "peer"), count(2, "peer")) == ("0 peers", "1 peer", "2 peers")
