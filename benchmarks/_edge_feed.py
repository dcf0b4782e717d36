"""A feed of stock and price changes at a steady rate, as a process of its own.

`python -m benchmarks._edge_feed REDIS_URL PRODUCTS DELTAS_A_SECOND`
"""

from __future__ import annotations

import itertools
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from benchmarks import _edge_load, _edge_world
from edge_service.region_store import Delta, RegionStore

BATCH = 20
"""Deltas told at once: one entry of the stream."""


def deltas(products: int) -> Iterator[Delta]:
    """Changes of products drawn at random: two of stock for one of a price."""
    chance, first = random.Random(_edge_world.SEED), time.time_ns() // 1_000_000
    for sequence in itertools.count(first):
        number = chance.randrange(products)
        at = datetime.now(UTC)
        if sequence % 3:
            yield Delta(sku=_edge_world.sku(number), sequence=sequence, at=at, stock=chance.randrange(50, 900))
        else:
            price = _edge_world.price_of(number) + chance.randrange(-9, 9)
            yield Delta(sku=_edge_world.sku(number), sequence=sequence, at=at, list_price=price)


def tell(url: str, products: int, a_second: int) -> None:
    """Tell deltas until ended."""
    made, started = deltas(products), time.perf_counter()
    with RegionStore(_edge_world.region_at(url)) as store:
        for batch in itertools.count(1):
            store.push(itertools.islice(made, BATCH))
            time.sleep(max(0.0, started + batch * BATCH / a_second - time.perf_counter()))


@contextmanager
def running(url: str, products: int, a_second: int) -> Iterator[None]:
    command = [sys.executable, "-m", "benchmarks._edge_feed", url, str(products), str(a_second)]
    process = subprocess.Popen(command, preexec_fn=_edge_load.on_load_core)
    try:
        time.sleep(1.0)  # until it is at work
        yield
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    tell(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
