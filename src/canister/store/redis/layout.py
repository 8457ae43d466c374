"""How a session is laid out in Redis, and the script that writes it: bytes in, bytes out.

::

    {cluster}:{<session id>}    a hash of
        r        revision: the version of the commit that wrote it last
        f        format byte, then the encoded record without its cells
        <slot>   version of the cell, then "=" and the value; just the version where the key was removed

One key for a session, so that all of it is in one hash slot of a cluster; one field for each key of the
application, so that a commit sends what it changes. The key's time to live is the record's retention.
"""

from collections.abc import Iterable, Sequence
from hashlib import sha1
from typing import Any, NamedTuple
from urllib.parse import quote

import msgspec

from canister.codec import is_user_record_id
from canister.edits import LONGEST
from canister.errors import CorruptDatabaseError, NewerFormatError, ProtocolError
from canister.life import deadline, retention
from canister.record import (
    EMPTY,
    LATEST,
    VERSION_BYTES,
    Cell,
    Record,
    Slot,
    Version,
    decode_record,
    encode_record,
    stamp_of,
    versions,
)

_REVISION = b"r"
_FACTS = b"f"
_FORMAT = b"\x01"
_DAY = 86_400_000
_VALUE = b"="

Command = tuple[bytes | int | str, ...]
"""The words of one command."""

SCRIPT = b"""
local channel, at, plans, stale = ARGV[1], 2, {}, false
for number, key in ipairs(KEYS) do
  local plan = {seen = ARGV[at], revision = ARGV[at + 1], life = ARGV[at + 2], ends = ARGV[at + 3] == '1'}
  plan.drop, plan.put = tonumber(ARGV[at + 4]), tonumber(ARGV[at + 5])
  plan.from = at + 6
  at = plan.from + plan.drop + plan.put
  local present = redis.call('HGET', key, 'r') or ''
  if present == plan.revision then
    plan.drop, plan.put = 0, 0
  elseif present ~= plan.seen then
    stale = true
  end
  plans[number] = plan
end
local reply = {redis.call('TIME')}
if stale then
  for _, key in ipairs(KEYS) do reply[#reply + 1] = redis.call('HGETALL', key) end
  return reply
end
if redis.acl_check_cmd then
  for _, command in ipairs({{'HSET', KEYS[1], 'r', ''}, {'HDEL', KEYS[1], 'r'}, {'PEXPIRE', KEYS[1], 1}}) do
    if not redis.acl_check_cmd(unpack(command)) then
      return redis.error_reply('NOPERM a script needs the command ' .. command[1]:lower())
    end
  end
end
for number, key in ipairs(KEYS) do
  if plans[number].ends then redis.call('PUBLISH', channel, key) end
end
for number, key in ipairs(KEYS) do
  local plan = plans[number]
  local middle = plan.from + plan.drop
  for i = plan.from, middle - 1, 1000 do
    redis.call('HDEL', key, unpack(ARGV, i, math.min(i + 999, middle - 1)))
  end
  for i = middle, middle + plan.put - 1, 1000 do
    redis.call('HSET', key, unpack(ARGV, i, math.min(i + 999, middle + plan.put - 1)))
  end
  redis.call('PEXPIRE', key, plan.life)
end
return reply
"""
"""Writes sessions if each still has the revision that was seen, and says what it ends; returns the server's
time, and what there is if not. It asks first what the user may, as servers from 7.0 on tell, and speaks
before it writes: a user who may not makes it fail with nothing written, and nobody hears of it before it is
done. A commit whose reply was lost finds its own revision: it only renews
the life, so that waiting for replicas after it means something. Where others have written since, it finds
theirs; that it was written itself is then seen by the versions of what there is.
"""

SHA = sha1(SCRIPT, usedforsecurity=False).hexdigest().encode()


class Versioned(NamedTuple):
    """A session as it is on the server: its record, None if it is not there, and its revision."""

    record: Record | None
    revision: bytes


NOT_THERE = Versioned(None, b"")


class Write(NamedTuple):
    """What a commit does to one session."""

    session: bytes
    before: Versioned
    after: Record
    version: Version
    now: int

    @property
    def ends(self) -> bool:
        """Whether the session, or those of a user, may be over sooner than others believe."""
        before, after = self.before.record, self.after
        if before is None:
            return after.destroy is not None or is_user_record_id(self.session)
        return deadline(after) < deadline(before) or is_user_record_id(self.session)

    @property
    def written(self) -> Versioned:
        """The session once it is written."""
        return Versioned(self.after, self.version)


class Layout:
    """The keys of one cluster's sessions.

    Args:
        cluster: the cluster's name; sessions of another name can be on the same servers.
    """

    def __init__(self, cluster: str) -> None:
        self._prefix = f"{quote(cluster, safe='')}:{{".encode()
        self.pattern = self._prefix + b"*"
        self.channel = self._prefix[:-1] + b"ended"

    def key(self, session: bytes) -> bytes:
        """Return the key that holds a session."""
        return self._prefix + session + b"}"

    def session(self, key: bytes) -> bytes:
        """Return the session that a key holds."""
        return key[len(self._prefix) : -1]

    def user(self, user: bytes) -> bytes:
        """Return the key that lists a user's sessions; no session's key is like it."""
        return self._prefix[:-1] + b"user:" + sha1(user, usedforsecurity=False).hexdigest().encode()

    def try_to_speak(self) -> Command:
        """Return the command that says nothing on the channel; who may not is told so."""
        return (b"PUBLISH", self.channel, b"")

    def list_for(self, user: bytes, session: bytes, now: int) -> list[Command]:
        """Return the commands that list a session as a user's, from *now* (microseconds) on.

        They take out what no session outlives; the reply to the last is how many are listed.
        """
        key, life = self.user(user), LONGEST // 1000 + _DAY
        return [
            (b"ZADD", key, now, session),
            (b"ZREMRANGEBYSCORE", key, b"-inf", now - life * 1000),
            (b"PEXPIRE", key, life),
            (b"ZCARD", key),
        ]

    def load(self, session: bytes) -> Command:
        """Return the command that reads a session."""
        return self.load_key(self.key(session))

    def load_key(self, key: bytes) -> Command:
        """Return the command that reads the session that a key holds."""
        return (b"HGETALL", key)

    def commit(self, writes: Sequence[Write], *, whole: bool = False) -> Command:
        """Return the command that writes sessions.

        Args:
            writes: what to write.
            whole: send the script itself, to a server that does not know it yet.
        """
        words: list[bytes | int] = [len(writes), *(self.key(write.session) for write in writes), self.channel]
        for write in writes:
            words += _words(write)
        return (b"EVAL", SCRIPT, *words) if whole else (b"EVALSHA", SHA, *words)


def versioned(record: Record | None) -> Versioned:
    """Return a session that somebody has loaded before; its newest version is its revision."""
    return NOT_THERE if record is None else Versioned(record, max(versions(record), default=b""))


def as_it_is(write: Write, there: Versioned) -> Write:
    """Return a write to the same session that changes nothing, but renews its life."""
    return Write(write.session, there, there.record or EMPTY, Version(there.revision), write.now)


def read_hash(reply: Any) -> Versioned:
    """Return the session in a reply to HGETALL.

    Raises:
        CorruptDatabaseError: it is not what this module writes.
        NewerFormatError: a newer release wrote it.
    """
    if not reply:
        return NOT_THERE
    fields: dict[bytes, bytes] = dict(zip(reply[::2], reply[1::2], strict=True))
    revision, data = fields.pop(_REVISION, b""), fields.pop(_FACTS, b"")
    if data and not data.startswith(_FORMAT):
        raise NewerFormatError("a session on the server was written by a newer release; update this one")
    try:
        facts = decode_record(data[len(_FORMAT) :])
    except ProtocolError as error:
        raise CorruptDatabaseError(f"a session's key on the server holds something else: {error}") from error
    cells = {Slot(name): _read_cell(data) for name, data in sorted(fields.items())}
    return Versioned(msgspec.structs.replace(facts, cells=cells), _read_version(revision))


def is_written(reply: Any) -> bool:
    """Tell whether the script has written, by its reply."""
    return len(reply) == 1


def read_present(reply: Any) -> list[Versioned]:
    """Return what the script has found in place of what was seen."""
    return [read_hash(part) for part in reply[1:]]


def read_time(reply: Any) -> int:
    """Return a reply to TIME as microseconds since 1970 UTC."""
    seconds, micros = reply
    return int(seconds) * 1_000_000 + int(micros)


def _words(write: Write) -> list[bytes | int]:
    """Return what the script has to know about one session."""
    before, after = write.before.record or EMPTY, write.after
    gone = [slot for slot in before.cells if slot not in after.cells]
    put: list[bytes] = [_REVISION, write.version]
    facts = _facts(after)
    if write.before.record is None or facts != _facts(before):
        put += (_FACTS, facts)
    for slot, cell in _changed(before, after):
        put += (slot, cell.version if cell.value is None else cell.version + _VALUE + cell.value)
    life = max(1, -((write.now - retention(after)) // 1000))
    return [write.before.revision, write.version, life, int(write.ends), len(gone), len(put), *gone, *put]


def _facts(record: Record) -> bytes:
    return _FORMAT + encode_record(msgspec.structs.replace(record, cells={}))


def _changed(before: Record, after: Record) -> Iterable[tuple[Slot, Cell]]:
    return ((slot, cell) for slot, cell in after.cells.items() if before.cells.get(slot) != cell)


def _read_version(data: bytes) -> Version:
    version = Version(data)
    if len(version) != VERSION_BYTES or stamp_of(version) >= LATEST:
        raise CorruptDatabaseError("a session's key on the server holds something else than a session")
    return version


def _read_cell(data: bytes) -> Cell:
    version, value = _read_version(data[:VERSION_BYTES]), data[VERSION_BYTES:]
    if value and not value.startswith(_VALUE):
        raise CorruptDatabaseError("a session's key on the server holds something else than a session")
    return Cell(version, value[len(_VALUE) :] if value else None)
