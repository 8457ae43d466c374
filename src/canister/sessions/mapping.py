"""The mapping half of a session: a dict that compares what it holds with what is stored."""

from collections.abc import Callable, Mapping
from copy import deepcopy
from functools import partial
from operator import is_
from typing import Any

from canister.codec import decode_value, encode_value, key_slot, slot_key
from canister.errors import InputError
from canister.record import KEY, Slot
from canister.sessions import counters
from canister.sessions.state import NO_CHANGES, NOTHING_PENDING, Changes, State, Update
from canister.sessions.token import Token
from canister.sizes import check_value

# The dict itself, past the methods that note an access.
_dict: Any = dict
_len, _keys, _values = _dict.__len__, _dict.keys, _dict.values
_set, _update = _dict.__setitem__, _dict.update


class _Refused:
    """The only key of a session that is refused: C code that looks past our methods stumbles over it."""

    def __repr__(self) -> str:
        return "refused"


class SessionData(dict[Any, Any]):
    """Keys and counters of one request's session, and what a commit has to write of them.

    Args:
        state: what the session manager found.
    """

    __slots__ = ("state",)

    def __init__(self, state: State | None = None) -> None:
        self.state = State() if state is None else state
        self._fill()

    def __repr__(self) -> str:
        return f"<Session {super().__repr__()}>"

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy is data, not a second session.
        self._use()
        return (dict, (dict(super().items()),))

    # What counts as a use of it.

    def mark_accessed(self) -> None:
        """Note that the response depends on the session; Starlette calls this for ``request.session``.

        It is no access that keeps the session from expiring: reading or writing a key is.
        """
        self.state.varies = True

    def mark_passive(self) -> None:
        """Let nothing that this request reads count as an access: for pages that poll by themselves."""
        self.state.passive = True

    def mark_active(self) -> None:
        """Let the request count as an access, whatever it reads."""
        self.state.read = True

    def peek(self, key: object, default: Any = None) -> Any:
        """Return the value of *key*, or *default*, without counting as an access."""
        self._check()
        self.mark_accessed()
        return super().get(key, default)

    # Keys.

    def clear(self) -> None:
        """Remove all keys and log the user out, also what other requests wrote before this one's commit.

        Raises:
            CanisterError: as every use of a session that is refused.
        """
        self.replace({})
        state = self.state
        if state.token is not None or state.doubt is not None or state.outlived is not None:
            state.ask(cleared=True)
        else:
            self._begin_anew()
        self._drop_pending()

    def replace(self, data: Mapping[Any, Any]) -> None:
        """Put *data* in place of all keys and values.

        Raises:
            CanisterError: as every use of a session that is refused.
        """
        self._check()
        self._put(data)

    def adopt(self, final: Mapping[Any, Any] | None) -> None:
        """Take over what the application left in the session's place, if it put another mapping there.

        Raises:
            CanisterError: as every use of a session that is refused.
        """
        if final is not self and isinstance(final, Mapping):
            self.replace(final)

    def forget_changes(self) -> None:
        """Be as loaded, or as last stored; a log-in, a log-out and a new id stand."""
        self.state.ask(
            facts={}, updates={}, increments={}, times=None, cleared=False, wanted=False, resend=False
        )
        self._refill()

    def update_key(self, key: object, function: Callable[[Any], Any], default: Any = None) -> Any:
        """Replace the value of *key* by what *function* makes of it; return the new value.

        Where another request has changed the key by the time of the commit, *function* runs again, on
        the value that is stored then: between the processes of a node no change is lost. Across a split
        the greatest version wins; to add up there, see `increment`.

        Args:
            key: the key.
            function: has no other effect, as it may run more than once.
            default: a copy of it is given to *function* where there is no value.

        Raises:
            InputError: the key or the new value cannot be stored.
        """
        self._use()
        state, slot = self.state, _slot(key)
        while True:
            commits, pending, stored = state.commits, state.pending, state.base.get(slot)
            update = pending.updates.get(slot)
            here = _encode(key, super().__getitem__(key)) if super().__contains__(key) else None
            value = function(super().__getitem__(key) if super().__contains__(key) else deepcopy(default))
            result = _encode(key, value)
            if update is not None and here == update.result:
                update = Update(slot, update.default, update.base, (*update.functions, function), result)
            elif here == stored and not pending.cleared:
                update = Update(slot, default, stored, (function,), result)
            with state.turn:
                if state.commits == commits:  # else another thread has stored some of it meanwhile
                    if update is not None:
                        state.ask(updates={**state.pending.updates, slot: update})
                    super().__setitem__(key, value)
                    return value

    def increment(self, key: object, by: int = 1) -> int:
        """Add to a counter; return its value. What both sides of a split add is added up.

        Counters are apart from the keys of the mapping: ``session[key]`` does not show them.

        Raises:
            InvalidKeyError: as for any key.
            InputError: *by* is not an int.
        """
        self._use()
        if type(by) is not int:
            raise InputError(f"a counter counts by an int, not by {by!r}")
        name, state = counters.counter_key(key), self.state
        with state.turn:
            increments = state.pending.increments
            state.ask(increments={**increments, name: increments.get(name, 0) + by})
            return self.count(key)

    def count(self, key: object) -> int:
        """Return the value of a counter, 0 if nothing was counted."""
        self._use()
        name, state = counters.counter_key(key), self.state
        with state.turn:
            return state.counts.get(name, 0) + state.pending.increments.get(name, 0)

    # For the session manager.

    def changes(self, most: int | None = None) -> Changes:
        """Return what a commit has to write.

        Args:
            most: the greatest encoded size of a value that is written; what is stored may be larger.

        Raises:
            InputError: a key or a value cannot be stored; the message names the key and the type.
        """
        state, pending = self.state, self.state.pending
        if not state.varies or state.refusal is not None or self.is_as_stored():
            return NO_CHANGES if pending is NOTHING_PENDING else Changes({}, asked=pending)
        items = list(super().items())  # at once: another task may add some meanwhile
        if state.pending is not NOTHING_PENDING:
            with state.turn:
                pending, items = state.pending, list(super().items())
        base: Mapping[Slot, bytes] = {} if pending.cleared else state.base
        fixed: Mapping[Any, object] = {} if pending.cleared else state.fixed
        writes: dict[Slot, bytes | None] = dict.fromkeys(base)  # whatever is not found below was removed
        for key, value in items:
            slot = _slot(key)
            data = base[slot] if fixed.get(key, fixed) is value else _encode(key, value)
            if data != base.get(slot):
                writes[slot] = check_value(data, key, most)
            else:
                writes.pop(slot, None)
        if pending is NOTHING_PENDING:
            return Changes(writes) if writes else NO_CHANGES
        updates = tuple(
            update
            for update in pending.updates.values()
            if writes.get(update.slot, base.get(update.slot)) == update.result
        )
        for update in updates:
            writes.pop(update.slot, None)
        late = tuple(
            partial(counters.increment, key=key, by=by, most=most) for key, by in pending.increments.items()
        )
        writes |= pending.facts
        return Changes(writes, updates, late, pending.cleared, pending.times, pending, {}, most)

    def committed(self, token: Token | None, changes: Changes) -> None:
        """Note that *changes* are stored now: a later commit writes what differs from them.

        What was asked for since they were worked out, by another task, is left to that commit as well.
        """
        with self.state.turn:
            self._note(token, changes)

    def _note(self, token: Token | None, changes: Changes) -> None:
        state, done = self.state, changes.asked
        state.commits += 1
        left = state.pending.since(done, changes.made)
        state.pending, state.glance, state.at = left, None, None
        state.stale = state.read = False
        if left.retired is not None:
            return  # given up meanwhile: what the session holds is the next one's
        base = {} if done.cleared else {**state.base}
        for slot, data in changes.writes.items():
            if data is None:
                base.pop(slot, None)
            elif slot[0] == KEY[0]:
                base[slot] = data
        base |= changes.made
        for update in changes.updates:
            self._show(update, changes.made[update.slot], left.updates.get(update.slot))
        state.base = base
        if done.increments:
            added = {key: state.counts.get(key, 0) + by for key, by in done.increments.items()}
            state.counts = {**state.counts, **added}
        if changes.any:
            state.fixed = {}
        state.token = token
        state.doubt = state.refusal = None

    def _show(self, update: Update, made: bytes, left: Update | None) -> None:
        """Show the value that an update has made of what was stored, if it is not the one shown before."""
        key = slot_key(update.slot)
        if left is not None:
            super().__setitem__(key, decode_value(left.result))
        elif (
            made != update.result
            and super().__contains__(key)
            and _encode(key, super().__getitem__(key)) == update.result
        ):
            super().__setitem__(key, decode_value(made))

    def _fill(self) -> None:
        """Take the keys from the record into an empty mapping, or be a session that is refused."""
        state, contents = self.state, self.state.contents
        state.base, state.fixed = contents.base, contents.fixed
        state.identity, state.counts, state.csrf = contents.identity, contents.counts, contents.csrf
        # Not put off until the first use: C code such as `json.dumps` looks past our methods.
        if state.refusal is None:
            _update(self, contents.values)
            for key, data in contents.loose:
                _set(self, key, decode_value(data))
        else:
            _set(self, _Refused(), None)

    def _refill(self) -> None:
        super().clear()
        self._fill()

    def is_as_stored(self) -> bool:
        """Tell at a glance that there is nothing to write; False where it takes a closer look.

        What most requests leave is the very values they were given, of types that do not change in place,
        in the same order.
        """
        state = self.state
        if state.pending is not NOTHING_PENDING:
            return False
        fixed = state.fixed
        return not state.varies or (
            _len(self) == len(fixed) == len(state.base)
            and all(map(is_, _keys(self), fixed))
            and all(map(is_, _values(self), fixed.values()))
        )

    def _check(self) -> None:
        refusal = self.state.refusal
        if refusal is not None:
            raise refusal.with_traceback(None)  # not grown at each use

    def _use(self) -> None:
        """Note an access that may change the session."""
        self._check()
        self.mark_accessed()
        self.state.read = True

    def _put(self, data: Mapping[Any, Any]) -> None:
        self.state.refusal = None  # nothing of what is refused is left to be seen
        self.state.locked = False
        self.mark_accessed()
        self.state.read = True
        data = dict(data)
        super().clear()
        super().update(data)

    def _retire(self) -> None:
        state = self.state
        state.ask(retired=state.pending.retired or state.token or state.doubt, cleared=False, facts={})
        state.token = state.doubt = state.outlived = state.csrf = None

    def _begin_anew(self) -> None:
        """Take nothing over from what was stored before."""
        self.state.ask(carry=False)
        self.state.base, self.state.fixed = {}, {}

    def _drop_pending(self) -> None:
        """Be as if nobody were logged in, and nothing counted."""
        state = self.state
        state.identity, state.counts = None, {}
        state.ask(logging_in=False, wanted=False, updates={}, increments={})


def _slot(key: object) -> Slot:
    # Frameworks use subclasses of str as keys; as keys of a dict they are equal to the plain text.
    return key_slot(str.__str__(key) if isinstance(key, str) else key)


def _encode(key: object, value: object) -> bytes:
    return encode_value(value, key, as_base=True)


_ACCESSES = (
    "__contains__ __delitem__ __eq__ __getitem__ __ior__ __iter__ __len__ __ne__ __or__ __reversed__ __ror__ "
    "__setitem__ copy get items keys pop popitem setdefault update values"
)


def _counted(name: str) -> Callable[..., Any]:
    """Return the dict's method, preceded by noting the access."""
    method = getattr(dict, name)

    def call(self: SessionData, *args: Any, **kwargs: Any) -> Any:
        state = self.state
        if state.refusal is not None:
            raise state.refusal.with_traceback(None)
        state.varies = state.read = True
        return method(self, *args, **kwargs)

    call.__name__ = name
    call.__doc__ = method.__doc__
    return call


# A dict subclass overrides each method by itself: none of dict's calls another one.
for _name in _ACCESSES.split():
    setattr(SessionData, _name, _counted(_name))
