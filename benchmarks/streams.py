"""Changes over Kafka into a region's Redis and an edge: how many a second through each hop, how soon, at what cost.

`make bench-streams`, or `python -m benchmarks.streams --json FILE`.

*produce*: until the broker has acknowledged all. *project*: `tandem project`, a process of its own, from the first
place in Redis to the last, the state compared with a reference. *plain loop*: the rival (benchmarks/_plain_loop.py) on
the same topic and Redis, its state compared too; both alternate. *edge*: an edge's feed takes in what the projector
wrote. *visible*: from before a change is produced until the first answer of an edge that shows it, while 2,000 a
second flow.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import redis

from benchmarks import _edge_load, _edge_world, _plain_loop, _streams_flow, _told
from benchmarks._streams_flow import Teller
from benchmarks._streams_world import World, reference
from benchmarks._told import Row
from benchmarks.edge import redis_up
from deploy import kafka, services
from edge_service.live import Feed, LiveState
from edge_service.region_reader import RegionReader
from streams import broker
from streams.messages import StockChanged
from streams.topics import INVENTORY
from tandem.offer import Live
from tandem.settings import Settings

FLOORS = {"tandem/plain_loop": 5.0, "project_per_second": 30_000.0}
CEILINGS = {"visible_p99_ms": 50.0}
PRODUCTS = 50_000
FLOWING_A_SECOND = 2_000
WARM_SECONDS = 5.0
ASK_SECONDS = 0.001


class Wrong(Exception):
    """The state is not what was sent."""


class Servers(NamedTuple):
    """A broker and a Redis of this run."""

    settings: Settings
    url: str
    folder: Path
    pids: dict[str, int]

    @contextmanager
    def world(self) -> Iterator[World]:
        """New topics, an empty Redis."""
        with redis.Redis.from_url(self.url) as client:
            client.flushall()
        settings = msgspec.structs.replace(self.settings, topic_prefix=f"{uuid.uuid4().hex}-")
        broker.make_topics(settings, lambda _: None)
        world = World(settings, {"north": self.url}, self.folder)
        try:
            yield world
        finally:
            world.close()


@contextmanager
def servers(folder: Path) -> Iterator[Servers]:
    (port,) = services.free_ports(1)
    settings = Settings(home=folder / "home", kafka=f"127.0.0.1:{port}")
    kafka.fetch(settings, print)
    (server,) = kafka.brokers(settings)
    server.start()
    try:
        with redis_up(folder) as url, redis.Redis.from_url(url) as client:
            told: Any = client.info("server")
            assert server.pid is not None
            yield Servers(settings, url, folder, {"Kafka": server.pid, "Redis": told["process_id"]})
    finally:
        server.stop()


class Projected(NamedTuple):
    produced_per_second: float
    per_second: float
    cpu: dict[str, float]
    """CPU seconds of each process for a million changes."""
    edge_per_second: float


def projected(held: Servers, count: int) -> Projected:
    """Produce, project, and let an edge take it in. Raises Wrong."""
    with held.world() as world:
        changes = _stock(count)
        started = time.perf_counter()
        world.send(changes)
        produced = count / (time.perf_counter() - started)
        per_second, cpu = _project(held, world, count)
        if not world.arrived():
            raise Wrong("the state in Redis is not what was sent")
        return Projected(produced, per_second, cpu, asyncio.run(_edge(world, count)))


def _stock(count: int) -> list[StockChanged]:
    at, first = datetime.now(UTC), time.time_ns() // 1000
    return [
        StockChanged(
            region="north", sku=_edge_world.sku(n * 7_919 % PRODUCTS), stock=n % 900, sequence=first + n, at=at
        )
        for n in range(count)
    ]


def _project(held: Servers, world: World, count: int) -> tuple[float, dict[str, float]]:
    projecting = world.projecting()
    assert projecting.process is not None
    pids = {**held.pids, "projector": projecting.process.pid}
    begun, started = 0, 0.0
    while (done := sum(world.places().values())) < count:
        if done and not begun:
            begun, started = done, time.perf_counter()
            before = {name: _edge_load.cpu_seconds(pid) for name, pid in pids.items()}
        time.sleep(0.01)
    seconds, million = time.perf_counter() - started, 1e6 / (count - begun)
    cpu = {name: (_edge_load.cpu_seconds(pid) - before[name]) * million for name, pid in pids.items()}
    projecting.kill()
    return (count - begun) / seconds, cpu


async def _edge(world: World, count: int) -> float:
    """Changes that an edge's feed takes in in a second, of those that the stream still has."""
    state, reader = LiveState(), RegionReader(_edge_world.region_at(world.urls["north"]))
    feed = Feed(reader, state)
    feed._at = b"0-0"
    entries = sum((len(fields) - 1) for _, fields in world.entries())
    started = time.perf_counter()
    await feed.catch_up()
    seconds = time.perf_counter() - started
    reader.close()
    return entries / seconds


def plain(held: Servers, count: int) -> float:
    """Messages a second that the plain loop brings into Redis. Raises Wrong."""
    with held.world() as world:
        changes = _stock(count)
        world.send(changes)
        topic = world.settings.topic_prefix + INVENTORY.name
        command = [sys.executable, "-m", "benchmarks._plain_loop", held.settings.kafka, topic, held.url, str(count)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        with redis.Redis.from_url(held.url) as client:
            found: Any = client.hgetall(_plain_loop.KEY)
        if {sku.decode(): Live(stock=int(stock), list_price=None) for sku, stock in found.items()} != reference(
            changes
        ):
            raise Wrong("the plain loop's state is not what was sent")
        return count / float(done.stdout)


def visible(held: Servers, probes: int) -> list[float]:
    """Milliseconds from before a change is produced until an answer shows it, one for each probe."""
    with held.world() as world:
        (port,) = services.free_ports(1)
        _edge_world.publish(_edge_world.region_at(held.url), 10_000)
        home = str(held.folder / "edge")
        command = ("benchmarks._edge_rivals", "tandem", "--port", str(port), "--redis", held.url, "--home", home)
        world.projecting()
        with (
            _edge_load.served(*command, port=port, log=held.folder / "edge.log", path="/readyz"),
            _streams_flow.flowing(world.settings, FLOWING_A_SECOND),
            socket.create_connection(("127.0.0.1", port)) as connection,
        ):
            teller = Teller(world.settings)
            teller.tell(0, 1)
            time.sleep(WARM_SECONDS)
            return [_seen(teller, connection, number) for number in range(probes)]


def _seen(teller: Teller, connection: socket.socket, number: int) -> float:
    """Change the stock of a product that others have plenty of, and ask for its bundles until they say so."""
    product, units = number % 100, 20 + number % 7 + number // 100 % 23 * 10
    request = f"GET /v1/north/bundles/{_edge_world.sku(product)} HTTP/1.1\r\nHost: edge\r\n\r\n".encode()
    wanted = b'"sellable":%d,' % units
    started = time.perf_counter()
    teller.tell(product, units)
    while wanted not in _edge_load.ask(connection, request):
        time.sleep(ASK_SECONDS)
    seconds = time.perf_counter() - started
    time.sleep(0.005)
    return 1_000 * seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--changes", type=int, default=300_000)
    parser.add_argument("--plain", type=int, default=30_000, help="messages for the plain loop")
    parser.add_argument("--probes", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    ours, theirs = [], []
    with tempfile.TemporaryDirectory() as made, servers(Path(made)) as held:
        for _ in range(options.rounds):
            ours.append(projected(held, options.changes))
            theirs.append(plain(held, options.plain))
        seen = sorted(visible(held, options.probes)) if options.probes else [0.0]
    rows = [
        Row("produce", [each.produced_per_second for each in ours], "changes/s"),
        Row("project", [each.per_second for each in ours], "changes/s"),
        Row("plain loop", theirs, "messages/s"),
        Row("edge takes in", [each.edge_per_second for each in ours], "changes/s"),
        *(Row(f"CPU of {name}, a million", [each.cpu[name] for each in ours], "CPU s") for name in ours[0].cpu),
        *(
            Row(f"visible, {share} %", [seen[min(len(seen) - 1, len(seen) * share // 100)]], "ms")
            for share in (50, 90, 99)
        ),
    ]
    by_name = {row.name: row.value for row in rows}
    ratios = {
        "tandem/plain_loop": by_name["project"] / by_name["plain loop"],
        "project_per_second": by_name["project"],
        "visible_p99_ms": by_name["visible, 99 %"],
    }
    print(_told.table(rows, ratios, FLOORS, CEILINGS))
    if options.json:
        _told.write_json(options.json, rows, ratios)


if __name__ == "__main__":
    main()
