"""Checks of the cookies: what the client is sent, and what is refused."""

from typing import Any

from canister.checks.finding import Result
from canister.checks.subject import Subject
from canister.errors import ConfigError
from canister.sessions import CookieSettings
from canister.sessions.token import SECRET_BYTES, Token, parse

_TELLING = ("sess", "django", "flask", "starlette", "canister", "python", "asp", "php", "java")


def name(subject: Subject) -> Result:
    """The name says nothing of what the server runs."""
    shown = subject.cookie.name
    telling = [word for word in _TELLING if word in shown.lower()]
    return not telling, f"the cookie is called {shown}" + (
        f", which tells of {telling[0]}" if telling else ""
    )


def attributes(subject: Subject) -> Result:
    """Secure, HttpOnly, SameSite, no Domain, and gone with the browser."""
    header = _sent(subject)
    lacking = [word for word in ("Secure", "HttpOnly", "SameSite=") if word not in header]
    extra = [word for word in ("Domain=", "Max-Age=") if word in header]
    ok = not lacking and not extra and subject.cookie.samesite != "none"
    return ok, f"Set-Cookie: {_shortened(header)}"


def secure_with_prefix(subject: Subject) -> Result:
    """Secure, and a prefix that makes browsers insist on it."""
    header = _sent(subject)
    ok = "; Secure" in header and header.startswith(("__Host-", "__Secure-"))
    return ok, f"Set-Cookie: {_shortened(header)}"


def host_prefix(subject: Subject) -> Result:
    """No other host of the domain can set the cookie."""
    return subject.cookie.name.startswith("__Host-"), f"the cookie is called {subject.cookie.name}"


def same_site(subject: Subject) -> Result:
    """SameSite is set, and fits its purpose."""
    return subject.cookie.samesite in ("lax", "strict"), f"SameSite={subject.cookie.samesite}"


def http_only(subject: Subject) -> Result:
    """No script reads the token."""
    return "; HttpOnly" in _sent(subject), "the token travels in Set-Cookie alone" + (
        "" if subject.cookie.httponly else ", but httponly=False lets scripts read it"
    )


def size(subject: Subject) -> Result:
    """Name and value fit into a cookie."""
    token = subject.created()
    length = len(subject.cookie.name) + len(token)
    return length <= 4096, f"name and value have {length} bytes"


def not_persistent(subject: Subject) -> Result:
    """The token does not outlive the browser."""
    age = subject.cookie.max_age
    return age is None, "no Max-Age and no Expires" if age is None else f"max_age is {age}"


def entropy(subject: Subject) -> Result:
    """The token is long, random and new each time."""
    tokens = {subject.created() for _ in range(64)}
    parsed = (parse(token, subject.manager.keys) for token in tokens)
    secrets = {token.secret for token in parsed if isinstance(token, Token)}
    return len(secrets) == 64, f"{8 * SECRET_BYTES} random bits of the operating system; 64 of 64 differ"


def no_meaning(subject: Subject) -> Result:
    """The token says nothing of the user."""
    user = "someone@example.org"
    return user.encode().hex() not in subject.created(user).encode().hex(), (
        "id, secret, a clock stamp and a MAC; user and data stay on the server"
    )


def caching(subject: Subject) -> Result:
    """No cache keeps a response that carries a token."""
    session = subject.open()
    session["a"] = 1
    headers = dict(subject.outcome(session).headers([]))
    ok = "no-cache" in headers.get("Cache-Control", "") and headers.get("Vary") == "Cookie"
    return ok, f"Cache-Control: {headers.get('Cache-Control')}; Vary: {headers.get('Vary')}"


def only_when_changed(subject: Subject) -> Result:
    """A response that changes nothing sets no cookie, so that concurrent ones do not race."""
    session = subject.open(subject.created())
    assert session.peek("key") == "value"
    return subject.outcome(session).set_cookie is None, "reading sends no Set-Cookie"


def ends_at_the_client(subject: Subject) -> Result:
    """Log-out empties the client's cookie as well."""
    session = subject.open(subject.created())
    session.logout()
    header = subject.outcome(session).set_cookie or ""
    return header.startswith(f"{subject.cookie.name}=;") and "Expires=Thu, 01 Jan 1970" in header, (
        f"Set-Cookie: {header}"
    )


def several(subject: Subject) -> Result:
    """Of several cookies with one name, each is a candidate."""
    token = subject.created()
    found = subject.manager.load(["forged", token]).handle, subject.manager.load([token, "forged"]).handle
    return None not in found, "a good token is found before and behind a forged one"


def bad_settings(subject: Subject) -> Result:
    """What browsers would refuse is refused at the start."""
    combinations: tuple[dict[str, Any], ...] = (
        {"name": "__Host-id", "domain": "example.org"},
        {"name": "__Host-id", "path": "/app"},
        {"name": "__Secure-id", "plain_http": True},
        {"samesite": "none", "plain_http": True},
    )
    refused = 0
    for settings in combinations:
        try:
            CookieSettings(**settings)
        except ConfigError:
            refused += 1
    return refused == len(combinations), f"{refused} of {len(combinations)} impossible combinations refused"


def grammar(subject: Subject) -> Result:
    """The header keeps to the grammar, each attribute once."""
    parts = _sent(subject).split("; ")
    names = [part.partition("=")[0] for part in parts[1:]]
    value = parts[0].partition("=")[2]
    ok = len(set(names)) == len(names) and value.replace("-", "").replace("_", "").isalnum()
    return ok, f"attributes {', '.join(names)}; the value is base64url"


def _sent(subject: Subject) -> str:
    session = subject.open()
    session["a"] = 1
    return subject.outcome(session).set_cookie or ""


def _shortened(header: str) -> str:
    named, _, rest = header.partition("; ")
    return f"{named.partition('=')[0]}=...; {rest}"
