import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import unescape
from pathlib import Path

import httpx
import pytest

pytestmark = pytest.mark.integration

RUN = Path(__file__).parents[2] / "examples" / "shop" / "run.py"
PATIENCE = 30.0


def eventually(holds: Callable[[], object], what: str) -> None:
    """Wait for other processes: nothing tells this one when they are done."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, f"waited {PATIENCE} s in vain: {what}"
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


class Demo:
    """The demo as somebody sees it who started it in a terminal."""

    def __init__(self, directory: Path) -> None:
        self.data = directory / "data"
        self._output = directory / "output"
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, RUN, "--port", "0", "--data", self.data],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                env=os.environ | {"PYTHONWARNINGS": "error"},
            )
        eventually(lambda: "Ctrl-C" in self.output or self.process.poll() is not None, "the demo starts")
        nodes = re.findall(r"node \d +(http://127\.0\.0\.1:\d+/) +pid (\d+)", self.output)
        self.urls = [url for url, _ in nodes]
        self.pids = [int(pid) for _, pid in nodes]

    @property
    def output(self) -> str:
        return self._output.read_text()

    def type(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n".encode())
        self.process.stdin.flush()

    def interrupt(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(PATIENCE)

    def logs(self) -> str:
        return "".join(log.read_text() for log in self.data.glob("*.log"))


@contextmanager
def started(directory: Path) -> Iterator[Demo]:
    demo = Demo(directory)
    try:
        assert len(demo.pids) == 3, demo.output + demo.logs()
        yield demo
    finally:
        if demo.process.poll() is None:
            demo.interrupt()
        assert demo.process.stdin is not None
        demo.process.stdin.close()
        print(demo.output, demo.logs())  # shown if a test fails
        assert "Traceback" not in demo.output + demo.logs()


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """Return one demo for all tests that leave three linked nodes behind; starting it takes a second."""
    with started(tmp_path_factory.mktemp("demo")) as demo:
        yield demo


class Browser:
    """Somebody with one cookie jar, which takes no notice of ports, as in a browser."""

    def __init__(self, demo: Demo) -> None:
        self.demo = demo
        self.client = httpx.Client(follow_redirects=True, timeout=PATIENCE, trust_env=False)

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()

    def open(self, node: int, path: str = "") -> httpx.Response:
        return self.client.get(self.demo.urls[node - 1] + path)

    def post(self, node: int, path: str, **fields: str) -> httpx.Response:
        return self.client.post(self.demo.urls[node - 1] + path, data=fields)

    def cart(self, node: int) -> dict[str, int]:
        page = unescape(self.open(node).text)
        return {name: int(count) for count, name in re.findall(r"<td>(\d+) \xd7 ([^<]+)</td>", page)}

    def handle(self, node: int) -> str:
        found = re.search(r"<dt>Handle</dt><dd><code>(\w+)</code>", self.open(node).text)
        assert found is not None
        return found[1]

    def where(self, node: int) -> dict[str, object]:
        return json.loads(self.open(node, "where").text)


@pytest.fixture
def browser(demo: Demo) -> Iterator[Browser]:
    with Browser(demo) as browser:
        yield browser


def test_a_session_goes_on_at_every_node(browser: Browser) -> None:
    """Looking stores nothing; one log-in counts everywhere, and so does one log-out."""
    assert "None yet" in browser.open(1).text
    assert not browser.client.cookies
    page = browser.post(1, "login", name="<b>Ada</b>").text
    assert "&lt;b&gt;Ada&lt;/b&gt;" in page
    assert "<b>Ada" not in page
    browser.post(2, "cart/add", sku="tea")
    browser.post(2, "cart/add", sku="tea")
    eventually(lambda: browser.cart(3) == {"Green tea, 100 g": 2}, "node 3 has what node 2 was told")
    assert browser.handle(1) == browser.handle(2) == browser.handle(3)
    assert re.search(r"This node holds \d+ live sessions", browser.open(3, "sessions").text)
    browser.post(3, "cart/remove", sku="tea")
    assert browser.cart(3) == {}
    browser.post(3, "logout")
    eventually(lambda: "Logged in" not in browser.open(1).text, "node 1 hears of the log-out")


def test_logging_in_changes_the_id_and_keeps_the_cart(browser: Browser) -> None:
    """Whoever knew the id from before the log-in has nothing with it."""
    browser.post(1, "cart/add", sku="bread")
    before, cookie = browser.handle(1), browser.client.cookies["id"]
    browser.post(1, "login", name="Ada")
    assert browser.handle(1) != before
    assert browser.cart(1) == {"Rye bread": 1}
    browser.client.cookies.clear()
    browser.client.cookies.set("id", cookie, domain="127.0.0.1")
    assert browser.cart(1) == {}


def test_both_sides_of_a_split_are_merged(browser: Browser) -> None:
    """The button cuts a node off; what both sides add is everywhere after it is healed."""
    browser.post(1, "login", name="Ada")
    eventually(lambda: "Logged in" in browser.open(3).text, "node 3 hears of the log-in")
    page = browser.post(3, "cut")
    assert '<body class="node-3 cut">' in page.text
    assert browser.where(3)["isolated"] is True
    browser.post(1, "cart/add", sku="honey")
    browser.post(3, "cart/add", sku="cheese")
    eventually(lambda: browser.cart(2) == {"Heather honey": 1}, "the larger side goes on")
    assert browser.cart(3) == {"Mountain cheese, 250 g": 1}
    assert browser.where(2)["digest"] != browser.where(3)["digest"]

    assert '<body class="node-3">' in browser.post(3, "heal").text
    both = {"Heather honey": 1, "Mountain cheese, 250 g": 1}
    for node in (1, 2, 3):
        eventually(lambda node=node: browser.cart(node) == both, f"node {node} has both articles")
    eventually(lambda: len({browser.where(node)["digest"] for node in (1, 2, 3)}) == 1, "digests agree")


def test_a_node_that_cannot_tell_says_so_and_leaves_the_cookie(browser: Browser) -> None:
    """Who logged in on the other side of a split is still logged in after it."""
    browser.post(3, "cut")
    eventually(lambda: "not linked" in browser.open(1).text, "node 1 notices")
    browser.post(1, "login", name="Ada")
    cookie = browser.client.cookies["id"]
    for page in (browser.open(3), browser.post(3, "cart/add", sku="tea")):
        assert page.status_code == 503
        assert "Node 3 cannot tell who you are" in page.text
        assert "Set-Cookie" not in page.headers
    assert browser.client.cookies["id"] == cookie
    browser.post(3, "heal")
    eventually(lambda: "<strong>Ada</strong>" in browser.open(3).text, "node 3 knows the session")


def test_another_site_cannot_press_the_buttons(browser: Browser) -> None:
    """The buttons work without a session, so that a cookie's SameSite does not protect them."""
    answer = browser.client.post(browser.demo.urls[0] + "cut", headers={"Origin": "http://evil.example"})
    assert answer.status_code == 403
    assert browser.where(1)["isolated"] is False


def test_a_killed_node_is_told_of_and_started_again(browser: Browser) -> None:
    """After kill -9 the visitor goes on at another node, and the node comes back with everything."""
    demo, victim = browser.demo, browser.where(1)["pid"]
    assert isinstance(victim, int)
    browser.post(1, "login", name="Ada")
    browser.post(1, "cart/add", sku="tea")
    os.kill(victim, signal.SIGKILL)
    eventually(lambda: f"Node 1 (pid {victim}) was ended by signal 9" in demo.output, "the demo says so")
    with pytest.raises(httpx.ConnectError):
        browser.open(1)
    browser.post(2, "cart/add", sku="coffee")
    expected = {"Green tea, 100 g": 1, "Coffee beans, 500 g": 1}
    assert browser.cart(2) == expected
    assert "not linked" in browser.open(2).text

    demo.type("start 1")
    eventually(lambda: "Node 1 is back on" in demo.output, "node 1 starts")
    eventually(lambda: browser.cart(1) == expected, "node 1 has caught up")
    demo.type("kill 3\nstatus\nnonsense\nstart 3")
    eventually(lambda: "Node 3 is back on" in demo.output, "the commands are obeyed in turn")
    assert "node 3   does not run" in demo.output
    assert "The commands are:" in demo.output


def test_no_process_outlives_the_demo(tmp_path: Path) -> None:
    """Ctrl-C ends all with exit code 0, and kept data is found again; kill -9 of the demo ends them too."""
    with started(tmp_path) as demo, Browser(demo) as browser:
        browser.post(1, "login", name="Ada")
        assert all(map(is_running, demo.pids))
        assert demo.interrupt() == 0
        assert not any(map(is_running, demo.pids))
        assert f"Stopped 3 nodes (pid {', '.join(map(str, demo.pids))})" in demo.output

    with started(tmp_path) as demo, Browser(demo) as again:
        again.client.cookies.update(browser.client.cookies)
        assert "<strong>Ada</strong>" in again.open(1).text
        demo.process.kill()
        demo.process.wait(PATIENCE)
        eventually(lambda: not any(map(is_running, demo.pids)), "the nodes end")


def test_a_port_in_use_is_named() -> None:
    """The message says what to do."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = [sys.executable, str(RUN), "--port", str(port)]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert ended.returncode == 1
    assert ended.stderr.startswith(f"Port {port} is in use. Choose others")
    assert ended.stdout == ""
