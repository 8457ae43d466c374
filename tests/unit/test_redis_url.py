"""The URLs of Redis: what they mean, what is refused, and that no password is shown."""

import re
from pathlib import Path

import pytest

from canister import Canister
from canister.addresses import without_secrets
from canister.errors import ConfigError
from canister.store.redis.url import Topology, is_redis_url, parse_url


def test_a_single_server() -> None:
    """Host, port, database, user and password, with their defaults."""
    url = parse_url("redis://localhost")
    assert (url.topology, url.addresses, url.tls) == (Topology.SINGLE, (("localhost", 6379),), False)
    assert (url.login, url.database) == (("", ""), 0)
    url = parse_url("rediss://ann:a%2Fb%40c@[::1]:7000/3?allow_eviction=yes")
    assert (url.addresses, url.tls, url.allow_eviction) == ((("::1", 7000),), True, True)
    assert (url.login, url.database) == (("ann", "a/b@c"), 3)
    assert str(url) == "[::1]:7000"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://ann:pw@db:7000/3?x=y", "redis://db:7000/3"),
        ("redis://ann:p?w@db:7000/3", "redis://..."),
        ("redis+sentinel://a,b/shop?sentinel_password=p@w", "redis+sentinel://..."),
        ("redis://db", "redis://db"),
        ("a/directory?", "a/directory?"),
    ],
)
def test_what_is_shown_of_any_text_holds_no_password(url: str, shown: str) -> None:
    assert without_secrets(url) == shown


def test_sentinels() -> None:
    """Several addresses, the service, and the sentinels' own password."""
    url = parse_url("redis+sentinel://:pw@a,b:7/shop/2?sentinel_password=other")
    assert (url.topology, url.service) == (Topology.SENTINEL, "shop")
    assert url.addresses == (("a", 26379), ("b", 7))
    assert (url.login, url.database) == (("", "pw"), 2)
    assert url.sentinel_login == ("", "other")
    assert str(url) == "shop at a:26379,b:7"


def test_a_cluster() -> None:
    """Some of its nodes are enough."""
    url = parse_url("redis+cluster://a:1,b")
    assert (url.topology, url.addresses) == (Topology.CLUSTER, (("a", 1), ("b", 6379)))


def test_files_for_tls(tmp_path: Path) -> None:
    """They must be there, and are for TLS only."""
    file = tmp_path / "ca.crt"
    file.touch()
    assert parse_url(f"rediss://h?ca={file}").files == {"ca": str(file)}
    with pytest.raises(ConfigError, match="there is no file"):
        parse_url(f"rediss://h?cert={file}x")
    with pytest.raises(ConfigError, match="ca in the URL of Redis is for TLS"):
        parse_url(f"redis://h?ca={file}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("http://h", "the forms of a URL of Redis are"),
        ("redis+mesh://h", "the forms of a URL of Redis are"),
        ("redis://", "is not 'host' or 'host:port'"),
        ("redis://h:0", "is not 'host' or 'host:port'"),
        ("redis://h:x", "is not 'host' or 'host:port'"),
        ("redis+cluster://a,,b", "is not 'host' or 'host:port'"),
        ("redis://[h", "the URL of Redis cannot be read"),
        ("redis://a,b", "names one server"),
        ("redis://h/x", "the path of the URL of Redis is wrong"),
        ("redis://h/1/2", "the path of the URL of Redis is wrong"),
        ("redis+sentinel://h", "the path of the URL of Redis is wrong"),
        ("redis+cluster://h/1", "a cluster has one database"),
        ("redis://h?db=1", "the options in a URL of Redis are ca,"),
        ("redis://h?allow_eviction=maybe", "is 'yes' or 'no'"),
        ("redis://h?sentinel_password=x", r"are for redis\+sentinel:// only"),
        ("redis://h?allow_eviction", "the URL of Redis cannot be read"),
    ],
)
def test_what_is_refused(text: str, message: str) -> None:
    """Each mistake is named."""
    with pytest.raises(ConfigError, match=message):
        parse_url(text)


def test_no_password_is_shown() -> None:
    """Neither by the errors nor by the URL itself."""
    for text in (
        "redis://ann:hidden@h:x",
        "redis://ann:hidden@h/x",
        "redis://ann:hidden@[h",
        "http://a:hidden@h",
    ):
        with pytest.raises(ConfigError) as failure:
            parse_url(text)
        assert "hidden" not in str(failure.value)
    url = parse_url("redis+sentinel://ann:hidden@h/shop?sentinel_password=hidden")
    assert not re.search("hidden", f"{url} {url!r}")


def test_paths_are_no_urls() -> None:
    """A data directory is not taken for a URL."""
    assert not is_redis_url("redis")
    assert not is_redis_url("./redis:/x")
    assert is_redis_url("rediss+cluster://h")


@pytest.mark.parametrize("text", ["redis:/bob:hidden@h", "rediss:hidden@h", "redis+cluster:/h", "Redis:h"])
def test_no_directory_is_made_of_a_url_that_lacks_a_slash(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its name would be the password, and no other process would have its sessions."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="'//' is missing") as failure:
        Canister(text)
    assert "hidden" not in str(failure.value)
    assert not list(tmp_path.iterdir())
