"""The session of one request: a dict that knows what became of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from canister.codec import decode_value, encode_value, key_slot, slot_key
from canister.errors import CannotTellError, TooLargeError
from canister.freshness import Stamp
from canister.record import KEY, Record, Slot
from canister.sessions.outcome import Outcome
from canister.sessions.token import Token


class SessionStatus(StrEnum):
    """What a request has done with its session so far."""

    NEW = "new"
    UNREAD = "unread"
    READ = "read"
    MODIFIED = "modified"
    DESTROYED = "destroyed"


@dataclass(slots=True)
class State:
    """The session manager's book-keeping of one session.

    Attributes:
        token: the good token the client showed; None in a session that is not stored.
        record: the session as loaded.
        doubt: a token of which this node cannot tell whether its session exists.
        stale: whether the client shows a token that is surely no good and should be taken away.
        retired: the token whose session the commit destroys.
        carry: whether the new session takes over what the retired one holds.
        cleared: whether the commit hides everything written before.
        seen: whether the response depends on the session.
        read: whether the request counts as an access.
        base: the encoded values as stored.
        refusal: what every use of the session raises `CannotTellError` with.
        behind: whether the client has seen newer state than what is here.
        lacking: what it has seen that may be missing here.
        shown: what it has seen, by the stamp it carries.
        restamp: whether that stamp is to be replaced even if it covers what was served.
        carries_stamp: whether the client carries a stamp, good or not.
        served: what it has seen after this request; None until something was written.
        outcome: what the last commit has to tell the client.
    """

    token: Token | None = None
    record: Record | None = None
    doubt: Token | None = None
    stale: bool = False
    retired: Token | None = None
    carry: bool = False
    cleared: bool = False
    seen: bool = False
    read: bool = False
    base: dict[Slot, bytes] = field(default_factory=dict[Slot, bytes])
    refusal: str | None = None
    behind: bool = False
    lacking: Stamp = ()
    shown: Stamp = ()
    restamp: bool = False
    carries_stamp: bool = False
    served: Stamp | None = None
    outcome: Outcome | None = None


class _Refused:
    """The only key of a session that is refused: C code that looks past our methods stumbles over it."""

    def __repr__(self) -> str:
        return "refused"


class Session(dict[Any, Any]):
    """A mapping of the session's keys to their values; the commit stores what differs.

    Nested values may be changed in place: the commit compares encoded bytes.

    Args:
        state: what the session manager found.
    """

    __slots__ = ("state",)

    def __init__(self, state: State | None = None) -> None:
        self.state = state or State()
        cells = self.state.record.cells if self.state.record else {}
        base = {s: c.value for s, c in cells.items() if s[0] == KEY[0] and c.value is not None}
        self.state.base = base
        # Not put off until the first use: C code such as `json.dumps` looks past our methods.
        super().__init__((slot_key(slot), decode_value(value)) for slot, value in base.items())
        if self.state.refusal is not None:
            super().__setitem__(_Refused(), None)

    def __repr__(self) -> str:
        return f"<Session {super().__repr__()}>"

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy is data, not a second session.
        self._check()
        return (dict, (dict(super().items()),))

    @property
    def handle(self) -> str | None:
        """The stored session's id as text, no secret: for logs and lists. None before it is stored."""
        return self.state.token.handle if self.state.token else None

    @property
    def cannot_tell(self) -> bool:
        """Whether the client may have a session, or newer state of it, that this node cannot get now.

        An empty session with this set is not "no session": do not send the user to the log-in for it.
        """
        return self.state.doubt is not None or self.state.behind

    @property
    def is_behind(self) -> bool:
        """Whether what is here may be older than what the client has seen; no member could tell."""
        return self.state.behind

    @property
    def status(self) -> SessionStatus:
        """What the request has done with the session so far."""
        state = self.state
        if state.retired is not None and not state.carry and not super().__len__():
            return SessionStatus.DESTROYED
        if state.token is None and state.retired is None:
            return SessionStatus.NEW
        if state.retired is not None or state.cleared or self.changes():
            return SessionStatus.MODIFIED
        return SessionStatus.READ if state.read else SessionStatus.UNREAD

    def mark_accessed(self) -> None:
        """Note that the response depends on the session; Starlette calls this for ``request.session``.

        It is no access that keeps the session from expiring: reading or writing a key is.
        """
        self.state.seen = True

    def peek(self, key: object, default: Any = None) -> Any:
        """Return the value of *key*, or *default*, without counting as an access."""
        self._check()
        self.mark_accessed()
        return super().get(key, default)

    def clear(self) -> None:
        """Remove all keys, also those that other requests have written before this one's commit.

        Raises:
            CannotTellError: as every use of a session that is refused.
        """
        self.replace({})
        if self.state.token is not None:
            self.state.cleared = True
        else:
            self._forsake()

    def destroy(self) -> None:
        """End the session for good, as at log-out; keys set afterwards go into a new one."""
        self._retire()
        self._forsake()
        self._put({})

    invalidate = destroy

    def regenerate(self) -> None:
        """Go on under a new id and destroy the old one: to be called at every change of privilege.

        Where the session is refused, the new one takes nothing over.
        """
        if self.state.refusal is not None:
            self._put({})
        self.mark_accessed()
        if self.state.cleared:
            self._forsake()
        elif self.state.token is not None:
            self.state.carry = True
        self._retire()

    def adopt(self, final: Mapping[Any, Any] | None) -> None:
        """Take over what the application left in the session's place, if it put another mapping there."""
        if final is not self and isinstance(final, Mapping):
            self._put(final)

    def replace(self, data: Mapping[Any, Any]) -> None:
        """Put *data* in place of all keys and values.

        Raises:
            CannotTellError: as every use of a session that is refused.
        """
        self._check()
        self._put(data)

    def _check(self) -> None:
        if self.state.refusal is not None:
            raise CannotTellError(self.state.refusal)

    def _put(self, data: Mapping[Any, Any]) -> None:
        self.state.refusal = None  # nothing of what is refused is left to be seen
        self.mark_accessed()
        self.state.read = True
        data = dict(data)
        super().clear()
        super().update(data)

    def changes(self, most: int | None = None) -> dict[Slot, bytes | None]:
        """Return what a commit has to write: encoded values by slot, None for removed keys.

        Args:
            most: the greatest encoded size of a value.

        Raises:
            InputError: a key or a value cannot be stored; the message names the key and the type.
        """
        state = self.state
        if not state.seen or state.refusal is not None:
            return {}
        base = {} if state.cleared else state.base
        values = {_slot(key): _encode(key, value, most) for key, value in super().items()}
        changed: dict[Slot, bytes | None] = {s: data for s, data in values.items() if base.get(s) != data}
        changed.update((slot, None) for slot in base if slot not in values)
        return changed

    def committed(self, token: Token | None, changes: dict[Slot, bytes | None]) -> None:
        """Note that *changes* are stored now: a later commit writes what differs from them."""
        state = self.state
        base: dict[Slot, bytes | None] = {} if state.cleared else {**state.base}
        state.base = {slot: data for slot, data in (base | changes).items() if data is not None}
        state.token = token
        state.doubt = state.retired = state.refusal = None
        state.carry = state.cleared = state.stale = state.read = False

    def _retire(self) -> None:
        state = self.state
        state.retired = state.retired or state.token or state.doubt
        state.token = state.doubt = None
        state.cleared = False

    def _forsake(self) -> None:
        """Take nothing over from what was stored before."""
        self.state.carry = False
        self.state.base = {}


def _slot(key: object) -> Slot:
    # Frameworks use subclasses of str as keys; as keys of a dict they are equal to the plain text.
    return key_slot(str.__str__(key) if isinstance(key, str) else key)


def _encode(key: object, value: object, most: int | None) -> bytes:
    data = encode_value(value, key, as_base=True)
    if most is not None and len(data) > most:
        raise TooLargeError(
            f"the value of key {key!r} has {len(data)} bytes, max_value is {most}; nothing was written"
        )
    return data


_ACCESSES = (
    "__contains__ __delitem__ __eq__ __getitem__ __ior__ __iter__ __len__ __ne__ __or__ __reversed__ __ror__ "
    "__setitem__ copy get items keys pop popitem setdefault update values"
)


def _counted(name: str) -> Callable[..., Any]:
    """Return the dict's method, preceded by noting the access."""
    method = getattr(dict, name)

    def call(self: Session, *args: Any, **kwargs: Any) -> Any:
        if self.state.refusal is not None:
            raise CannotTellError(self.state.refusal)
        self.mark_accessed()
        self.state.read = True
        return method(self, *args, **kwargs)

    call.__name__ = name
    call.__doc__ = method.__doc__
    return call


# A dict subclass overrides each method by itself: none of dict's calls another one.
for _name in _ACCESSES.split():
    setattr(Session, _name, _counted(_name))
