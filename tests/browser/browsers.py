"""Headless Chromium: browsers with profiles of their own, and their tabs."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from selenium.common.exceptions import StaleElementReferenceException, WebDriverException
from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from tests.integration.cluster import eventually

PATIENCE = 30.0
SWITCHES = [
    "--headless=new",
    "--no-sandbox",
    "--disable-dev-shm-usage",  # containers have little of it
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1000,800",
]


def need_chromium() -> tuple[str, str]:
    """Return the browser and its driver; skip the test where they are not installed, fail in CI."""
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if browser is None or driver is None:
        if os.environ.get("CI"):
            pytest.fail("chromium and chromedriver are not installed, and CI needs them")
        pytest.skip("chromium or chromedriver is not installed (Debian: chromium, chromium-driver)")
    return browser, driver


class Browser:
    """Somebody's browser. Its tabs share one profile, and so their cookies.

    Args:
        profile: an empty directory for the profile.
        address: where the site is.
    """

    def __init__(self, profile: Path, address: str) -> None:
        browser, driver = need_chromium()
        options = ChromeOptions()
        options.binary_location = browser
        options.page_load_strategy = "none"  # two tabs can be under way at once; `Tab` waits
        for switch in [*SWITCHES, f"--user-data-dir={profile}"]:
            options.add_argument(switch)
        # With both programs named, Selenium looks for none.
        self.driver = Chrome(options, ChromeService(driver))
        self.address = address

    def tab(self) -> "Tab":
        """Open the site in a new tab."""
        self.driver.switch_to.new_window("tab")
        tab = Tab(self, self.driver.current_window_handle)
        tab.open("/")
        return tab

    def cookie(self, name: str) -> dict[str, Any] | None:
        """Return a cookie with its attributes."""
        return self.driver.get_cookie(name)

    def plant(self, cookie: dict[str, Any]) -> None:
        """Put a cookie of this host into the jar."""
        self.driver.add_cookie({name: value for name, value in cookie.items() if name != "domain"})


class Tab:
    """One tab of a browser, looked at by its user.

    Args:
        browser: the browser.
        handle: what the driver calls the tab.
    """

    def __init__(self, browser: Browser, handle: str) -> None:
        self._browser = browser
        self._driver = browser.driver
        self._handle = handle
        self._left: WebElement | None = None

    def open(self, path: str) -> None:
        """Go to a page of the site."""
        self._leave(lambda: self._driver.get(self._browser.address + path))
        self.await_page()

    def press(self, name: str) -> None:
        """Press a button or follow a link, and wait for the page that comes of it.

        Args:
            name: what is written on it, or a button's value.
        """
        self.begin_to_press(name)
        self.await_page()

    def begin_to_press(self, name: str) -> None:
        """Press a button or follow a link, and wait for nothing."""
        self._switch()
        found = f"//button[normalize-space()='{name}' or @value='{name}'] | //a[normalize-space()='{name}']"
        self._leave(self._driver.find_element(By.XPATH, found).click)

    def await_page(self) -> None:
        """Wait until the page is there that was asked for last."""
        self._switch()
        eventually(self._is_new, PATIENCE, "the next page")

    def fill(self, field: str, text: str) -> None:
        """Type into a field of the page."""
        self._switch()
        self._driver.find_element(By.NAME, field).send_keys(text)

    def text(self) -> str:
        """Return what the page says."""
        self._switch()
        return self._driver.find_element(By.TAG_NAME, "body").text

    def items(self, heading: str) -> list[str]:
        """Return what is said in the list under a heading, without the buttons."""
        self._switch()
        found = self._driver.find_elements(By.XPATH, f"//section[h2='{heading}']//li/span")
        return [item.text for item in found]

    def run(self, script: str) -> Any:
        """Run a script in the page and return what it returns."""
        self._switch()
        return self._driver.execute_script(script)

    def _switch(self) -> None:
        self._driver.switch_to.window(self._handle)

    def _leave(self, go: Callable[[], object]) -> None:
        self._switch()
        self._left = self._driver.find_element(By.TAG_NAME, "html")
        go()

    def _is_new(self) -> bool:
        assert self._left is not None
        try:
            self._left.is_enabled()
        except StaleElementReferenceException:
            return self._is_complete()
        except WebDriverException as error:
            raise AssertionError("between two pages there is none to ask") from error
        return False

    def _is_complete(self) -> bool:
        try:
            return bool(self._driver.execute_script("return document.readyState") == "complete")
        except WebDriverException as error:
            raise AssertionError("the page has gone") from error


@contextmanager
def running_browser(profile: Path, address: str) -> Iterator[Browser]:
    """Run a browser, and end it."""
    browser = Browser(profile, address)
    try:
        yield browser
    finally:
        browser.driver.quit()
