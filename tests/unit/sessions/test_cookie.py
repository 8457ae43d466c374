import logging
import re
from datetime import timedelta
from typing import Any

import pytest

from canister.errors import ConfigError
from canister.sessions import CookieSettings, Outcome

# The grammar of RFC 6265bis, section 4.1.1.
GRAMMAR = re.compile(
    r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+=[!#-+\--:<-\[\]-~]*"
    r"(; (Path=/[ -:<-~]*|Domain=[0-9A-Za-z.-]+|Secure|HttpOnly|SameSite=(Lax|Strict|None)"
    r"|Max-Age=[1-9][0-9]*|Expires=[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT))*"
)


def test_the_default_is_the_safest_there_is() -> None:
    cookie = CookieSettings()
    assert cookie.keep("v") == "__Host-id=v; Path=/; Secure; HttpOnly; SameSite=Lax"
    assert (
        cookie.end()
        == "__Host-id=; Path=/; Secure; HttpOnly; SameSite=Lax; Expires=Thu, 01 Jan 1970 00:00:00 GMT"
    )


def test_plain_http_has_another_name_and_no_secure() -> None:
    assert CookieSettings(plain_http=True).keep("v") == "id=v; Path=/; HttpOnly; SameSite=Lax"


def test_a_switch_may_be_text() -> None:
    assert CookieSettings(plain_http="no", httponly="true") == CookieSettings()  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="plain_http must be true or false, not 'maybe'"):
        CookieSettings(plain_http="maybe")  # type: ignore[arg-type]


def test_the_second_cookie_has_the_same_attributes_and_its_own_name() -> None:
    assert CookieSettings().for_seen().keep("v") == "__Host-seen=v; Path=/; Secure; HttpOnly; SameSite=Lax"
    assert CookieSettings(plain_http=True).for_seen().keep("v") == "seen=v; Path=/; HttpOnly; SameSite=Lax"
    assert CookieSettings(name="__Secure-id", domain="example.org").for_seen().name == "__Secure-seen"
    assert CookieSettings(name="sid").for_seen().name == "seen"
    own = CookieSettings(seen="__Host-what", samesite="strict", max_age=timedelta(days=1)).for_seen()
    assert own.keep("v").endswith("Secure; HttpOnly; SameSite=Strict; Max-Age=86400")
    assert own.name == "__Host-what"


def test_a_cookie_may_outlive_the_browser() -> None:
    assert CookieSettings(max_age=timedelta(days=1)).keep("v").endswith("; Max-Age=86400")
    assert "Max-Age" not in CookieSettings(max_age=timedelta(days=1)).end()
    assert CookieSettings(max_age="1h").max_age == timedelta(hours=1)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "cookie",
    [
        CookieSettings(),
        CookieSettings(plain_http=True, samesite="strict"),
        CookieSettings(name="__Secure-id", domain="example.org", path="/shop"),
        CookieSettings(samesite="none", max_age=timedelta(seconds=1)),
        CookieSettings(httponly=False, max_age=timedelta(days=400)),
    ],
)
def test_headers_follow_the_grammar_and_name_no_attribute_twice(cookie: CookieSettings) -> None:
    for header in (cookie.keep("abc-_123"), cookie.end()):
        assert GRAMMAR.fullmatch(header)
        attributes = [part.partition("=")[0].lower() for part in header.split("; ")[1:]]
        assert len(attributes) == len(set(attributes))


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"domain": "example.org"}, "'__Host-id' with a domain"),
        ({"path": "/shop"}, "'__Host-id' with a domain or a path"),
        ({"name": "__Host-id", "plain_http": True}, "without Secure"),
        ({"name": "__HOST-id", "plain_http": True}, "without Secure"),
        ({"name": "__Secure-id", "plain_http": True}, "without Secure"),
        ({"name": "a", "seen": "a"}, "both are called 'a'"),
        ({"name": "a", "seen": "b c"}, "a cookie's name"),
        ({"seen": "__Host-x", "plain_http": True}, "without Secure"),
        ({"name": "id", "seen": "__Host-x", "path": "/shop"}, "'__Host-x' with a domain"),
        ({"samesite": "none", "plain_http": True}, "samesite='none' without Secure"),
        ({"name": 5}, "the cookie's name is a text, not 5"),
        ({"path": 5}, "the cookie's path is a text, not 5"),
        ({"max_age": "an hour"}, "max_age must be a timedelta or text"),
        ({"max_age": 3600}, "max_age must be a timedelta or text"),
        ({"samesite": "sometimes"}, "'lax', 'strict' or 'none'"),
        ({"max_age": timedelta(0)}, "1 second to 400 days"),
        ({"max_age": timedelta(days=401)}, "1 second to 400 days"),
        ({"name": "a b"}, "a cookie's name"),
        ({"name": "a;b"}, "a cookie's name"),
        ({"name": "a=b"}, "a cookie's name"),
        ({"name": "a\r\n"}, "a cookie's name"),
        ({"name": "id", "path": "shop"}, "path begins"),
        ({"name": "id", "path": "/a; Domain=evil.org"}, "path begins"),
        ({"name": "id", "path": "/\n"}, "path begins"),
        ({"name": "id", "domain": "exa mple.org"}, "domain is a host name"),
        ({"name": "id", "domain": "example.org; Secure"}, "domain is a host name"),
    ],
)
def test_what_a_browser_would_refuse_is_refused_at_construction(
    settings: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ConfigError, match=complaint):
        CookieSettings(**settings)


@pytest.mark.parametrize("value", ["a b", "a;b", 'a"b', "a,b", "a\\b", "é", "a\n", "x" * 4096])
def test_a_value_that_is_no_cookie_octets_is_refused_and_not_shown(value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        CookieSettings().keep(value)
    assert value not in str(caught.value)


def test_every_candidate_of_the_name_is_found() -> None:
    cookie = CookieSettings()
    headers = ["a=1; __Host-id=one;__Host-id=two ; b", '__Host-id="three"; x__Host-id=no', "__Host-id=one"]
    assert cookie.values_in(headers) == ["one", "two", "three"]
    assert cookie.values_in([]) == []
    assert cookie.values_in(["", ";;=", "__Host-id"]) == [""]


def test_a_response_that_does_not_depend_on_the_session_gets_no_headers() -> None:
    assert Outcome(None, vary=False).headers([]) == []


def test_a_response_that_read_the_session_varies_by_cookie() -> None:
    assert Outcome(None, vary=True).headers([]) == [("Vary", "Cookie")]
    assert Outcome(None, vary=True).headers([("vary", "Accept, cookie")]) == []
    assert Outcome(None, vary=True).headers([("Vary", "*")]) == []
    assert Outcome(None, vary=True).headers([("Vary", "Accept")]) == [("Vary", "Accept, Cookie")]


def test_vary_is_one_line_with_what_was_there() -> None:
    present = [("vary", "Accept, Origin"), ("X", "1"), ("Vary", ""), ("Vary", "Accept-Language")]
    outcome = Outcome(None, vary=True)
    one = ("Vary", "Accept, Origin, Accept-Language, Cookie")
    assert outcome.headers(present) == [one]
    assert outcome.all_headers(present) == [("X", "1"), one]
    assert outcome.all_headers([*present, ("Vary", "cookie")]) == [*present, ("Vary", "cookie")]
    assert Outcome("id=v", vary=True).all_headers(present)[:3] == [("X", "1"), one, ("Set-Cookie", "id=v")]


def test_a_response_that_sets_the_cookie_is_not_cached() -> None:
    added = Outcome("id=v", vary=False).headers([])
    assert added == [
        ("Vary", "Cookie"),
        ("Set-Cookie", "id=v"),
        ("Cache-Control", 'private, no-cache="Set-Cookie"'),
    ]


def test_a_response_that_sets_the_second_cookie_is_not_cached_either() -> None:
    private = ("Cache-Control", 'private, no-cache="Set-Cookie"')
    cookies = [("Set-Cookie", "id=v"), ("Set-Cookie", "seen=w")]
    assert Outcome(None, vary=False, set_seen="seen=w").headers([]) == [
        ("Vary", "Cookie"),
        cookies[1],
        private,
    ]
    assert Outcome("id=v", vary=True, set_seen="seen=w").headers([]) == [
        ("Vary", "Cookie"),
        *cookies,
        private,
    ]


def test_the_applications_own_cache_control_stands() -> None:
    added = dict(Outcome("id=v", vary=False).headers([("Cache-Control", "no-store")]))
    assert "Cache-Control" not in added


@pytest.mark.parametrize("caching", ["public, max-age=60", "s-maxage=60", "max-age=60"])
def test_a_response_that_caches_share_with_the_cookie_is_reported(
    caplog: pytest.LogCaptureFixture, caching: str
) -> None:
    with caplog.at_level(logging.WARNING, "canister.sessions"):
        Outcome("id=v", vary=False).headers([("Cache-Control", "Private, max-age=60")])
        assert caplog.text == ""
        Outcome("id=v", vary=False).headers([("Cache-Control", caching)])
    assert f"'Cache-Control: {caching}': shared caches" in caplog.text
    assert "id=v" not in caplog.text
