"""What live traffic feels of a push: an edge's answers and live changes, before and while a release is pushed.

`python -m benchmarks._push_latency REDIS_URL` pushes releases of PUSHED lists at the default rate, one after another,
until it is ended.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from benchmarks import _edge_load, _edge_world
from benchmarks._edge_load import Load
from benchmarks._told import Row
from benchmarks.edge import BUNDLES
from deploy import services
from edge_service.region_payloads import Buckets
from edge_service.region_store import Delta, RegionStore
from tandem.regions import Region

ANCHORS = 10_000
"""Of the release that is asked for."""
PUSHED = 20_000
A_SECOND = 1_000.0
SECONDS = 5.0
CHANGES = 500
"""Live changes that are timed, one after another."""


def measured(url: str, folder: Path, rounds: int) -> list[Row]:
    """99th percentiles of answers at A_SECOND and of CHANGES live changes, in `rounds` before and as many during."""
    _edge_world.publish(_edge_world.region_at(url), ANCHORS)
    (port,) = services.free_ports(1)
    load = Load(folder, "during", _edge_world.gets(BUNDLES, ANCHORS, 20_000))
    with _edge_world.edge(url, folder, port):
        load.run(port, SECONDS, 16, A_SECOND)
        before = [_round(load, port, url) for _ in range(rounds)]
        with pushing(url):
            during = [_round(load, port, url) for _ in range(rounds)]
    return [
        Row(f"{what}, 99th percentile {when}", [each[place] for each in values], "ms")
        for place, what in enumerate(("an answer of the edge", "a live change into Redis"))
        for when, values in (("before a push", before), ("during it", during))
    ]


def _round(load: Load, port: int, url: str) -> tuple[float, float]:
    """99th percentile of an answer, and of a live change."""
    with RegionStore(_edge_world.region_at(url)) as store:
        answers = load.run(port, SECONDS, 16, A_SECOND)["p99"]
        taken = sorted(_told(store, number) for number in range(CHANGES))
    return answers, 1000 * taken[CHANGES * 99 // 100]


def _told(store: RegionStore, number: int) -> float:
    change = Delta(
        sku=_edge_world.sku(number), sequence=time.time_ns() // 1_000, at=datetime.now(UTC), stock=number + 9
    )
    start = time.perf_counter()
    store.push([change])
    return time.perf_counter() - start


@contextmanager
def pushing(url: str) -> Iterator[None]:
    command = [sys.executable, "-m", "benchmarks._push_latency", url]
    with subprocess.Popen(command, preexec_fn=_edge_load.on_load_core, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield
        finally:
            process.kill()


def push(url: str) -> None:
    """Push until ended; a line on stdout says when the first is under way."""
    from benchmarks.publish import SHARD_ANCHORS, anchor_lists

    rate = {field.name: field.default for field in msgspec.structs.fields(Region)}["push_per_second"]
    region = msgspec.structs.replace(_edge_world.region_at(url), push_per_second=rate)
    with RegionStore(region) as store:
        for number in itertools.count():
            store.begin(f"pushed-{number}", Buckets.of(PUSHED // SHARD_ANCHORS, PUSHED, 0))
            print("under way", flush=True)
            store.stage(f"pushed-{number}", [], anchor_lists(PUSHED))
            store.delete(f"pushed-{number}")


if __name__ == "__main__":
    push(sys.argv[1])
