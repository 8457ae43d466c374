"""Every error Canister raises, in one tree.

::

    CanisterError
    ├── ConfigError             a setting is wrong; whoever configures must act
    ├── InputError              the caller passed something that cannot be stored
    │   ├── InvalidIdError
    │   ├── InvalidKeyError
    │   ├── InvalidValueError
    │   └── TooLargeError
    ├── SessionError            the session's own state forbids the call
    │   ├── SessionDestroyedError
    │   ├── SessionEndedError
    │   ├── SessionLockedError
    │   └── TooManySessionsError
    ├── AcknowledgementError    fewer members than asked for hold the write yet; it stands here
    ├── CannotTellError         this node may be behind and nobody could be asked
    ├── OldSystemError          a system that sessions move in from could not be asked
    ├── StoreError              the database cannot do its work
    │   ├── ForeignDatabaseError
    │   ├── NewerFormatError
    │   ├── CorruptDatabaseError
    │   ├── DiskFullError
    │   ├── StoreBusyError
    │   └── StoreUnavailableError
    ├── ClockError              this node's clock is too far from its peers'
    ├── MigrationError          what was asked for does not fit the step that a move of the sessions is at
    ├── ForkError               the store was in use while the process forked
    ├── AgentError              the node's agent did not answer
    │   └── ListenError         the agent cannot listen on its address
    └── ProtocolError           a peer sent what the protocol does not allow

An error raised because of another one keeps it as ``__cause__``.
"""


class CanisterError(Exception):
    """Base of all errors raised by Canister."""


class ConfigError(CanisterError, ValueError):
    """A setting, or a combination of settings, cannot work."""


class InputError(CanisterError, ValueError):
    """An argument cannot be stored; nothing was written."""


class InvalidIdError(InputError):
    """A session id is not a non-empty ``str`` or ``bytes`` of at most 512 bytes."""


class InvalidKeyError(InputError):
    """A key is not a ``str``, ``bytes``, ``int`` or a tuple of these, or is too long."""


class InvalidValueError(InputError, TypeError):
    """A value, or something nested in it, is of a type that cannot be stored."""


class TooLargeError(InputError):
    """A value or a whole session is larger than the configured limit."""


class SessionError(CanisterError):
    """The state of the session forbids the call; nothing was written."""


class SessionDestroyedError(SessionError):
    """The session was destroyed; as long as its tombstone lives its id cannot be used again."""


class SessionEndedError(SessionError):
    """The session is past its end; go on with a new id."""


class SessionLockedError(SessionError):
    """The session was idle for too long: the user has to prove to be there, then `Session.unlock`."""


class TooManySessionsError(SessionError):
    """The user has as many sessions as are allowed; none was made, the old ones stand."""


class CannotTellError(CanisterError):
    """This node may be behind, and nobody that could tell has answered; or the request is a late one."""


class OldSystemError(CanisterError):
    """A system that sessions move in from could not be asked; nobody was logged out, try again."""


class AcknowledgementError(CanisterError):
    """Fewer members than asked for hold the write durably; it stands here and still spreads.

    Attributes:
        holders: addresses of the members that hold it, as far as they are known by name.
        needed: how many were asked for.
        held: how many hold it.
        version: the version of the write.
    """

    def __init__(
        self, holders: list[str], needed: int, version: bytes, *, replicas: int | None = None
    ) -> None:
        self.holders = holders
        self.needed = needed
        self.version = version
        self.held = len(holders) + (replicas or 0)
        names = ", ".join(holders) or "nobody could be asked"
        if replicas is not None:
            names += f" with {replicas} replicas"
        super().__init__(
            f"{self.held} of the {needed} members asked for hold the write ({names}); it stands on "
            f"{'this node' if replicas is None else 'the master'} and spreads as the others come back"
        )


class StoreError(CanisterError):
    """The database refused or failed; the operation was rolled back."""


class ForeignDatabaseError(StoreError):
    """The database file was not made by Canister; it was left untouched."""


class NewerFormatError(StoreError):
    """The database was written by a newer release; it was left untouched."""


class CorruptDatabaseError(StoreError):
    """The database file is damaged or truncated; it was left untouched."""


class DiskFullError(StoreError):
    """The disk is full; the write was rolled back."""


class StoreBusyError(StoreError):
    """Another program holds the database locked, or others kept writing first."""


class StoreUnavailableError(StoreError):
    """No server answered within ``remote_timeout``; whether a write was stored is not known."""


class ClockError(CanisterError):
    """This node's clock differs too much from its peers'; writes wait until it is right."""


class MigrationError(CanisterError):
    """What was asked for does not fit the step that a move of the sessions is at."""


class ForkError(CanisterError):
    """The process forked while the store was in use; open it again in the child."""


class AgentError(CanisterError):
    """The agent of this node did not answer."""


class ListenError(AgentError):
    """The agent cannot listen on its address."""


class ProtocolError(CanisterError):
    """A peer, or a program that is none, sent what the protocol does not allow."""
