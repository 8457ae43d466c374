"""The example shops in a real browser: gunicorn and uvicorn, two workers on each of two nodes, a proxy."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from anyio.from_thread import start_blocking_portal
from tests.browser.browsers import Browser, Tab, need_chromium, running_browser
from tests.web.proxy import Proxy
from tests.web.servers import ROOT, SECRET, Site, running_site

pytestmark = [pytest.mark.integration, pytest.mark.browser]

SHOPS = {"django": "gunicorn", "flask": "gunicorn", "fastapi": "uvicorn"}
"""The server that each is run on."""
COOKIE = "__Host-id"
LOGGED_OUT = "Your name"
"""What the form says by which one logs in."""

Open = Callable[[], Browser]


class Shop:
    """A shop on two nodes, behind one address."""

    def __init__(self, site: Site, proxy: Proxy) -> None:
        self.site = site
        self.proxy = proxy
        # Browsers take Secure cookies over plain http from this name alone.
        self.address = f"http://localhost:{proxy.port}"
        self.nodes = [f"http://localhost:{port}" for port in site.ports]


@pytest.fixture(scope="module", params=SHOPS)
def shop(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    need_chromium()
    directory, module = tmp_path_factory.mktemp("shop"), f"tests.browser.apps.{request.param}_shop"
    if request.param == "django":
        environ = os.environ | {"CANISTER_PATH": str(directory / "first"), "CANISTER_SECRET_KEYS": SECRET}
        subprocess.run([sys.executable, "-m", module], check=True, env=environ, cwd=ROOT)
    with ExitStack() as stack:
        server = running_site(directory, module, SHOPS[request.param], workers=2, probe="/")
        site = stack.enter_context(server)
        portal = stack.enter_context(start_blocking_portal())
        proxy = stack.enter_context(portal.wrap_async_context_manager(Proxy(site.ports).running()))
        yield Shop(site, proxy)
        assert "Traceback" not in site.logs(), site.logs()


@pytest.fixture
def open_browser(shop: Shop, tmp_path: Path) -> Iterator[Open]:
    """Return what starts a browser with a profile of its own."""
    with ExitStack() as stack:

        def open_one() -> Browser:
            profile = tmp_path / f"profile-{len(list(tmp_path.iterdir()))}"
            profile.mkdir()
            return stack.enter_context(running_browser(profile, shop.address))

        yield open_one


def log_in(browser: Browser, name: str) -> Tab:
    tab = browser.tab()
    assert LOGGED_OUT in tab.text()
    tab.fill("name", name)
    tab.press("Log in")
    assert f"Logged in as {name}" in tab.text()
    return tab


def test_articles_that_two_tabs_add_at_once_are_both_in_the_cart(shop: Shop, open_browser: Open) -> None:
    browser = open_browser()
    one = log_in(browser, "ann")
    other = browser.tab()
    assert "Logged in as ann" in other.text()
    shop.proxy.passed.clear()
    with shop.proxy.together(2):
        one.begin_to_press("Green tea")
        other.begin_to_press("Rye bread")
        one.await_page()
        other.await_page()
    posted = [(passed.path, passed.node) for passed in shop.proxy.passed[:2]]
    assert sorted(posted) == [("/add", 0), ("/add", 1)], "both were under way, each at a node of its own"
    shop.site.await_equal()
    for tab in (one, other):
        tab.open("/")
        assert tab.items("Cart") == ["1 \xd7 Green tea", "1 \xd7 Rye bread"]
    one.press("Green tea")
    assert one.items("Cart") == ["2 \xd7 Green tea", "1 \xd7 Rye bread"]


def test_the_cookie_is_for_this_host_and_for_no_script(shop: Shop, open_browser: Open) -> None:
    browser = open_browser()
    tab = log_in(browser, "ann")
    cookie = browser.cookie(COOKIE)
    assert cookie is not None
    kept = {name: cookie[name] for name in ("domain", "path", "secure", "httpOnly", "sameSite")}
    assert kept == {"domain": "localhost", "path": "/", "secure": True, "httpOnly": True, "sameSite": "Lax"}
    assert "expiry" not in cookie
    assert COOKIE not in tab.run("return document.cookie")


def test_who_logs_out_in_one_tab_is_out_in_the_other(shop: Shop, open_browser: Open) -> None:
    """The other tab has the old page, the cookie is gone; whoever kept it is out too, at both nodes."""
    browser = open_browser()
    one = log_in(browser, "ann")
    one.press("Green tea")
    other = browser.tab()
    token = browser.cookie(COOKIE)
    assert token is not None
    one.press("Log out")
    assert LOGGED_OUT in one.text()

    other.press("Rye bread")
    assert LOGGED_OUT in other.text()
    assert "1 \xd7 Green tea" not in other.items("Cart")

    shop.site.await_equal()
    for node in shop.nodes:
        browser.plant(token)
        browser.address = node
        one.open("/")
        assert LOGGED_OUT in one.text()
        assert one.items("Cart") == []


def test_a_device_that_is_ended_in_the_list_is_out_at_its_next_click(shop: Shop, open_browser: Open) -> None:
    laptop = log_in(open_browser(), "bob")
    phone_browser = open_browser()
    phone = log_in(phone_browser, "bob")
    phone.press("Green tea")
    shop.site.await_equal()  # each node lists what it has heard of
    laptop.press("Devices")
    assert len(laptop.items("Devices")) == 2
    assert laptop.text().count("This device") == 1
    assert "Chrome/" in laptop.items("Devices")[0], "what the browser calls itself"

    laptop.press("End")
    shop.site.await_equal()
    laptop.open("/devices")
    assert len(laptop.items("Devices")) == 1
    assert "This device" in laptop.text()
    phone.press("Devices")
    assert LOGGED_OUT in phone.text()
    laptop.press("The shop")
    assert "Logged in as bob" in laptop.text()
