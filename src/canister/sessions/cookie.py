"""The cookies of the token and of what was seen: attributes and headers (RFC 6265bis)."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Literal

from canister.config import parse_duration, parse_switch
from canister.errors import ConfigError, InputError
from canister.sessions.hosts import is_private_host

_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(r"[!#-+\--:<-\[\]-~]*")
_PATH = re.compile(r"/[ -:<-~]*")
_DOMAIN = re.compile(r"(?!-)[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*")
_LONGEST = timedelta(days=400)
_PAST = "Thu, 01 Jan 1970 00:00:00 GMT"
_LARGEST = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class CookieSettings:
    """Attributes of the cookie that holds the token, and of the seen cookie.

    Attributes:
        name: ``__Host-id`` by default, ``id`` with *plain_http*. A ``__Host-`` name keeps other hosts
            of the domain from setting the cookie; with *domain* or another *path*, name it
            ``__Secure-...``.
        seen: name of the second cookie, which tells any node what the client has seen; by default
            ``__Host-seen``, ``__Secure-seen`` or ``seen``, after *name*. It has the same attributes,
            and a node alone sends none.
        samesite: ``"lax"``, ``"strict"`` or ``"none"``.
        path: the part of the site the cookie is sent to.
        domain: also send it to the subdomains of this domain; None: to this host only.
        max_age: how long the browser keeps it; None: until it is closed. Text such as ``"20m"`` is taken as
            well, for settings that come from a file.
        httponly: keep it from scripts.
        plain_http: for development without TLS: no ``Secure``, and another name. Only hosts of private
            networks are served then.
        any_host: with *plain_http*, serve all hosts: whoever is on the way can take the sessions over.

    Raises:
        ConfigError: browsers would refuse the cookie, or it would be unsafe.
    """

    name: str = ""
    seen: str = ""
    samesite: Literal["lax", "strict", "none"] = "lax"
    path: str = "/"
    domain: str | None = None
    max_age: timedelta | None = None
    httponly: bool = True
    plain_http: bool = False
    any_host: bool = False

    def __post_init__(self) -> None:
        for switch in ("httponly", "plain_http", "any_host"):  # settings may come from a file
            object.__setattr__(self, switch, parse_switch(getattr(self, switch), switch))
        if self.max_age is not None:
            object.__setattr__(self, "max_age", parse_duration(self.max_age, "max_age"))
        texts: dict[str, Any] = {name: getattr(self, name) for name in ("name", "seen", "path", "domain")}
        for name, value in texts.items():
            if not isinstance(value, (str, type(None))):
                raise ConfigError(f"the cookie's {name} is a text, not {value!r}")
        if not self.name:
            object.__setattr__(self, "name", "id" if self.plain_http else "__Host-id")
        if not self.seen:
            prefix = next((p for p in ("__Host-", "__Secure-") if self.name.startswith(p)), "")
            object.__setattr__(self, "seen", f"{prefix}seen")
        if self.seen == self.name:
            raise ConfigError(f"name and seen are two cookies, both are called {self.name!r}")
        self._check_grammar()
        for name in (self.name, self.seen):
            self._check_prefix(name)
        if self.samesite not in ("lax", "strict", "none"):
            raise ConfigError(f"samesite is 'lax', 'strict' or 'none', not {self.samesite!r}")
        if self.samesite == "none" and not self.secure:
            raise ConfigError("browsers refuse samesite='none' without Secure; it cannot go with plain_http")
        if self.max_age is not None and not _is_age(self.max_age):
            raise ConfigError(f"max_age is 1 second to 400 days, not {self.max_age}")

    @property
    def secure(self) -> bool:
        """Whether the cookie is sent over TLS only."""
        return not self.plain_http

    def for_seen(self) -> "CookieSettings":
        """Return the same attributes for the seen cookie."""
        return replace(self, name=self.seen, seen=self.name)

    def lasting(self, max_age: timedelta | None) -> "CookieSettings":
        """Return the same attributes with another *max_age*."""
        return self if max_age == self.max_age else replace(self, max_age=max_age)

    def values_in(self, headers: Iterable[str]) -> list[str]:
        """Return every value that the Cookie headers hold under the cookie's name, in their order.

        Browsers send one value for each path and domain the name was set for, in no order to rely on.
        """
        return values_of(headers, self.name)

    def check_host(self, host: str) -> None:
        """Refuse to hand out sessions that anybody on the way can read.

        Args:
            host: the request's Host header.

        Raises:
            ConfigError: it is plain http, and the host is not one of a private network.
        """
        if self.plain_http and not self.any_host and not is_private_host(host):
            raise ConfigError(
                f"plain_http is for private networks, {host!r} is none: serve it over TLS without "
                "plain_http, or set any_host, where whoever is on the way can take the sessions over"
            )

    def keep(self, value: str) -> str:
        """Return the Set-Cookie header's value that sets the cookie."""
        if not _VALUE.fullmatch(value) or len(self.name) + len(value) > _LARGEST:
            # The value may be a secret: the message does not show it.
            raise ConfigError(
                f"the value for cookie {self.name!r} is too long or has a character cookies lack"
            )
        age = () if self.max_age is None else (f"Max-Age={int(self.max_age.total_seconds())}",)
        return "; ".join((f"{self.name}={value}", *self._attributes(), *age))

    def end(self) -> str:
        """Return the Set-Cookie header's value that takes the cookie away."""
        return "; ".join((f"{self.name}=", *self._attributes(), f"Expires={_PAST}"))

    def _attributes(self) -> list[str]:
        parts = [f"Path={self.path}"]
        if self.domain is not None:
            parts.append(f"Domain={self.domain}")
        if self.secure:
            parts.append("Secure")
        if self.httponly:
            parts.append("HttpOnly")
        parts.append(f"SameSite={self.samesite.capitalize()}")
        return parts

    def _check_grammar(self) -> None:
        for name in (self.name, self.seen):
            if not _NAME.fullmatch(name):
                raise ConfigError(f"a cookie's name is a token of RFC 9110, not {name!r}")
        if not _PATH.fullmatch(self.path):
            raise ConfigError(
                f"path begins with '/' and holds no ';' or control character, not {self.path!r}"
            )
        if self.domain is not None and not _DOMAIN.fullmatch(self.domain):
            raise ConfigError(f"domain is a host name such as 'example.org', not {self.domain!r}")

    def _check_prefix(self, name: str) -> None:
        prefix = name.lower()  # browsers match the prefixes in any case
        if prefix.startswith(("__host-", "__secure-")) and not self.secure:
            raise ConfigError(f"browsers refuse {name!r} without Secure; with plain_http, use another name")
        if prefix.startswith("__host-") and (self.path != "/" or self.domain is not None):
            raise ConfigError(
                f"browsers refuse {name!r} with a domain or a path other than '/'; "
                "leave them out, or set name='__Secure-id'"
            )


def check_age(age: object) -> None:
    """Refuse an age that no cookie is kept for.

    Raises:
        InputError: it is not a span of 1 second to 400 days.
    """
    if not isinstance(age, timedelta) or not _is_age(age):
        raise InputError(f"a cookie's age is a timedelta of 1 second to 400 days, not {age!r}")


def _is_age(age: timedelta) -> bool:
    return timedelta(seconds=1) <= age <= _LONGEST


def values_of(headers: Iterable[str], name: str) -> list[str]:
    """Return every value that Cookie headers hold under a name, in their order.

    Whatever else a browser holds, however odd, hides none of them.
    """
    found: dict[str, None] = {}
    for header in headers:
        for pair in header.split(";") if name in header else ():
            if name in pair:
                key, _, value = pair.strip().partition("=")
                if key == name:
                    found[value.strip().strip('"')] = None
    return list(found)
