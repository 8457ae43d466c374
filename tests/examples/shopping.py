"""A walk through an example shop, whatever framework it is on and whatever client sends the forms."""

import re
from html import unescape
from typing import Any

_TOKEN = re.compile(r'<input type="hidden" name="(\w+)" value="([^"]+)">')
_CART = re.compile(r"<span>(\d+) \xd7 ([^<]+)</span>")
_USER = re.compile(r"Logged in as <strong>([^<]+)</strong>")
_END = re.compile(r'<button name="handle" value="(\w+)">End</button>')


class Visitor:
    """Somebody in front of a page of the shop.

    Args:
        client: a test client, or one of httpx, with a cookie jar of its own.
    """

    def __init__(self, client: Any) -> None:
        self._client = client
        self.page = ""
        self.open("/")

    def open(self, path: str) -> None:
        self.page = self._client.get(path, follow_redirects=True).text

    def send(self, path: str, **fields: str) -> None:
        """Send a form of the page, with the token that it carries."""
        found = _TOKEN.search(self.page)
        assert found is not None, self.page
        data = {found[1]: found[2], **fields}
        self.page = self._client.post(path, data=data, follow_redirects=True).text

    @property
    def user(self) -> str | None:
        found = _USER.search(self.page)
        assert (found is None) == ("Your name" in self.page), "either somebody is logged in or may do so"
        return unescape(found[1]) if found else None

    @property
    def cart(self) -> dict[str, int]:
        return {name: int(count) for count, name in _CART.findall(unescape(self.page))}


def go_shopping(client: Any, phones_client: Any) -> None:
    """Do all that one can do in the shop, as one user with two devices."""
    laptop, phone = Visitor(client), Visitor(phones_client)
    assert (laptop.user, laptop.cart) == (None, {})
    laptop.send("/add", article="Green tea")
    laptop.send("/add", article="Green tea")
    laptop.send("/add", article="Gold")
    laptop.send("/log-in", name="<b>ann")
    assert (laptop.user, laptop.cart) == ("<b>ann", {"Green tea": 2}), "the cart came along"
    assert "<b>ann" not in laptop.page

    phone.send("/log-in", name="<b>ann")
    phone.send("/add", article="Rye bread")
    phone.send("/remove", article="Rye bread")
    assert phone.cart == {}
    forged = phones_client.post("/add", data={"article": "Rye bread"}, follow_redirects=True)
    assert forged.status_code in (200, 403)
    phone.open("/")
    assert phone.cart == {}, "another site's form has no token"

    laptop.open("/devices")
    assert laptop.page.count("This device") == 1
    (handle,) = _END.findall(laptop.page)
    laptop.send("/devices/end", handle=handle)
    assert _END.findall(laptop.page) == []
    phone.open("/devices")
    assert phone.user is None
    laptop.open("/")
    assert laptop.user == "<b>ann"
    laptop.send("/log-out")
    assert (laptop.user, laptop.cart) == (None, {})
    laptop.open("/devices")
    assert laptop.user is None
