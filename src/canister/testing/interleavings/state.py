"""Copying a running replica, and telling whether two of them are in the same state.

Both walk whatever the objects hold, so that a field added to the replication is copied and compared
without being named here; a kind of value that is not known stops the walk.
"""

import threading
from collections import deque
from collections.abc import Hashable
from random import Random
from types import FunctionType, MethodType
from typing import Any, TypeGuard

import msgspec

from canister.config import Config
from canister.replication.digests import DigestTree
from canister.replication.healing import HealLog
from canister.store.memory import MemoryStore
from canister.store.transaction import Scope
from canister.testing.clock import ManualClock

_ATOMS = (int, bytes, str, float, bool, type(None))
_LEFT_OUT = {"entries", "exchanged"}
"""A store's log, and what the code counts and never reads."""
_Several = list[Any] | set[Any] | deque[Any] | tuple[Any, ...]


class Chance(Random):
    """Chance that always falls the same way."""

    def random(self) -> float:
        """Return the middle."""
        return 0.5

    def getrandbits(self, k: int, /) -> int:
        """Return zeros."""
        return 0


class Shared:
    """What all copies of a node act through; it has no state that outlives a step."""


_SHARED = (Config, Scope, ManualClock, Chance, Shared, type(threading.RLock()))
_UNCHANGING = (*_ATOMS, *_SHARED, tuple)
_unchanging: dict[type, bool] = {}
"""What was found out about each type."""
_CONSTANT = (*_SHARED, MethodType, FunctionType, HealLog)  # a heal's report decides nothing


def copy(value: Any, memo: dict[int, Any]) -> Any:
    """Return a copy of an object that shares nothing mutable with it but what is `Shared`."""
    if _never_changes(value):
        return value
    if id(value) in memo:
        return memo[id(value)]
    if isinstance(value, msgspec.Struct):
        return _copy_struct(value, memo)
    if isinstance(value, MethodType):
        return MethodType(value.__func__, copy(value.__self__, memo))
    if isinstance(value, FunctionType):
        return _checked(value)
    # What two objects share, such as the links of a node, their copies share as well.
    if _is_dict(value):
        fresh = memo[id(value)] = _copy_dict(value, memo)
        return fresh
    if _is_several(value):
        several = memo[id(value)] = _copy_several(value, memo)
        return several
    return _copy_object(value, memo)


def freeze(value: Any, seen: set[int]) -> Any:
    """Return a hashable value, equal for objects that will do the same from now on.

    Of a store's log only what replication has not taken in counts: that is for the caller to add.
    """
    if _is_one_of(_ATOMS, value):
        return value
    if _is_one_of(_CONSTANT, value) or id(value) in seen:
        return None
    if isinstance(value, msgspec.Struct):
        return msgspec.msgpack.encode(value)
    if _is_several(value):
        return _freeze_several(value, seen)
    if _is_dict(value):
        return _freeze_dict(value, seen)
    return _freeze_object(value, seen)


def _never_changes(value: object) -> bool:
    kind = type(value)
    known = _unchanging.get(kind)
    if known is None:
        frozen = isinstance(value, msgspec.Struct) and value.__struct_config__.frozen
        known = _unchanging[kind] = frozen or _is_one_of(_UNCHANGING, value)
    return known


def _is_one_of(kinds: tuple[type, ...], value: object) -> bool:
    return isinstance(value, kinds)


def _is_dict(value: object) -> TypeGuard[dict[Any, Any]]:
    return isinstance(value, dict)


def _is_several(value: object) -> TypeGuard[_Several]:
    return isinstance(value, list | set | deque | tuple)


def _copy_object(value: object, memo: dict[int, Any]) -> object:
    _check_known(value)
    fresh = memo[id(value)] = object.__new__(type(value))
    if isinstance(value, DigestTree):
        vars(fresh).update(vars(value), _levels=[level.copy() for level in vars(value)["_levels"]])
    else:
        vars(fresh).update(_copy_dict(vars(value), memo))
    return fresh


def _copy_struct(value: msgspec.Struct, memo: dict[int, Any]) -> msgspec.Struct:
    parts = {name: copy(getattr(value, name), memo) for name in value.__struct_fields__}
    return msgspec.structs.replace(value, **parts)


def _copy_dict(value: dict[Any, Any], memo: dict[int, Any]) -> dict[Any, Any]:
    return {k: v if _never_changes(v) else copy(v, memo) for k, v in value.items()}


def _copy_several(value: _Several, memo: dict[int, Any]) -> _Several:
    items = (copy(item, memo) for item in value)
    return deque(items, value.maxlen) if isinstance(value, deque) else type(value)(items)


def _freeze_object(value: object, seen: set[int]) -> Hashable:
    _check_known(value)
    seen.add(id(value))
    if isinstance(value, DigestTree):
        return value.root(), value.applied, vars(value)["_horizon"]
    return tuple([freeze(item, seen) for name, item in vars(value).items() if name not in _LEFT_OUT])


def _freeze_dict(value: dict[Any, Any], seen: set[int]) -> frozenset[Any]:
    return frozenset([(key, freeze(item, seen)) for key, item in value.items()])


def _freeze_several(value: _Several, seen: set[int]) -> Hashable:
    items = [freeze(item, seen) for item in value]
    return frozenset(items) if isinstance(value, set) else tuple(items)


def _check_known(value: object) -> None:
    kind = type(value)
    if kind is not MemoryStore and not kind.__module__.startswith("canister.replication."):
        raise TypeError(f"cannot tell what the state of a {kind.__qualname__} is")


def _checked(function: FunctionType) -> FunctionType:
    """Return a function as it is: that is right only if what it holds on to is shared."""
    for cell in function.__closure__ or ():
        if not isinstance(cell.cell_contents, _UNCHANGING):
            raise TypeError(f"{function.__qualname__} holds on to a {type(cell.cell_contents).__qualname__}")
    return function
