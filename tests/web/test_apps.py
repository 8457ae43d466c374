"""What every adapter has to hold under real servers: four workers, two nodes, a round-robin proxy."""

import asyncio
from collections.abc import Iterator

import pytest
from tests.web.clients import AT_ONCE, Client, Web, browse
from tests.web.servers import RUNS_ON, Site, modules, running_site

pytestmark = pytest.mark.integration

RUNS = [(module, kind) for module in modules() for kind in RUNS_ON.get(module, ())]
FEW = 30
RACES_ONLY = {200, 400, 409, 500, 503}
"""What a write may be answered whose session another request logs out at the same time."""


@pytest.fixture(scope="module", params=RUNS, ids="-".join)
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    module, kind = request.param
    with running_site(tmp_path_factory.mktemp(module), f"tests.web.apps.{module}", kind) as site:
        yield site


def test_every_application_is_run() -> None:
    assert set(modules()) <= set(RUNS_ON), "name the servers it runs on in tests/web/servers.py"


def test_the_application_keeps_the_contract(site: Site) -> None:
    """As WSGI or ASGI, in several processes on each node, alike at both."""

    async def scenario(web: Web) -> None:
        client = web.client()
        assert await client.send("GET", "/plain") == (200, "plain", {}), "no session, no cookie"
        assert await client.show() == {"user": None, "data": {}, "handle": None}
        await client.post("/put/a/1")
        shown = await client.show()
        assert (shown["user"], shown["data"]["a"]) == (None, "1")
        await client.post("/login/ann")
        before, shown = shown, await client.show()
        assert (shown["user"], shown["data"]["a"]) == ("ann", "1")
        assert shown["handle"] not in (None, before["handle"])
        await client.post("/clear")
        shown = await client.show()
        assert (shown["user"], "a" in shown["data"]) == (None, False)
        await client.post("/login/ann")
        await client.post("/logout")
        shown = await client.show()
        assert (shown["user"], "a" in shown["data"]) == (None, False)

        pids: list[set[str]] = []
        for node in range(2):
            pids.append(await workers_of(web, node))
        assert not pids[0] & pids[1]

    browse(site.ports, scenario)


async def workers_of(web: Web, node: int) -> set[str]:
    """Return the ids of a node's processes that answer; more than one, if it takes several tries."""
    found: set[str] = set()
    for _ in range(20):
        answers = await asyncio.gather(*(web.client(node=node).send("GET", "/pid") for _ in range(60)))
        found |= {answer.text for answer in answers}
        if len(found) > 1:
            return found
    raise AssertionError(f"one process answers all requests: {found}")


def test_no_write_is_lost(site: Site) -> None:
    """200 clients at once, each of which writes several keys at once, at both nodes."""

    async def visit(web: Web, name: str) -> Client:
        client = web.client()
        await client.post(f"/login/{name}")
        assert (await client.show())["user"] == name
        await client.post(f"/put/a/{name}")
        assert (await client.show())["data"]["a"] == name
        await asyncio.gather(*(client.post(f"/put/{key}/{name}") for key in "bcd"))
        return client

    async def scenario(web: Web) -> None:
        clients = await asyncio.gather(*(visit(web, f"u{n}") for n in range(AT_ONCE)))
        assert web.refusals < web.requests / 10, "a node that is well can tell"
        await asyncio.to_thread(site.await_equal)
        for node in range(2):
            seen = await asyncio.gather(*(web.client(c.jar, node=node).show() for c in clients))
            for n, shown in enumerate(seen):
                assert shown["user"] == f"u{n}"
                assert shown["data"].items() >= dict.fromkeys("abcd", f"u{n}").items()

    browse(site.ports, scenario)


def test_everybody_reads_what_they_wrote_however_slow_the_link(site: Site) -> None:
    """What one request writes at one node, the next reads at the other, which has not heard of it yet."""

    async def visit(web: Web, node: int, name: str) -> None:
        here, there = web.client(node=node), web.client(node=1 - node)
        await here.post(f"/login/{name}")
        there.jar = here.jar
        assert (await there.show())["user"] == name
        for value in "123":
            await here.post(f"/put/a/{value}")
            there.jar = here.jar
            assert (await there.show())["data"]["a"] == value
            here.jar = there.jar

    async def scenario(web: Web) -> None:
        with site.slow_link(0.05):
            await asyncio.gather(*(visit(web, n % 2, f"slow{n}") for n in range(8)))

    browse(site.ports, scenario)


def test_a_log_out_stays_whatever_is_written_at_the_same_time(site: Site) -> None:
    async def race(web: Web, name: str) -> tuple[str, dict[str, str]]:
        client = web.client()
        await client.post(f"/login/{name}")
        handle = (await client.show())["handle"]
        old = dict(client.jar)
        answers, _ = await asyncio.gather(
            asyncio.gather(*(web.client(old).send("POST", f"/put/{key}/{name}") for key in "bcdef")),
            web.client(old).post("/logout"),
        )
        assert {answer.status for answer in answers} <= RACES_ONLY
        return handle, old

    async def scenario(web: Web) -> None:
        raced = await asyncio.gather(*(race(web, f"out{n}") for n in range(FEW)))
        await asyncio.to_thread(site.await_equal)
        for node in range(2):
            for shown in await asyncio.gather(*(web.client(old, node=node).show() for _, old in raced)):
                assert shown["user"] is None
                assert not set("bcdef") & set(shown["data"])
        assert not {handle for handle, _ in raced} & site.sessions()

    browse(site.ports, scenario)


def test_nobody_can_choose_somebody_elses_session(site: Site) -> None:
    async def chosen(web: Web, cookie: str, value: str) -> None:
        victim, attacker = web.client({cookie: value}), web.client({cookie: value})
        await victim.post("/login/victim")
        await victim.post("/put/secret/1")
        await attacker.post("/put/b/1")
        assert value not in (victim.jar[cookie], attacker.jar[cookie])
        assert "secret" not in (await attacker.show())["data"]
        assert (await attacker.show())["user"] is None

    async def planted(web: Web, cookie: str, name: str) -> dict[str, str]:
        attacker = web.client()
        await attacker.post("/put/b/1")
        victim = web.client(attacker.jar)
        await victim.post(f"/login/{name}")
        await victim.post("/put/secret/1")
        assert victim.jar[cookie] != attacker.jar[cookie]
        shown = await victim.show()
        assert (shown["user"], shown["data"]["secret"]) == (name, "1")
        return attacker.jar

    async def scenario(web: Web) -> None:
        client = web.client()
        await client.post("/put/a/1")
        (cookie,) = (name for name in client.jar if not name.endswith("seen"))
        token = client.jar[cookie]
        forged = token[:-1] + ("A" if token[-1] != "A" else "B")
        values = ["chosen-by-the-attacker", "A" * len(token), token[::-1], forged]
        await asyncio.gather(*(chosen(web, cookie, value) for value in values))

        jars = await asyncio.gather(*(planted(web, cookie, f"v{n}") for n in range(FEW)))
        await asyncio.to_thread(site.await_equal)
        for node in range(2):
            for shown in await asyncio.gather(*(web.client(jar, node=node).show() for jar in jars)):
                assert shown["user"] is None
                assert "secret" not in shown["data"]

    browse(site.ports, scenario)


def test_a_split_logs_nobody_out(site: Site) -> None:
    """Neither who logged in before it, nor who does so during it; what was acknowledged is all there."""
    written: dict[str, dict[str, str]] = {}

    async def log_in(web: Web, name: str) -> Client:
        client = web.client()
        await client.post(f"/login/{name}")
        await client.post(f"/put/before/{name}")
        return client

    async def go_on(client: Client, name: str) -> None:
        for key in "abcd":
            answer = await client.send("POST", f"/put/{key}/{name}")
            assert answer.status in (200, 503)
            if answer.status == 200:
                written.setdefault(name, {})[key] = name
            shown = await client.send("GET", "/show")
            assert shown.status in (200, 503)

    async def stay(client: Client, name: str) -> None:
        await go_on(client, name)
        assert written[name].keys() == set("abcd"), "both sides know the session, and take writes"
        assert (await client.show())["user"] == name

    async def come(web: Web, node: int, name: str) -> Client:
        here, client = web.client(node=node), web.client()
        await here.post(f"/login/{name}")
        there = web.client(here.jar, node=1 - node)
        assert (await there.send("GET", "/show")).cookies == {}, "it cannot tell, so it leaves the cookie"
        answer = await there.send("POST", f"/put/a/{name}")
        assert (answer.status, answer.cookies) == (503, {})
        client.jar = here.jar
        await go_on(client, name)
        return client

    async def scenario(web: Web) -> None:
        names = [f"stays{n}" for n in range(FEW)]
        clients = list(await asyncio.gather(*(log_in(web, name) for name in names)))
        await asyncio.to_thread(site.await_equal)
        await asyncio.to_thread(site.cut)
        try:
            await asyncio.gather(*map(stay, clients, names))
            names += [f"comes{n}" for n in range(FEW)]
            clients += await asyncio.gather(*(come(web, n % 2, name) for n, name in enumerate(names[FEW:])))
        finally:
            await asyncio.to_thread(site.heal)
        for node in range(2):
            seen = await asyncio.gather(*(web.client(c.jar, node=node).show() for c in clients))
            for name, shown in zip(names, seen, strict=True):
                assert shown["user"] == name
                assert shown["data"].items() >= written.get(name, {}).items()

    browse(site.ports, scenario)
