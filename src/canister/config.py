"""Settings: one frozen value, read from arguments, ``CANISTER_*`` variables and ``canister.toml``."""

import contextlib
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, cast

from canister.addresses import check_dialable, is_loopback, parse_address, without_secrets
from canister.clock import micros
from canister.errors import ConfigError
from canister.presets import preset_named
from canister.variables import CONFIG, settings_in

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_LONGEST = timedelta(days=400)
"""No setting is longer: what is made of it has to fit a record."""
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|w)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Every setting of a node, its default and what changing it costs.

    Durations are `timedelta`; text such as ``"20m"`` (units ms, s, m, h, d, w) is taken as well, for settings
    that come from elsewhere. It is `load_config`, and so `Canister`, that looks at environment, file and
    preset: a `Config` that is made by itself has the preset's name alone.

    Sessions:
        session_timeout: idle timeout of new sessions. Longer keeps abandoned log-ins usable longer.
        absolute_lifetime: greatest age of a session, fixed at its creation; at most 400 days.
            Tombstones of destroyed sessions live as long.
        touch_interval: an access is recorded at most this often; a session may outlive its idle
            timeout by as much. None means a twentieth of the idle timeout. Shorter costs writes.
        grace_period: how long the data of an ended session is kept. Alike on all nodes: one that has a longer
            one may log out users that are active behind a split.
        lock_timeout: after this long without an access a session is locked rather than ended: its data
            is neither shown nor changed until the user has proved to be there (`Session.unlock`).
            Less than *session_timeout*; None: never.
        renewal_timeout: age at which a token's secret is replaced in use; None: never. Shorter gives a
            stolen token less time and costs a write each time.
        renewal_window: how long a replaced secret stays good if the new one does not show up; None: as
            long as *session_timeout*, so that an answer that was lost logs nobody out.
        preset: name of settings of `canister.presets.PRESETS` that stand where none is given.

    Store:
        durability: ``"normal"`` survives the death of any process; a power cut may lose about the last
            second, or all since the agent stopped. ``"full"`` survives that too, and every write waits for
            the disk.
        clear_interval: time between two sweeps. Sweeping frees space and changes nothing else.
        interval_jitter: each sweep is moved by up to this much, so that nodes do not sweep at once.
        max_value: greatest encoded size of one value, in bytes.
        max_session: greatest encoded size of one session, in bytes; a merge may exceed it.
        cache_size: bytes of memory in which each process keeps sessions that it has read or written; 0:
            none. A session of one key takes 2 kB, and 1.4 kB more where a session manager keeps with it what
            it has worked out of it, which is not counted. What does not fit is read from the database.
            Servers are asked each time.
        migrate_to: the data directory or the URL that the sessions are moving to; see `canister migrate`.
            A request then costs a read of both, and a round trip more for what it writes.

    Cluster:
        listen: ``"host:port"`` the agent takes connections on; None means this machine alone.
        advertise: ``"host:port"`` the other members dial this node at, and its name among them;
            *listen* by default. Needed if *listen* is a wildcard such as ``0.0.0.0:7400``.
        seeds: addresses of members to meet first; more are learned from them.
        tls_ca: file of the certificates of the authorities that peers' certificates may come from (PEM).
        tls_cert: file of this node's certificate, which names the cluster and the node's host. With the
            three files every link is mutual TLS; they are read again when they change.
        tls_key: file of the certificate's private key, without a passphrase.
        plain_tcp: allow links off the loopback without TLS. Everything on the wire can then be read
            and forged: for a private network only.
        cluster: name of the cluster; nodes of another name are refused.
        node_interval: within it a peer that falls silent is given up. Shorter notices sooner and
            mistakes a busy peer for a dead one more often.
        digest_interval: time between two comparisons with each peer. Shorter costs traffic.
        remote_timeout: how long a read waits for peers at the most.
        max_clock_drift: versions further ahead of the local clock are not shown yet, and a node
            whose clock is further off its peers' takes no writes.
        when_behind: what a read does that may be behind when no peer can tell: ``"serve"`` what is
            here or ``"refuse"`` with `CannotTellError`.
    """

    session_timeout: timedelta = timedelta(minutes=20)
    absolute_lifetime: timedelta = timedelta(days=30)
    touch_interval: timedelta | None = None
    grace_period: timedelta = timedelta(minutes=60)
    lock_timeout: timedelta | None = None
    renewal_timeout: timedelta | None = timedelta(hours=4)
    renewal_window: timedelta | None = None
    preset: str | None = None

    durability: Literal["normal", "full"] = "normal"
    clear_interval: timedelta = timedelta(minutes=60)
    interval_jitter: timedelta = timedelta(minutes=5)
    max_value: int = 256 * 1024
    max_session: int = 1024 * 1024
    cache_size: int = 64 * 1024 * 1024
    migrate_to: Path | str | None = None

    listen: str | None = None
    advertise: str | None = None
    seeds: tuple[str, ...] = ()
    tls_ca: Path | str | None = None
    tls_cert: Path | str | None = None
    tls_key: Path | str | None = None
    plain_tcp: bool = False
    cluster: str = "canister"
    node_interval: timedelta = timedelta(seconds=8)
    digest_interval: timedelta = timedelta(seconds=10)
    remote_timeout: timedelta = timedelta(seconds=2)
    max_clock_drift: timedelta = timedelta(seconds=60)
    when_behind: Literal["serve", "refuse"] = "serve"

    def __post_init__(self) -> None:
        for field in fields(self):
            object.__setattr__(self, field.name, _convert(field.name, getattr(self, field.name), "Config"))
        preset_named(self.preset)
        _check_durations(self)
        _check_store(self)
        _check_tls(self)
        _check_cluster(self)

    @property
    def address(self) -> str | None:
        """The address by which the other members know this node; None if it has none."""
        return self.listen if self.advertise is None else self.advertise

    @property
    def uses_tls(self) -> bool:
        """Tell whether links are mutual TLS."""
        return self.tls_ca is not None

    def __repr__(self) -> str:
        return f"<Config {self.summary()}>"

    def summary(self) -> str:
        """Return all settings on one line, for the log at start."""
        shown = {field.name: _show(getattr(self, field.name)) for field in fields(self)}
        shown["seeds"] = ",".join(self.seeds)
        shown["migrate_to"] = without_secrets(shown["migrate_to"])
        return " ".join(f"{name}={value}" for name, value in shown.items())


@dataclass(frozen=True, slots=True)
class Policy:
    """The times a new session is born with, in microseconds."""

    idle: int
    interval: int
    absolute: int
    grace: int
    drift: int
    fixed_interval: bool

    @classmethod
    def of(cls, config: Config) -> "Policy":
        """Return the times *config* sets."""
        fixed = config.touch_interval is not None or config.lock_timeout is not None
        idle = micros(config.session_timeout)
        shortest = idle if config.lock_timeout is None else micros(config.lock_timeout)
        return cls(
            idle=idle,
            interval=micros(config.touch_interval) if config.touch_interval is not None else shortest // 20,
            absolute=micros(config.absolute_lifetime),
            grace=micros(config.grace_period),
            drift=micros(config.max_clock_drift),
            fixed_interval=fixed,
        )

    def interval_for(self, idle: int) -> int:
        """Return the touch interval that goes with an idle timeout."""
        return self.interval if self.fixed_interval else idle // 20


def load_config(
    arguments: Mapping[str, Any],
    environ: Mapping[str, str] | None = None,
    file: Path | None = None,
) -> Config:
    """Return the settings: from *arguments*, else ``CANISTER_*`` variables, else ``canister.toml``.

    Args:
        arguments: settings by name; durations as `timedelta` or text.
        environ: the environment; ``os.environ`` by default.
        file: the file; ``$CANISTER_CONFIG`` or ``canister.toml`` in the working directory by default.

    Raises:
        ConfigError: an unknown name or an impossible value; the message names it and where it stood. A
            variable that is like none there is may be somebody else's: it is logged.
    """
    merged = stated_settings(arguments, environ, file)
    preset = preset_named(merged.get("preset"))
    merged |= {name: parse_duration(text) for name, text in preset.items() if name not in merged}
    return Config(**merged)


def stated_settings(
    arguments: Mapping[str, Any],
    environ: Mapping[str, str] | None = None,
    file: Path | None = None,
) -> dict[str, Any]:
    """Return the settings for which somebody gave a value; takes and raises what `load_config` does."""
    environ = os.environ if environ is None else environ
    merged: dict[str, Any] = {}
    sources = (
        ("canister.toml", _from_file(environ, file)),
        ("the environment", settings_in(environ, [field.name for field in fields(Config)])),
        ("the arguments", arguments),
    )
    for source, values in sources:
        for name, value in values.items():
            merged[name] = _convert(name, value, source)
    return merged


def parse_duration(value: object, name: str = "duration") -> timedelta:
    """Return a `timedelta` or a text such as ``"20m"`` or ``"1.5h"`` as a `timedelta`.

    Raises:
        ConfigError: *value* is neither.
    """
    if isinstance(value, timedelta):
        return value
    match = _DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ConfigError(f"{name} must be a timedelta or text such as '20m' or '1.5h', not {value!r}")
    try:
        return timedelta(seconds=float(match[1]) * _UNITS[match[2]])
    except OverflowError as error:
        raise ConfigError(f"{name} is too long: {value!r}") from error


def parse_switch(value: object, name: str) -> bool:
    """Return a bool, or the text or number of one such as ``"yes"`` or ``"0"``, as a bool.

    Raises:
        ConfigError: *value* is neither.
    """
    texts = {"true": True, "1": True, "yes": True, "on": True}
    texts |= {"false": False, "0": False, "no": False, "off": False}
    found = value if isinstance(value, bool) else texts.get(str(value).strip().lower())
    if found is None:
        raise ConfigError(f"{name} must be true or false, not {value!r}")
    return found


def _from_file(environ: Mapping[str, str], file: Path | None) -> Mapping[str, Any]:
    named = environ.get(CONFIG)
    path = file or Path(named or "canister.toml")
    if not path.exists():
        if file or named:
            raise ConfigError(f"the settings file {path} does not exist")
        return {}
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"the settings file {path} cannot be read: {error}") from error


def _convert(name: str, value: Any, source: str) -> Any:
    kinds = {field.name: field.type for field in fields(Config)}
    if name not in kinds:
        raise ConfigError(f"unknown setting {name!r} in {source}; the settings are: {', '.join(kinds)}")
    kind = kinds[name]
    if kind == timedelta | None and value in (None, "none"):
        return None
    if kind in (timedelta, timedelta | None):
        return parse_duration(value, name)
    if kind is int and type(value) is not int:
        return _whole_number(value, f"{name} in {source}")
    if kind is bool:
        return parse_switch(value, f"{name} in {source}")
    if name == "seeds":
        return _seeds(value, source)
    return value


def _whole_number(value: object, name: str) -> int:
    with contextlib.suppress(ValueError):  # Python reads some thousand digits at the most
        if isinstance(value, str) and value.strip().isdecimal():
            return int(value)
    raise ConfigError(f"{name} must be a whole number, not {value!r}")


def _seeds(value: object, source: str) -> tuple[str, ...]:
    parts: list[object] = []
    if isinstance(value, str):
        parts += value.split(",")
    elif isinstance(value, (list, tuple)):
        parts += cast("Sequence[object]", value)
    seeds = tuple(part.strip() for part in parts if isinstance(part, str))
    if len(seeds) != len(parts) or not isinstance(value, (str, list, tuple)):
        raise ConfigError(f"seeds in {source} must be a list of addresses, not {value!r}")
    return tuple(filter(None, seeds))


def _check_durations(config: Config) -> None:
    positive = ("session_timeout", "absolute_lifetime", "clear_interval", "node_interval", "digest_interval")
    for name in (*positive, "lock_timeout", "renewal_timeout", "renewal_window"):
        value = getattr(config, name)
        if value is not None and value <= timedelta(0):
            raise ConfigError(f"{name} must be more than zero, not {_show(getattr(config, name))}")
    for name in ("grace_period", "interval_jitter", "remote_timeout", "max_clock_drift"):
        if getattr(config, name) < timedelta(0):
            raise ConfigError(f"{name} must not be negative, it is {_show(getattr(config, name))}")
    if config.touch_interval is not None and config.touch_interval < timedelta(0):
        raise ConfigError(f"touch_interval must not be negative, it is {_show(config.touch_interval)}")
    for field in fields(config):
        value = getattr(config, field.name)
        if isinstance(value, timedelta) and value > _LONGEST:
            raise ConfigError(f"{field.name} is at most 400d, not {_show(value)}")
    if config.session_timeout > config.absolute_lifetime:
        raise ConfigError(
            f"session_timeout ({_show(config.session_timeout)}) is longer than "
            f"absolute_lifetime ({_show(config.absolute_lifetime)})"
        )
    if config.lock_timeout is not None and config.lock_timeout >= config.session_timeout:
        raise ConfigError(
            f"lock_timeout ({_show(config.lock_timeout)}) must be less than session_timeout "
            f"({_show(config.session_timeout)}): a session that has ended cannot be unlocked"
        )


def _check_store(config: Config) -> None:
    if config.durability not in ("normal", "full"):
        raise ConfigError(f"durability is 'normal' or 'full', not {config.durability!r}")
    if not 1 <= config.max_value <= config.max_session <= 4 * 1024 * 1024:
        raise ConfigError(
            f"max_value ({config.max_value}) must be at least 1 and at most max_session "
            f"({config.max_session}), which is at most 4194304"
        )
    if config.cache_size < 0:
        raise ConfigError(f"cache_size must not be negative, it is {config.cache_size}")


def _check_cluster(config: Config) -> None:
    if config.when_behind not in ("serve", "refuse"):
        raise ConfigError(f"when_behind is 'serve' or 'refuse', not {config.when_behind!r}")
    name: Any = config.cluster  # settings may come from a file
    if not isinstance(name, str) or not name.isprintable() or not 1 <= len(name.encode()) <= 64:
        raise ConfigError(f"cluster must be a name of 1 to 64 bytes, not {config.cluster!r}")
    for setting, value in (("seeds are", config.seeds), ("advertise is", config.advertise)):
        if value and config.listen is None:
            raise ConfigError(
                f"{setting} given without listen; set listen='host:port' so that peers can call back"
            )
    if config.listen is not None and config.grace_period < config.max_clock_drift:
        raise ConfigError(
            f"grace_period ({_show(config.grace_period)}) is shorter than max_clock_drift "
            f"({_show(config.max_clock_drift)}): a session in use on one node could be over on another"
        )
    if config.listen is not None:
        parse_address(config.listen)
        check_address(config, config.listen)
    for address in (*config.seeds, *([] if config.address is None else [config.address])):
        check_address(config, address)
        check_dialable(address)


def _check_tls(config: Config) -> None:
    files: dict[str, Any] = {name: getattr(config, name) for name in ("tls_ca", "tls_cert", "tls_key")}
    for name, file in files.items():
        if not isinstance(file, (str, Path, type(None))):
            raise ConfigError(f"{name} is the name of a file, not {file!r}")
    lacking = [name for name, file in files.items() if not file]
    if lacking and any(file is not None for file in files.values()):
        raise ConfigError(f"TLS takes tls_ca, tls_cert and tls_key; {' and '.join(lacking)} must be set too")
    if config.plain_tcp and config.uses_tls:
        raise ConfigError("plain_tcp and tls_ca exclude each other: links are mutual TLS or plain TCP")


def check_address(config: Config, address: str) -> None:
    """Refuse an address off the loopback where the settings do not allow links there.

    Raises:
        ConfigError: names both ways out.
    """
    if not (config.uses_tls or config.plain_tcp or is_loopback(address)):
        raise ConfigError(
            f"{address} is not on the loopback: links between machines need mutual TLS; set tls_ca, tls_cert "
            "and tls_key (see `canister certs`), or plain_tcp=True on a private network, where everything "
            "on the wire can be read and forged"
        )


def _show(value: Any) -> str:
    if isinstance(value, timedelta):
        return f"{value.total_seconds():.15g}s"
    return str(value)
