import copy
import json
import pickle
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canister.codec import decode_value, encode_value, key_slot
from canister.errors import (
    InvalidKeyError,
    InvalidValueError,
    OldSystemError,
    StoreError,
    TooLargeError,
)
from canister.record import Cell, NodeId, Record, make_version
from canister.sessions import mapping
from canister.sessions.contents import Contents
from canister.sessions.keys import KeyRing
from canister.sessions.session import Session
from canister.sessions.state import SessionStatus, State
from canister.sessions.token import draft

VERSION = make_version(1_800_000_000_000_000, NodeId(b"node-A.."))
TOKEN = draft(KeyRing(["key-0123456789-abcdefghijklmnopqrs"])).seal(VERSION)


def stored(**values: Any) -> Session:
    cells = {key_slot(key): Cell(VERSION, encode_value(value)) for key, value in values.items()}
    cells[TOKEN.slot] = Cell(VERSION, encode_value(None))
    return Session(State(TOKEN, Contents(Record(cells=cells))))


def changed(session: Session) -> dict[Any, Any]:
    """Return what a commit would write, decoded; `...` for a removed key."""
    changes = session.changes().writes
    return {
        decode_value(slot[1:]): ... if data is None else decode_value(data) for slot, data in changes.items()
    }


def test_a_session_is_a_dict() -> None:
    session = stored(a=1)
    assert isinstance(session, dict)
    assert dict(session) == {"a": 1}
    assert {**session} == {"a": 1}
    assert json.dumps(session) == '{"a": 1}'
    assert session == {"a": 1}
    assert session | {"b": 2} == {"a": 1, "b": 2}


@pytest.mark.parametrize(
    "use",
    [
        lambda s: s["a"],
        lambda s: s.get("a"),
        lambda s: "a" in s,
        len,
        list,
        bool,
        lambda s: s == {},
        lambda s: s != {},
        lambda s: list(s.items()),
        lambda s: list(s.keys()),
        lambda s: list(s.values()),
        lambda s: list(reversed(s)),
        lambda s: s.copy(),
        lambda s: s | {},
        lambda s: {} | s,
        lambda s: {**s},
        dict,
        json.dumps,
        copy.copy,
        copy.deepcopy,
        pickle.dumps,
        lambda s: s.setdefault("a", 2),
        lambda s: s.update(a=1),
        lambda s: s.pop("z", None),
    ],
)
def test_whatever_looks_into_the_session_reads_it_and_finds_its_values(use: Any) -> None:
    session = stored(a=1)
    assert session.status is SessionStatus.UNREAD
    use(session)
    assert session.status is SessionStatus.READ
    assert session.state.varies
    assert session["a"] == 1


@pytest.mark.parametrize(
    ("use", "written"),
    [
        (lambda s: s.__setitem__("b", 2), {"b": 2}),
        (lambda s: s.__setitem__("a", 2), {"a": 2}),
        (lambda s: s.__delitem__("a"), {"a": ...}),
        (lambda s: s.pop("a"), {"a": ...}),
        (lambda s: s.popitem(), {"a": ...}),
        (lambda s: s.setdefault("b", 2), {"b": 2}),
        (lambda s: s.update(b=2), {"b": 2}),
        (lambda s: s.__ior__({"b": 2}), {"b": 2}),
        (lambda s: s.replace({"b": 2}), {"a": ..., "b": 2}),
    ],
)
def test_only_what_differs_is_written(use: Any, written: dict[str, Any]) -> None:
    session = stored(a=1)
    use(session)
    assert session.status is SessionStatus.MODIFIED
    assert changed(session) == written


def test_writing_the_same_value_again_writes_nothing() -> None:
    session = stored(a=[1], b={"x": 1})
    session["a"] = [1]
    session["b"] = {"x": 1}
    assert not session.changes().any
    assert session.status is SessionStatus.READ


def test_true_and_one_are_different_values() -> None:
    session = stored(a=1)
    session["a"] = True
    assert changed(session) == {"a": True}


def test_a_nested_edit_is_found() -> None:
    session = stored(cart=[1], user={"address": {"city": "Ulm"}}, other=1)
    session["cart"].append(2)
    session["user"]["address"]["city"] = "Bonn"
    assert changed(session) == {"cart": [1, 2], "user": {"address": {"city": "Bonn"}}}


def test_the_same_values_under_other_keys_are_changes() -> None:
    """What was loaded is compared key by key, in whatever order the application leaves it."""
    session = stored(a=1, b="x")
    a, b = session.pop("a"), session.pop("b")
    session.update(b=a, a=b)
    assert changed(session) == {"a": "x", "b": 1}
    session.clear()
    session.state.ask(cleared=False)
    session.update(b="x", a=1)
    assert changed(session) == {}
    session["c"] = session.pop("b")
    assert changed(session) == {"b": ..., "c": "x"}


def test_requests_share_what_they_load_but_no_value_that_changes_in_place() -> None:
    contents = Contents(Record(cells={key_slot("cart"): Cell(VERSION, encode_value([1]))}))
    one, other = Session(State(TOKEN, contents)), Session(State(TOKEN, contents))
    one["cart"].append(2)
    one["more"] = 3
    assert other == {"cart": [1]}
    assert changed(one) == {"cart": [1, 2], "more": 3}
    assert changed(other) == {}


def test_an_unused_session_is_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    session = stored(a=1)
    monkeypatch.setattr(mapping, "encode_value", None)
    assert not session.changes().any


def test_a_value_that_cannot_be_decoded_does_not_make_the_session_look_empty() -> None:
    record = Record(cells={key_slot("a"): Cell(VERSION, b"\xc1")})
    with pytest.raises(StoreError, match="not an encoded value"):
        Session(State(TOKEN, Contents(record)))


def test_peek_is_no_access_but_the_response_depends_on_it() -> None:
    session = stored(a=1)
    assert session.peek("a") == 1
    assert session.peek("z", 5) == 5
    assert session.status is SessionStatus.UNREAD
    assert session.state.varies


def test_mark_accessed_is_no_access_either() -> None:
    session = stored(a=1)
    session.mark_accessed()
    assert session.status is SessionStatus.UNREAD
    assert session.state.varies


def test_removed_cells_and_other_name_spaces_are_no_keys() -> None:
    cells = {key_slot("gone"): Cell(VERSION, None), TOKEN.slot: Cell(VERSION, b"\xc0")}
    assert dict(Session(State(TOKEN, Contents(Record(cells=cells))))) == {}


def test_a_new_session_has_no_handle() -> None:
    session = Session()
    assert session.status is SessionStatus.NEW
    assert session.handle is None
    session["a"] = 1
    assert session.status is SessionStatus.NEW
    assert changed(session) == {"a": 1}


def test_the_handle_is_the_tokens_id() -> None:
    assert stored().handle == TOKEN.handle


def test_clear_writes_again_what_is_set_afterwards() -> None:
    session = stored(a=1, b=2)
    session.clear()
    assert session.status is SessionStatus.MODIFIED
    assert (session.changes().writes, session.changes().clear) == ({}, True)
    session["a"] = 1
    assert changed(session) == {"a": 1}


def test_clear_of_an_empty_stored_session_is_a_change() -> None:
    session = stored()
    session.clear()
    assert session.status is SessionStatus.MODIFIED


@pytest.mark.parametrize("then", [lambda s: s.login("ann"), lambda s: s.regenerate()])
def test_what_is_asked_for_after_clear_goes_with_the_session_to_a_new_id(then: Any) -> None:
    session = stored(a=1)
    session.clear()
    session["b"] = 2
    session.increment("n", 3)
    session.set_expiry(timedelta(minutes=5))
    then(session)
    assert (dict(session), session.count("n")) == ({"b": 2}, 3)
    changes = session.changes()
    assert (changed(session), len(changes.late)) == ({"b": 2}, 1)
    assert changes.times is not None


def test_clear_leaves_the_times_that_were_asked_for_before() -> None:
    session = stored(a=1)
    session.set_expiry(timedelta(minutes=5))
    session.clear()
    assert session.changes().times is not None


def test_destroy_empties_and_what_is_set_afterwards_is_new() -> None:
    session = stored(a=1)
    session.destroy()
    assert session.status is SessionStatus.DESTROYED
    assert session.handle is None
    assert not session.changes().any
    session["a"] = 1
    assert session.status is SessionStatus.MODIFIED
    assert changed(session) == {"a": 1}


def test_destroying_a_new_session_leaves_it_new() -> None:
    session = Session()
    session["a"] = 1
    session.invalidate()
    assert session.status is SessionStatus.NEW
    assert not session.changes().any


def test_regenerate_keeps_the_data_and_drops_the_handle() -> None:
    session = stored(a=1)
    session.regenerate()
    assert session.status is SessionStatus.MODIFIED
    assert session.handle is None
    assert session["a"] == 1
    assert (session.state.pending.retired, session.state.pending.carry) == (TOKEN, True)


def test_regenerate_after_clear_carries_nothing_over() -> None:
    session = stored(a=1)
    session.clear()
    session.regenerate()
    session["b"] = 2
    assert (session.state.pending.retired, session.state.pending.carry) == (TOKEN, False)
    assert changed(session) == {"b": 2}


def test_clear_after_regenerate_carries_nothing_over() -> None:
    session = stored(a=1)
    session.regenerate()
    session.clear()
    session["b"] = 2
    assert (session.state.pending.retired, session.state.pending.carry) == (TOKEN, False)
    assert changed(session) == {"b": 2}


def test_regenerate_after_destroy_carries_nothing_over() -> None:
    session = stored(a=1)
    session.destroy()
    session.regenerate()
    session.regenerate()
    assert (session.state.pending.retired, session.state.pending.carry) == (TOKEN, False)


def test_a_second_commit_writes_what_the_first_did_not() -> None:
    session = stored(a=1, b=2)
    session["a"] = [1]
    del session["b"]
    session.committed(TOKEN, session.changes())
    assert not session.changes().any
    session["a"].append(2)
    assert changed(session) == {"a": [1, 2]}


def test_subclasses_are_stored_as_their_base_type() -> None:
    class Text(str):
        pass

    class Numbers(list[int]):
        pass

    class Color(StrEnum):
        RED = "red"

    session = Session()
    session[Color.RED] = Numbers([1])
    session[Text("text")] = Text("text")
    assert changed(session) == {"red": [1], "text": "text"}
    assert [type(value) for value in changed(session).values()] == [list, str]


def test_a_value_that_cannot_be_stored_is_named_with_its_key() -> None:
    session = Session()
    session["cart"] = {"items": [object()]}
    with pytest.raises(InvalidValueError, match=r"'cart'.*\['items'\]\[0\].*object"):
        session.changes()


def test_a_key_that_cannot_be_stored_is_named() -> None:
    session = Session()
    session[1.5] = 1
    with pytest.raises(InvalidKeyError, match=r"float.*1\.5"):
        session.changes()


def test_a_value_that_is_too_large_is_named() -> None:
    session = Session()
    session["a"] = "x" * 100
    with pytest.raises(TooLargeError, match=r"'a'.*max_value is 50"):
        session.changes(50)
    assert session.changes(200)


def test_repr_shows_the_data_and_reads_nothing() -> None:
    session = stored(a=1)
    assert repr(session) == "<Session {'a': 1}>"
    assert session.status is SessionStatus.UNREAD
    assert TOKEN.text not in repr(session)
    assert TOKEN.text not in repr(session.state)
    assert TOKEN.secret.hex() not in repr(session.state)


def test_a_copy_is_plain_data() -> None:
    session = stored(a=[1])
    for twin in (copy.copy(session), copy.deepcopy(session), pickle.loads(pickle.dumps(session))):  # noqa: S301
        assert type(twin) is dict
        assert twin == {"a": [1]}


class Away(OldSystemError):
    """An error of an application's own, made of something else than its text."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(f"{host}:{port} is away")


def test_a_refusal_is_raised_as_it_is_at_each_use() -> None:
    state = State()
    state.refusal = Away("old", 80)
    session = Session(state)
    for use in (lambda: session["a"], lambda: session.identity, session.clear):
        with pytest.raises(Away, match="old:80 is away"):
            use()


def test_methods_of_a_log_in_are_not_shared_with_who_gave_them() -> None:
    methods: Any = ["pwd"]
    session = stored()
    session.login("ann", methods=methods)
    methods.append("otp")
    assert session.identity is not None
    assert session.identity.methods == ("pwd",)


def test_attributes_that_would_not_be_stored_are_refused() -> None:
    with pytest.raises(AttributeError):
        stored().user = "ann"  # type: ignore[attr-defined]


def test_another_mapping_is_adopted_and_no_mapping_is_not() -> None:
    session = stored(a=1, b=2)
    session.adopt(session)
    session.adopt(None)
    assert session.status is SessionStatus.UNREAD
    session.adopt({"a": 1, "c": 3})
    assert changed(session) == {"b": ..., "c": 3}


atoms = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(),
    st.binary(),
    st.decimals(allow_nan=False),
    st.uuids(),
    st.dates(),
    st.datetimes(timezones=st.just(UTC)),
    st.datetimes(),
    st.times(),
    st.timedeltas(),
)
hashable = st.one_of(st.text(), st.integers(), st.tuples(st.text(), st.integers()))
values = st.recursive(
    atoms,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.tuples(inner, inner),
        st.sets(hashable, max_size=4),
        st.frozensets(hashable, max_size=4),
        st.dictionaries(hashable, inner, max_size=4),
    ),
    max_leaves=12,
)


@given(values)
def test_reading_any_value_is_no_change(value: Any) -> None:
    session = stored(a=value)
    assert "a" in session
    assert not session.changes().any


def test_reading_values_of_every_type_is_no_change() -> None:
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    session = stored(
        a=moment, b=timedelta(1), c=Decimal("1.10"), d=UUID(int=1), e={1, 2}, f=(1, (2,)), g=2**70, h="é"
    )
    assert len(session) == 8
    assert not session.changes().any
