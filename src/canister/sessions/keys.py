"""The secret keys: which there are, and what is derived from each.

The first key signs and hashes; all of them verify. A key that is replaced stays listed, behind the new
one, for one absolute lifetime: until then there may be tokens that name it.
"""

import os
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

from canister.errors import ConfigError

NUMBER_BYTES = 3
MAC_BYTES = 16

VARIABLE = "CANISTER_SECRET_KEYS"
_FILE = "secret.key"
_LEAST_LENGTH = 32
_LEAST_DISTINCT = 8
_HOW = 'make one with: python -c "import secrets; print(secrets.token_urlsafe(48))"'


class Key:
    """One secret key: a number that names it, MACs of tokens and seen cookies, and a keyed hash.

    Args:
        text: the secret as configured.

    Raises:
        ConfigError: the text is too short, or too regular, to be a secret.
    """

    def __init__(self, text: str) -> None:
        _check(text)
        root = blake2b(text.encode(), digest_size=64, person=b"canister.key").digest()
        self.number = blake2b(key=root, digest_size=NUMBER_BYTES, person=b"canister.number").digest()
        # One key for each use: what one of them gives away says nothing of the others.
        self._mac_key = blake2b(key=root, digest_size=32, person=b"canister.mac").digest()
        self._hash_key = blake2b(key=root, digest_size=32, person=b"canister.hash").digest()
        self._renewal_key = blake2b(key=root, digest_size=32, person=b"canister.renewal").digest()
        self._seen_key = blake2b(key=root, digest_size=32, person=b"canister.stamp").digest()
        self._csrf_key = blake2b(key=root, digest_size=32, person=b"canister.csrf").digest()

    def __repr__(self) -> str:
        return f"<Key {self.number.hex()}>"

    def mac(self, data: bytes) -> bytes:
        """Return the message authentication code of *data*."""
        return blake2b(data, key=self._mac_key, digest_size=MAC_BYTES).digest()

    def mac_seen(self, id: bytes, data: bytes) -> bytes:
        """Return the message authentication code of what was seen of the session *id*, 16 bytes."""
        return blake2b(id + data, key=self._seen_key, digest_size=MAC_BYTES).digest()

    def next_secret(self, id: bytes, secret: bytes) -> bytes:
        """Return the secret that follows *secret*, 32 bytes; only whoever has this key can tell it."""
        return blake2b(id + secret, key=self._renewal_key, digest_size=32).digest()

    def csrf_secret(self, id: bytes) -> bytes:
        """Return what the forms of the session *id* carry, 32 bytes."""
        return blake2b(id, key=self._csrf_key, digest_size=32).digest()

    def hash_secret(self, id: bytes, secret: bytes) -> bytes:
        """Return what is stored in place of a session's secret."""
        return blake2b(id + secret, key=self._hash_key, digest_size=32).digest()


class KeyRing:
    """All keys of a node, the signing one first.

    Args:
        texts: the secrets as configured.

    Raises:
        ConfigError: there is none, or one cannot be used.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        try:
            listed = dict.fromkeys(texts)
        except TypeError as error:
            kind = type(texts).__name__
            raise ConfigError(f"secret_keys is a text or a list of texts, not {kind}") from error
        keys = [Key(text) for text in listed]
        if not keys:
            raise ConfigError(f"the list of secret keys is empty; {_HOW}")
        self._keys = {key.number: key for key in keys}
        if len(self._keys) < len(keys):
            raise ConfigError("two secret keys have the same number by chance; replace one of them")
        self.current = keys[0]

    def __repr__(self) -> str:
        return f"<KeyRing {' '.join(self.fingerprints)}>"

    def __iter__(self) -> Iterator[Key]:
        return iter(self._keys.values())

    @property
    def fingerprints(self) -> list[str]:
        """The numbers of all keys in hex, the signing one first. They are no secret."""
        return [number.hex() for number in self._keys]

    def find(self, number: bytes) -> Key | None:
        """Return the key of that number."""
        return self._keys.get(number)


def find_keys(
    configured: str | Sequence[str] | None,
    directory: Path | None,
    *,
    clustered: bool,
    environ: Mapping[str, str] | None = None,
) -> KeyRing:
    """Return the keys: as configured, else of ``CANISTER_SECRET_KEYS``, else of a file this makes.

    Args:
        configured: one key or several; None to look elsewhere.
        directory: the data directory of the node; None where the sessions are on servers.
        clustered: whether other nodes have to verify what this one signs.
        environ: the environment; ``os.environ`` by default.

    Raises:
        ConfigError: others must verify what is signed here and no key is configured, or a key cannot be
            used.
    """
    if configured is not None:
        return KeyRing([configured] if isinstance(configured, str) else configured)
    listed = (os.environ if environ is None else environ).get(VARIABLE)
    if listed is not None:
        return KeyRing(text.strip() for text in listed.split(",") if text.strip())
    if directory is None:
        raise ConfigError(
            f"the sessions are shared, and no secret key is configured: set {VARIABLE} (or secret_keys=) to "
            f"the same value in all processes; {_HOW}"
        )
    file = directory / _FILE
    if clustered:
        have = f", or use the one in {file} to keep the sessions there are" if file.exists() else ""
        raise ConfigError(
            f"this node listens for peers, and no secret key is configured: set {VARIABLE} (or secret_keys=) "
            f"to the same value on all nodes; {_HOW}{have}"
        )
    return KeyRing([_read_or_make(file)])


def _read_or_make(file: Path) -> str:
    try:
        if not file.exists():
            _make(file)
        if file.stat().st_mode & 0o077:
            raise ConfigError(f"{file} can be read by others; run: chmod 600 {file}")
        return file.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the secret key in {file} cannot be read or made: {error}") from error


def _make(file: Path) -> None:
    """Write the key beside its place and link it there: of two processes that do, one wins."""
    draft = file.with_name(f"{_FILE}.{secrets.token_hex(8)}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w") as handle:
        handle.write(secrets.token_urlsafe(48) + "\n")
        handle.flush()
        os.fsync(handle.fileno())
    try:
        file.hardlink_to(draft)
    except FileExistsError:
        pass  # the other one's key is as good, and may be in use already
    finally:
        draft.unlink()


def _check(text: Any) -> None:
    if not isinstance(text, str):  # settings may come from a file
        raise ConfigError(f"a secret key is a text, not of type {type(text).__name__}")
    try:
        text.encode()
    except UnicodeEncodeError as error:  # bytes of the environment that are no text
        raise ConfigError(f"a secret key is a text in UTF-8, this one is none; {_HOW}") from error
    if len(text) < _LEAST_LENGTH:
        raise ConfigError(
            f"a secret key has at least {_LEAST_LENGTH} characters, this one has {len(text)}; {_HOW}"
        )
    if len(set(text)) < _LEAST_DISTINCT:
        raise ConfigError(f"a secret key has only {len(set(text))} different characters; {_HOW}")
