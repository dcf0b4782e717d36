"""The edge's live state: how soon a change is in the answers, how fast it catches up, what it takes, how it starts.

`make bench-edge_live`, or `python -m benchmarks.edge_live --json FILE`.

*visible*: from before a change is sent to Redis until the first answer that shows it, while the edge answers 2,000
requests a second. *catching up*: a feed of 1,000,000 changes, one in ten told twice and one in ten out of order, read
from the stream into arrays, and compared with a reference afterwards. *memory*: what 1,000,000 products add to a
process. *start*: from the start of the process to ready, with a release of 300,000 anchors.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import random
import socket
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import _edge_load, _edge_world, _told
from benchmarks._edge_load import Load
from benchmarks._told import Row
from benchmarks.edge import BUNDLES, redis_up
from deploy import services
from edge_service.live import Feed, LiveState
from edge_service.live_table import LiveTable
from edge_service.region_reader import RegionReader
from edge_service.region_store import Delta, RegionStore
from tandem.offer import Live

CEILINGS = {"visible_p99_ms": 5.0, "memory_mb": 150.0, "start_seconds": 3.0}
FLOORS = {"catch_up_per_second": 200_000.0}
ASKED_A_SECOND = 2_000.0
CHANGES = 2_000
"""Changes of which each is waited for."""
FEED_PRODUCTS = 50_000


class Wrong(Exception):
    """The state is not what the feed says."""


def visible(url: str, folder: Path, anchors: int) -> list[float]:
    """Milliseconds, one for each change."""
    (port,) = services.free_ports(1)
    _edge_world.publish(_edge_world.region_at(url), anchors)
    load = Load(folder, "get", _edge_world.gets(BUNDLES, anchors, 20_000))
    with (
        _edge_world.edge(url, folder, port),
        load.running(port, 600, 16, ASKED_A_SECOND),
        RegionStore(_edge_world.region_at(url)) as store,
        _edge_load.here_on(_edge_load.LOAD_CORE),
        socket.create_connection(("127.0.0.1", port)) as connection,
    ):
        time.sleep(3.0)  # until answers are warm
        return [_seen(store, connection, number) for number in range(CHANGES)]


def _seen(store: RegionStore, connection: socket.socket, number: int) -> float:
    """Change the stock of a product that others have plenty of, and ask for its bundles until they say so."""
    name, units = _edge_world.sku(number % 100), 20 + number % 7 + number // 100 % 23 * 10
    request = f"GET /v1/north/bundles/{name} HTTP/1.1\r\nHost: edge\r\n\r\n".encode()
    wanted = b'"sellable":%d,' % units
    started = time.perf_counter()
    store.push([Delta(sku=name, sequence=time.time_ns() // 1_000, at=datetime.now(UTC), stock=units)])
    while wanted not in _edge_load.ask(connection, request):
        pass
    return 1_000 * (time.perf_counter() - started)


def feed(count: int) -> tuple[list[Delta], dict[str, Live]]:
    """`count` changes, of which one in ten comes twice and one in ten late, and the state that they end in."""
    chance, at = random.Random(_edge_world.SEED), datetime.now(UTC)
    deltas = [_delta(chance, sequence, at) for sequence in range(1, count * 9 // 10 + 1)]
    newest: dict[str, dict[str, int | None]] = {}
    for delta in deltas:
        fields = {"stock": delta.stock, "list_price": delta.list_price, "sale_price": delta.sale_price}
        told = {name: value for name, value in fields.items() if value is None or isinstance(value, int)}
        newest.setdefault(delta.sku, {}).update(told)
    deltas += chance.sample(deltas, count - len(deltas))
    for _ in range(count // 10):
        place = chance.randrange(len(deltas))
        other = min(len(deltas) - 1, place + chance.randrange(1, 5_000))
        deltas[place], deltas[other] = deltas[other], deltas[place]
    empty = {"stock": None, "list_price": None, "sale_price": None}
    return deltas, {sku: Live(**(empty | fields)) for sku, fields in newest.items()}


def _delta(chance: random.Random, sequence: int, at: datetime) -> Delta:
    sku, kind = _edge_world.sku(chance.randrange(FEED_PRODUCTS)), chance.randrange(6)
    if kind < 4:
        return Delta(sku=sku, sequence=sequence, at=at, stock=chance.randrange(1_000))
    if kind == 4:
        return Delta(sku=sku, sequence=sequence, at=at, list_price=chance.randrange(100, 9_999))
    sale = None if chance.random() < 0.5 else chance.randrange(50, 9_000)
    return Delta(sku=sku, sequence=sequence, at=at, sale_price=sale)


def catching_up(url: str, count: int) -> float:
    """Changes a second, from the stream to arrays that are what the reference says. Raises Wrong."""
    deltas, reference = feed(count)
    state = LiveState()
    with _edge_load.here_on(_edge_load.SERVER_CORE):
        seconds = asyncio.run(_caught_up(url, state, deltas))
    if wrong := [sku for sku, live in reference.items() if state.products.get(sku) != live]:
        raise Wrong(f"{len(wrong)} of {len(reference)} products differ, such as {wrong[0]}")
    return count / seconds


async def _caught_up(url: str, state: LiveState, deltas: list[Delta]) -> float:
    reader = RegionReader(_edge_world.region_at(url))
    live = Feed(reader, state)
    with RegionStore(_edge_world.region_at(url)) as store:
        store.heartbeat()
        await live.snapshot()
        store.push(deltas)  # while this feed does not look
    started = time.perf_counter()
    if not await live.catch_up():
        raise Wrong("a part of the stream was trimmed")
    seconds = time.perf_counter() - started
    reader.close()
    return seconds


def _filled(count: int, told: Any) -> None:
    table, before = LiveTable(), _edge_load.own_resident_mb()
    for number in range(count):
        words = b"%d 1 1767614400000 %d 1 1767614400000 - 0 0" % (number % 3_000, 199 + number % 9_000)
        table.keep_all([b"%d" % (1_000_000 + number), words])
    if len(table) != count:
        raise Wrong(f"{len(table)} products, not {count}")
    told.send(_edge_load.own_resident_mb() - before)


def memory(count: int) -> float:
    """Megabytes that the live state of `count` products takes in a process of its own."""
    spawning = multiprocessing.get_context("spawn")
    ear, mouth = spawning.Pipe(duplex=False)
    process = spawning.Process(target=_filled, args=(count, mouth))
    process.start()
    megabytes: float = ear.recv()
    process.join()
    return megabytes


def starting(url: str, folder: Path, anchors: int, rounds: int) -> tuple[list[float], float]:
    """Seconds to ready, and the megabytes that the process has then."""
    _edge_world.publish(_edge_world.region_at(url), anchors)
    seconds, megabytes = [], 0.0
    for _ in range(rounds):
        (port,) = services.free_ports(1)
        started = time.perf_counter()
        with _edge_world.edge(url, folder, port) as pid:
            seconds.append(time.perf_counter() - started)
            megabytes = _edge_load.resident_mb(pid)
    return seconds, megabytes


def with_redis(folder: Path, name: str, work: Callable[[str], Any]) -> Any:
    """What `work` gives for the address of an empty Redis."""
    home = folder / name
    home.mkdir()
    with redis_up(home) as url:
        return work(url)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--anchors", type=int, default=300_000, help="of the release that is started with")
    parser.add_argument("--changes", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        seen = sorted(with_redis(folder, "visible", lambda url: visible(url, folder, 10_000)))
        rate = with_redis(folder, "feed", lambda url: catching_up(url, options.changes))
        megabytes = memory(1_000_000)
        start, held = with_redis(folder, "start", lambda url: starting(url, folder, options.anchors, options.rounds))
    p99 = seen[len(seen) * 99 // 100]
    rows = [
        Row("change visible", seen, "ms"),
        Row("change visible, 99th percentile", [p99], "ms"),
        Row("catching up, a second", [rate], "changes"),
        Row("1,000,000 products", [megabytes], "MB"),
        Row(f"start to ready, {options.anchors:,} anchors", start),
        Row("the whole process then", [held], "MB"),
    ]
    ratios = {
        "visible_p99_ms": p99,
        "catch_up_per_second": rate,
        "memory_mb": megabytes,
        "start_seconds": sorted(start)[len(start) // 2],
    }
    print(_told.table(rows, ratios, FLOORS, CEILINGS))
    if options.json:
        _told.write_json(options.json, rows, ratios)


if __name__ == "__main__":
    main()
