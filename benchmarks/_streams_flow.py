"""Changes of stock at a steady rate, as a process of its own.

`python -m benchmarks._streams_flow BROKERS TOPIC_PREFIX CHANGES_A_SECOND`
"""

from __future__ import annotations

import itertools
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from benchmarks import _edge_world
from streams import broker
from streams.messages import StockChanged
from tandem.settings import Settings

FIRST, PRODUCTS = 200, 9_000
"""Products before the first are others' to change."""
AT_ONCE = 20


class Teller:
    """Tells changes of one region."""

    def __init__(self, settings: Settings) -> None:
        self._settings, self._producer = settings, broker.producer(settings)
        self._sequences = itertools.count(time.time_ns() // 1000)

    def tell(self, product: int, stock: int) -> None:
        sku, sequence = _edge_world.sku(product), next(self._sequences)
        change = StockChanged(region="north", sku=sku, stock=stock, sequence=sequence, at=datetime.now(UTC))
        broker.send(self._producer, self._settings, change)
        self._producer.poll(0)


def flow(settings: Settings, a_second: int) -> None:
    """Tell changes until ended."""
    teller, started = Teller(settings), time.perf_counter()
    for number in itertools.count(1):
        teller.tell(FIRST + number % PRODUCTS, number % 900)
        if number % AT_ONCE == 0:
            time.sleep(max(0.0, started + number / a_second - time.perf_counter()))


@contextmanager
def flowing(settings: Settings, a_second: int) -> Iterator[None]:
    told = (settings.kafka, settings.topic_prefix, str(a_second))
    process = subprocess.Popen([sys.executable, "-m", "benchmarks._streams_flow", *told])
    try:
        yield
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    flow(Settings(kafka=sys.argv[1], topic_prefix=sys.argv[2]), int(sys.argv[3]))
