import inspect
from collections.abc import Mapping
from dataclasses import FrozenInstanceError, fields
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from canister import variables
from canister.addresses import is_loopback, parse_address
from canister.config import Config, Policy, load_config, parse_duration
from canister.errors import ConfigError
from canister.sessions import ManagerOptions
from canister.sessions.keys import VARIABLE

MINUTE = 60_000_000


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return a settings file."""
    path = tmp_path / "canister.toml"
    path.write_text('session_timeout = "1m"\ngrace_period = "1m"\nclear_interval = "1m"\n')
    return path


def load(environ: Mapping[str, str] | None = None, **arguments: Any) -> Config:
    return load_config(arguments, environ or {})


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in a directory without a settings file."""
    monkeypatch.chdir(tmp_path)


def test_defaults() -> None:
    """Without any source the settings are the documented defaults."""
    assert load() == Config()
    assert Config().session_timeout == timedelta(minutes=20)
    assert Config().absolute_lifetime == timedelta(days=30)


def test_arguments_before_environment_before_file(file: Path) -> None:
    """Arguments win over the environment, which wins over the file, each setting by itself."""
    environ = {"CANISTER_SESSION_TIMEOUT": "2m", "CANISTER_GRACE_PERIOD": "2m", "OTHER": "x"}
    config = load_config({"session_timeout": "3m"}, environ, file)
    assert config.session_timeout == timedelta(minutes=3)
    assert config.grace_period == timedelta(minutes=2)
    assert config.clear_interval == timedelta(minutes=1)
    assert config.remote_timeout == Config().remote_timeout


def test_file_of_the_working_directory(file: Path) -> None:
    """A canister.toml in the working directory is read without being named."""
    assert load().session_timeout == timedelta(minutes=1)


def test_file_named_in_the_environment(tmp_path: Path) -> None:
    """CANISTER_CONFIG names another file."""
    other = tmp_path / "other.toml"
    other.write_text('seeds = ["127.0.0.1:1"]\nlisten = "[::1]:2"\nmax_value = 7\n')
    config = load({"CANISTER_CONFIG": str(other)})
    assert (config.seeds, config.listen, config.max_value) == (("127.0.0.1:1",), "[::1]:2", 7)


def test_real_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a mapping the process's own environment is read."""
    monkeypatch.setenv("CANISTER_CLUSTER", "shop")
    assert load_config({}).cluster == "shop"


def test_environment_converts_text() -> None:
    """Numbers, durations and lists are read from the text of a variable."""
    config = load(
        {
            "CANISTER_MAX_VALUE": " 4096 ",
            "CANISTER_TOUCH_INTERVAL": "30s",
            "CANISTER_SEEDS": "127.0.0.1:1, localhost:2,",
            "CANISTER_LISTEN": "127.0.0.1:3",
            "CANISTER_DURABILITY": "full",
        }
    )
    assert config.max_value == 4096
    assert config.touch_interval == timedelta(seconds=30)
    assert config.seeds == ("127.0.0.1:1", "localhost:2")
    assert config.durability == "full"


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("5ms", timedelta(milliseconds=5)),
        ("0s", timedelta(0)),
        (" 8s ", timedelta(seconds=8)),
        ("20m", timedelta(minutes=20)),
        ("1.5h", timedelta(minutes=90)),
        ("2 d", timedelta(days=2)),
        ("1w", timedelta(weeks=1)),
        (timedelta(hours=1), timedelta(hours=1)),
    ],
)
def test_units(text: Any, duration: timedelta) -> None:
    """Durations are timedeltas, or text with a unit."""
    assert parse_duration(text) == duration


@pytest.mark.parametrize("bad", ["20", "", "m", "-5m", "5 minutes", "1h30m", "1e3s", "5M", 20, 1.5, None])
def test_no_durations(bad: Any) -> None:
    """Text without a unit, a bare number and the rest are refused with name and value."""
    with pytest.raises(ConfigError) as caught:
        load(grace_period=bad)
    assert "grace_period" in str(caught.value)
    assert repr(bad) in str(caught.value)


BAD = [
    ({"session_timeout": "0s"}, "session_timeout must be more than zero, not 0s"),
    ({"absolute_lifetime": timedelta(-1)}, "absolute_lifetime must be more than zero, not -86400s"),
    ({"clear_interval": "0s"}, "clear_interval must be more than zero, not 0s"),
    ({"node_interval": "0s"}, "node_interval must be more than zero, not 0s"),
    ({"digest_interval": "0s"}, "digest_interval must be more than zero, not 0s"),
    ({"grace_period": timedelta(seconds=-1)}, "grace_period must not be negative, it is -1s"),
    ({"interval_jitter": timedelta(seconds=-1)}, "interval_jitter must not be negative, it is -1s"),
    ({"remote_timeout": timedelta(seconds=-2)}, "remote_timeout must not be negative, it is -2s"),
    ({"max_clock_drift": timedelta(seconds=-1)}, "max_clock_drift must not be negative, it is -1s"),
    ({"touch_interval": timedelta(seconds=-3)}, "touch_interval must not be negative, it is -3s"),
    ({"absolute_lifetime": "401d"}, "absolute_lifetime is at most 400d, not 34646400s"),
    ({"grace_period": "401d"}, "grace_period is at most 400d"),
    ({"max_clock_drift": "999999d"}, "max_clock_drift is at most 400d"),
    ({"touch_interval": timedelta.max}, "touch_interval is at most 400d"),
    (
        {"listen": "127.0.0.1:1", "grace_period": "59s"},
        r"\(59s\) is shorter than max_clock_drift",
    ),
    ({"listen": "127.0.0.1:1", "seeds": ["a..b:1"], "plain_tcp": True}, "no name that can be looked up"),
    (
        {"listen": "127.0.0.1:1", "advertise": f"{'a.' * 50}b:1", "plain_tcp": True},
        "an address has at most 100 characters",
    ),
    ({"session_timeout": "31d"}, r"session_timeout \(2678400s\) is longer than absolute_lifetime"),
    ({"session_timeout": "9" * 20 + "w"}, "session_timeout is too long: '9+w'"),
    ({"durability": "maybe"}, "durability is 'normal' or 'full', not 'maybe'"),
    ({"when_behind": "guess"}, "when_behind is 'serve' or 'refuse', not 'guess'"),
    ({"max_value": 0}, r"max_value \(0\) must be at least 1"),
    ({"max_value": 2000, "max_session": 1000}, r"max_value \(2000\).*max_session \(1000\)"),
    ({"max_session": 5_000_000}, r"\(5000000\), which is at most 4194304"),
    ({"cache_size": -1}, "cache_size must not be negative, it is -1"),
    ({"max_value": "many"}, "max_value in the arguments must be a whole number, not 'many'"),
    ({"max_value": "9" * 5000}, "must be a whole number, not '99999"),
    ({"max_value": 1.5}, "must be a whole number, not 1.5"),
    ({"max_value": None}, "must be a whole number, not None"),
    ({"max_value": True}, "must be a whole number, not True"),
    ({"cluster": ""}, "1 to 64 bytes, not ''"),
    ({"cluster": "ü" * 33}, "1 to 64 bytes, not 'ü+'"),
    ({"cluster": "a\ud800"}, r"1 to 64 bytes, not 'a\\ud800'"),
    ({"cluster": None}, "1 to 64 bytes, not None"),
    ({"seeds": ["127.0.0.1:1"]}, "seeds are given without listen"),
    ({"seeds": 5}, "seeds in the arguments must be a list of addresses, not 5"),
    ({"seeds": ["nowhere"], "listen": "127.0.0.1:1"}, "not 'nowhere'"),
    ({"preset": ["nist-aal1"]}, r"no preset \['nist-aal1'\]"),
    ({"listen": 7400}, "not 7400"),
    ({"listen": ""}, "not ''"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD, ids=lambda value: str(value)[:40])
def test_refusals_quote_the_value(arguments: dict[str, Any], message: str) -> None:
    """Every impossible value is refused with its name and the value."""
    with pytest.raises(ConfigError, match=message):
        load(**arguments)


def test_a_config_takes_what_its_docstring_says() -> None:
    """Durations as text as well; what is wrong is refused as it is anywhere else."""
    by_itself: Any = Config
    config = by_itself(
        session_timeout="20m", lock_timeout="none", seeds=["127.0.0.1:1"], listen="127.0.0.1:2"
    )
    assert config == load(session_timeout="20m", seeds="127.0.0.1:1", listen="127.0.0.1:2")
    for wrong in ({"session_timeout": 20}, {"preset": "no-such"}, {"max_value": None}, {"plain_tcp": "so"}):
        with pytest.raises(ConfigError):
            by_itself(**wrong)


def test_extremes_are_allowed() -> None:
    """The bounds themselves are allowed."""
    load(absolute_lifetime="400d", session_timeout="400d", max_value=4194304, max_session=4194304)
    load(touch_interval="0s", grace_period="0s", max_clock_drift="0s", remote_timeout="0s")
    load(max_value=1, max_session=1, cache_size=0, cluster="ü" * 32, interval_jitter="0s")


@pytest.mark.parametrize("source", ["arguments", "file"])
def test_unknown_names(source: str, tmp_path: Path) -> None:
    """A misspelt name is refused with where it stood and the names there are."""
    file = tmp_path / "x.toml"
    file.write_text('sesion_timeout = "1m"\n' if source == "file" else "")
    arguments = {"sesion_timeout": "1m"} if source == "arguments" else {}
    where = {"arguments": "the arguments", "file": "canister.toml"}[source]
    with pytest.raises(ConfigError, match=f"'sesion_timeout' in {where}.*session_timeout, "):
        load_config(arguments, {}, file)


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("CANISTER_SESION_TIMEOUT", "CANISTER_SESSION_TIMEOUT"),
        ("CANISTER_SECRET_KEY", "CANISTER_SECRET_KEYS"),
        ("CANISTER_LISTENS", "CANISTER_LISTEN"),
        ("CANISTER_MIGRATETO", "CANISTER_MIGRATE_TO"),
    ],
)
def test_misspelt_variables(wrong: str, meant: str) -> None:
    """A misspelt variable is refused with the one that is like it."""
    with pytest.raises(ConfigError, match=f"{wrong} in the environment; is it {meant}"):
        load({wrong: "x"})


def test_variables_of_others(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is like none of ours may be another program's: it is told of once, without its value."""
    monkeypatch.setattr(variables, "_told", set())
    service = {"CANISTER_PORT": "tcp://10.0.0.1:80", "CANISTER_SERVICE_HOST": "10.0.0.1"}
    for _ in range(2):
        assert load(service | {"CANISTER_PATH": "data", "CANISTER_ACKS": "2"}) == Config()
    assert [record.getMessage().partition(" ")[0] for record in caplog.records] == sorted(service)
    assert "10.0.0.1" not in caplog.text


def test_variables_that_others_read() -> None:
    """What is read elsewhere in the product is known here."""
    assert VARIABLE in {variables.PREFIX + name for name in variables.OTHERS}
    options = {name.upper() for name in ManagerOptions.__annotations__}
    assert options - {"COOKIE", "SECRET_KEYS"} == set(variables.MANAGERS)


def test_missing_file(tmp_path: Path) -> None:
    """A file that was named has to be there."""
    for arguments in ({"file": tmp_path / "no.toml"}, {"environ": {"CANISTER_CONFIG": "no.toml"}}):
        with pytest.raises(ConfigError, match=r"no\.toml does not exist"):
            load_config({}, **{"environ": {}, **arguments})


@pytest.mark.parametrize("content", [b"a = ", b"\xff\xfe", None])
def test_unreadable_file(tmp_path: Path, content: bytes | None) -> None:
    """A file that cannot be read or parsed is named, with the cause kept."""
    file = tmp_path / "bad.toml"
    file.mkdir() if content is None else file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"bad\.toml cannot be read") as caught:
        load_config({}, {}, file)
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize(
    ("address", "parts"),
    [
        ("127.0.0.1:7400", ("127.0.0.1", 7400)),
        ("[::1]:1", ("::1", 1)),
        ("localhost:65535", ("localhost", 65535)),
    ],
)
def test_addresses(address: str, parts: tuple[str, int]) -> None:
    """An address is a host and a port; a host with colons stands in brackets."""
    assert parse_address(address) == parts


@pytest.mark.parametrize(
    "bad", ["", ":1", "host", "host:", "h:0", "h:65536", "h:-1", "h:x", "h:²", "h: 1", "h:" + "9" * 5000]
)
def test_no_addresses(bad: str) -> None:
    """What has no host or no port from 1 to 65535 is refused with the text."""
    with pytest.raises(ConfigError) as caught:
        parse_address(bad)
    assert repr(bad) in str(caught.value)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "localhost:1"])
def test_loopback(address: str) -> None:
    """Addresses on the loopback are allowed, to listen on and as seeds."""
    assert is_loopback(address)
    assert load(listen=address, seeds=[address]).seeds == (address,)


@pytest.mark.parametrize(
    "address", ["0.0.0.0:1", "10.0.0.1:1", "[::]:1", "example.org:1", "localhost.evil.org:1", "127.1:1"]
)
def test_off_the_loopback(address: str) -> None:
    """Links to other machines need mutual TLS or a word that plain TCP is meant, wherever the address is."""
    for arguments in (
        {"listen": address},
        {"listen": "127.0.0.1:1", "seeds": address},
        {"listen": "127.0.0.1:1", "advertise": address},
    ):
        with pytest.raises(ConfigError, match=r"tls_ca.*plain_tcp") as caught:
            load(**arguments)
        assert address in str(caught.value)


def test_plain_tcp() -> None:
    """With plain_tcp addresses of other machines are allowed."""
    config = load(listen="10.0.0.1:1", seeds="example.org:1", plain_tcp=True)
    assert config.address == "10.0.0.1:1"
    config = load(listen="127.0.0.1:1", advertise="example.org:2", plain_tcp=True)
    assert config.address == "example.org:2"


@pytest.mark.parametrize("wildcard", ["0.0.0.0:1", "[::]:1"])
def test_wildcards(wildcard: str) -> None:
    """Nobody can call a wildcard: a node that listens on one has to say by which address it is called."""
    for arguments in (
        {"listen": wildcard},
        {"listen": wildcard, "advertise": wildcard},
        {"listen": "127.0.0.1:1", "seeds": wildcard},
    ):
        with pytest.raises(ConfigError, match="advertise"):
            load(**arguments, plain_tcp=True)
    assert load(listen=wildcard, advertise="10.0.0.1:1", plain_tcp=True).address == "10.0.0.1:1"


def test_tls_takes_three_files() -> None:
    """All three files or none; and not together with plain_tcp."""
    files = {"tls_ca": "ca", "tls_cert": "cert", "tls_key": "key"}
    assert load(listen="10.0.0.1:1", **files).uses_tls
    for name in files:
        others = {other: file for other, file in files.items() if other != name}
        with pytest.raises(ConfigError, match=f"; {name} must be set too"):
            load(**others)
        with pytest.raises(ConfigError, match=f"; {name} must be set too"):
            load(**others, **{name: ""})
    with pytest.raises(ConfigError, match="exclude each other"):
        load(**files, plain_tcp=True)


def test_advertise_needs_listen() -> None:
    """Who does not listen cannot be called."""
    with pytest.raises(ConfigError, match="advertise is given without listen"):
        load(advertise="127.0.0.1:1")


@pytest.mark.parametrize(
    ("value", "meant"),
    [
        ("true", True),
        ("1", True),
        ("Yes", True),
        ("on", True),
        ("false", False),
        ("0", False),
        ("no", False),
        ("off", False),
    ],
)
def test_switches(value: str, meant: bool) -> None:
    """A setting that is on or off may be given as text."""
    assert load({"CANISTER_PLAIN_TCP": value}).plain_tcp is meant


@pytest.mark.parametrize("value", ["", "2", "maybe", 2, None])
def test_no_switches(value: object) -> None:
    """Anything else is refused with the name of the setting."""
    with pytest.raises(ConfigError, match="plain_tcp in the arguments"):
        load(plain_tcp=value)


def test_settings_cannot_be_changed() -> None:
    """Settings are frozen and given by name."""
    with pytest.raises(FrozenInstanceError):
        Config().cluster = "x"  # type: ignore[misc]


def test_summary_shows_every_setting() -> None:
    """The summary names every setting, on one line."""
    text = load(listen="127.0.0.1:1", seeds="127.0.0.1:1,[::1]:2").summary()
    assert "\n" not in text
    assert [part.partition("=")[0] for part in text.split(" ")] == [f.name for f in fields(Config)]
    assert "session_timeout=1200s" in text
    assert "touch_interval=None" in text
    assert "seeds=127.0.0.1:1,[::1]:2" in text


def test_every_setting_is_documented() -> None:
    """The docstring of the settings says what each one does."""
    text = inspect.getdoc(Config) or ""
    assert [f.name for f in fields(Config) if f"\n    {f.name}: " not in text] == []


def test_policy() -> None:
    """The touch interval is a twentieth of the idle timeout unless it is set."""
    policy = Policy.of(load(grace_period="2m", max_clock_drift="3m", absolute_lifetime="10h"))
    assert (policy.idle, policy.interval, policy.absolute) == (20 * MINUTE, MINUTE, 600 * MINUTE)
    assert (policy.grace, policy.drift) == (2 * MINUTE, 3 * MINUTE)
    assert policy.interval_for(40 * MINUTE) == 2 * MINUTE


@pytest.mark.parametrize("interval", ["0s", "5m"])
def test_policy_with_a_touch_interval(interval: str) -> None:
    """A touch interval that is set, even to zero, goes with every idle timeout."""
    policy = Policy.of(load(touch_interval=interval))
    want = 0 if interval == "0s" else 5 * MINUTE
    assert (policy.interval, policy.interval_for(40 * MINUTE)) == (want, want)


def test_no_password_is_shown() -> None:
    """Neither in the log at start nor where a debugger shows the settings."""
    url = "redis+sentinel://app:PW1@h1,h2/shop?sentinel_username=s&sentinel_password=PW2"
    config = load(migrate_to=url)
    for shown in (config.summary(), repr(config)):
        assert "PW" not in shown
        assert "migrate_to=redis+sentinel://h1,h2/shop" in shown
