"""Several nodes on one machine: how long until all hold the same, and what it costs."""

import os
import signal
import time
from collections.abc import Iterator

from benchmarks.bench import Bench
from benchmarks.nodes import Node, await_equal, cluster, wait_for
from benchmarks.results import Result
from benchmarks.side import Side


def lag(bench: Bench) -> list[Result]:
    """From the begin of a put on one node until another one shows it."""
    nodes = cluster(bench, 2)
    writer, reader = (node.worker() for node in nodes)
    count, runs = bench.size(3_000), iter(range(1_000))

    def turn() -> dict[str, float]:
        run = f"lag-{next(runs)}"
        reader.begin("await_stamped", count=count, run=run)
        writer.do("send_stamped", count=count, rate=1000, run=run)
        figures: dict[str, float] = reader.end()
        return figures

    figures = bench.compare({"canister": turn})["canister"]
    rows = [Result("lag", f"replication at 1,000 puts/s, {f}", "ms", figures[f]) for f in ("p50", "p99")]
    rows[0].wanted, rows[1].wanted = "1 ms", "5 ms"
    return rows


def converge(bench: Bench) -> list[Result]:
    """Puts at full speed on one of three nodes."""
    nodes = cluster(bench, 3)
    writer, count, runs = nodes[0].worker(), bench.size(50_000), iter(range(1_000))
    before = nodes[0].agent.memory()

    def turn() -> dict[str, float]:
        figures = writer.do("put_new", count=count, prefix=f"{next(runs):08d}")
        grown = nodes[0].agent.memory() - before
        return {"rate": figures["rate"], "equal": await_equal(nodes), "grown": grown}

    bench.turns = min(bench.turns, 3)
    figures = bench.compare({"canister": turn})["canister"]
    name = f"{count:,} puts at full speed, 3 nodes: "
    return [
        Result("converge", name + "equal after the last", "s", figures["equal"], wanted="1 s"),
        Result("converge", name + "the agent has grown by", "MB", figures["grown"], wanted="50 MB"),
        Result("converge", name + "rate", "1/s", figures["rate"], better="more"),
    ]


def stopped(bench: Bench) -> list[Result]:
    """A peer that is stopped for ten seconds."""
    nodes = cluster(bench, 3)
    writer, count, runs = nodes[0].worker(), bench.size(50_000), iter(range(1_000))

    def turn() -> dict[str, float]:
        before = [node.agent.memory() for node in nodes[:2]]
        os.kill(nodes[2].agent.pid, signal.SIGSTOP)
        end = time.monotonic() + bench.seconds(10)
        try:
            writer.do("put_new", count=count, prefix=f"{next(runs):08d}")
            time.sleep(max(0.0, end - time.monotonic()))
            grown = [n.agent.memory() - was for n, was in zip(nodes[:2], before, strict=True)]
        finally:
            os.kill(nodes[2].agent.pid, signal.SIGCONT)
        return {"grown": max(grown), "equal": await_equal(nodes)}

    bench.turns = min(bench.turns, 2)  # half a minute each
    figures = bench.compare({"canister": turn})["canister"]
    return [
        Result(
            "stopped", "a peer stopped for 10 s: the others grow by", "MB", figures["grown"], wanted="50 MB"
        ),
        Result(
            "stopped", "a peer stopped for 10 s: equal after it resumes", "s", figures["equal"], wanted="3 s"
        ),
    ]


def join(bench: Bench) -> list[Result]:
    """A new node beside one that holds many sessions."""
    rows: list[Result] = []
    for full in bench.counts:
        count = bench.size(full)
        first = Node(bench)
        reader = first.worker(1_000)
        reader.do("fill")
        fill(reader, count)
        await_rest(first)
        idle = reader.do("get_for", seconds=bench.seconds(2))["p99"]
        figures: dict[str, list[float]] = {"seconds": [], "p99": [], "processor": []}
        for _ in range(min(bench.turns, 2)):
            begun, spent = time.monotonic(), first.agent.processor()
            second = Node(bench, [first])
            reader.begin("get_for", seconds=bench.seconds(3))
            wait_for(lambda second=second: second.agent.do("is_linked", peers=1))
            await_equal([first, second])
            figures["seconds"].append(time.monotonic() - begun)
            spent = first.agent.processor() - spent + second.agent.processor()
            figures["processor"].append(spent / count * 1e6)
            figures["p99"].append(reader.end()["p99"])
            second.agent.close()
            wait_for(lambda first=first: first.agent.do("is_linked", peers=0))
        name = f"a new node joins {count:,} sessions"
        rows.append(Result("join", name, "s", figures["seconds"], wanted="10 s for 1 M"))
        processor = f"{name}: processor time of both agents, a session"
        rows.append(Result("join", processor, "us", figures["processor"]))
        row = Result("join", f"{name}: get meanwhile, p99", "us", figures["p99"], "idle")
        row.theirs, row.wanted = [idle] * len(row.ours), "at most 5 x"
        rows.append(row)
        first.agent.close()
    return rows


def heal(bench: Bench) -> list[Result]:
    """Two nodes that were cut off while 100 sessions changed on either side."""
    rows: list[Result] = []
    for full in bench.counts:
        count = bench.size(full)
        nodes = [Node(bench)]
        writers = [nodes[0].worker(100)]
        fill(writers[0], count)
        nodes.append(Node(bench, nodes))
        writers.append(nodes[1].worker(100))
        wait_for(lambda nodes=nodes: nodes[1].agent.do("is_linked", peers=1))
        await_equal(nodes)
        runs = iter(range(1_000))

        def turn(
            nodes: list[Node] = nodes, writers: list[Side] = writers, runs: Iterator[int] = runs
        ) -> dict[str, float]:
            nodes[1].agent.do("isolate", on=True)
            wait_for(lambda: nodes[0].agent.do("is_linked", peers=0))
            for number, writer in enumerate(writers):
                writer.do("put_new", count=100, prefix=f"{next(runs):04d}{number:04d}")
            begun, before = time.monotonic(), sum(node.agent.do("moved") for node in nodes)
            nodes[1].agent.do("isolate", on=False)
            wait_for(lambda: nodes[0].agent.do("is_linked", peers=1))
            await_equal(nodes)
            seconds, moved = time.monotonic() - begun, sum(node.agent.do("moved") for node in nodes) - before
            return {"seconds": seconds, "moved": moved / 1000}

        figures = bench.compare({"canister": turn})["canister"]
        name = f"heal {count:,} sessions of which 200 differ"
        rows.append(Result("heal", name, "s", figures["seconds"], wanted="1 s"))
        rows.append(Result("heal", f"{name}: moved", "KB", figures["moved"], wanted="400 KB"))
        for side in (*writers, *(node.agent for node in nodes)):
            side.close()
    return rows


def start(bench: Bench) -> list[Result]:
    """What a node with many sessions takes: memory, disk, and time until it serves."""
    rows: list[Result] = []
    for full in bench.counts:
        count = bench.size(full)
        node = Node(bench)
        writer = node.worker()
        fill(writer, count)
        time.sleep(bench.seconds(2))  # until the agent has moved the write-ahead log into the database
        writer.close()
        node.agent.close()
        size = sum(file.stat().st_size for file in node.path.iterdir() if file.is_file())
        figures: dict[str, list[float]] = {"memory": [], "seconds": []}
        for _ in range(bench.turns):
            begun = time.monotonic()
            node.start().do("get_unknown", count=1)
            figures["seconds"].append(time.monotonic() - begun)
            figures["memory"].append(node.agent.memory())
            node.agent.close()
        name = f"a node with {count:,} sessions: "
        rows += [
            Result("start", name + "serves after its start", "s", figures["seconds"], wanted="0.3 s"),
            Result("start", name + "memory of its agent", "MB", figures["memory"], wanted="120 MB at 1 M"),
            Result("start", name + "bytes of disk a session", "B", [size / count], wanted="500 B"),
        ]
    return rows


def sweep(bench: Bench) -> list[Result]:
    """Puts while a tenth of the sessions, which are over, is dropped."""
    count = bench.size(bench.counts[-1])
    node = Node(bench)
    writer = node.worker(1_000)
    writer.do("fill")
    fill(writer, count - count // 10)
    puts = {"count": bench.size(4_000), "rate": 500}
    runs = iter(range(1_000))

    def alone() -> dict[str, float]:
        figures: dict[str, float] = writer.do("put_paced", **puts)
        return figures

    def swept() -> dict[str, float]:
        writer.do("fill_expired", prefix=f"{next(runs):08d}", count=count // 10)
        time.sleep(bench.seconds(1))  # until the agent has moved the write-ahead log into the database
        node.agent.begin("sweep")
        figures: dict[str, float] = writer.do("put_paced", **puts)
        return {**figures, **node.agent.end()}

    bench.turns = min(bench.turns, 3)
    figures = bench.compare({"alone": alone, "swept": swept})
    name = f"{count // 10:,} expired among {count:,} swept"
    row = Result("sweep", f"{name}: put meanwhile, p99", "us", figures["swept"]["p99"], "idle")
    row.theirs, row.wanted = figures["alone"]["p99"], "at most 2 x"
    return [row, Result("sweep", name, "s", figures["swept"]["seconds"])]


def await_rest(node: Node) -> None:
    """Wait until an agent has moved and read what was stored, and takes next to nothing of a processor."""

    def rests() -> bool:
        before = node.agent.processor()
        time.sleep(0.2)
        return node.agent.processor() - before < 0.02

    wait_for(rests)


def fill(side: Side, count: int) -> None:
    """Store many sessions."""
    side.do("fill", prefix="ffffffff", count=count)
