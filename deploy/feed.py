"""A small simulated stock feed: shoppers buy, shelves are filled up, and every second the edge is told.

`python -m deploy.feed [--seconds N]`. What is simulated has a fixed seed; stock is read back from the edge before each
change, so that a change made by someone else is kept.
"""

from __future__ import annotations

import argparse
import json
import random
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from typing import Any

from deploy import asking, processes
from tandem import regions as regions_file
from tandem import settings as settings_file
from tandem.errors import TandemError, Unavailable
from tandem.settings import Settings

SEED = 20171231
PRODUCTS = 200
"""Per region, the most bought ones that have bundles."""
CHANGES = 5
"""Products per region and second."""
LOW = 5
RESTOCKED = (12, 60)


class Feed:
    """The feed of some regions; `tick` is one second of it."""

    def __init__(self, settings: Settings, products: Mapping[str, list[str]]) -> None:
        self._edge = settings.local_edge
        self._key = asking.delta_key(settings)
        self._products = products
        self._random = random.Random(SEED)  # noqa: S311 - a simulation

    def tick(self) -> int:
        """Tell every region what changed, and that the rest did not; gives the number of changes."""
        return sum(self._tell(region, skus) for region, skus in self._products.items())

    def run(self, stop: threading.Event, say: Callable[[str], object]) -> None:
        """A tick a second until `stop`; an edge that is away is waited for, and said once. A refusal ends it."""
        away = False
        while not stop.wait(1.0):
            try:
                self.tick()
                away = False
            except Unavailable as error:
                if not away:
                    say(f"feed: {error}; trying on")
                away = True
            except TandemError as error:
                say(f"feed: stopped: {error}")
                return

    def _tell(self, region: str, skus: list[str]) -> int:
        chosen = self._random.sample(skus, min(CHANGES, len(skus)))
        found = asking.ask(f"{self._edge}/v1/{region}/live?skus={','.join(chosen)}")
        _must(found, 200)
        now = datetime.now(UTC).isoformat()
        sequence = time.time_ns() // 1_000_000
        changes = [
            {"sku": product["sku"], "stock": self._next(product["stock"]), "sequence": sequence, "at": now}
            for product in found.json["products"]
            if product["stock"] is not None
        ]
        lines = "".join(f"{json.dumps(entry)}\n" for entry in [*changes, {"at": now}])
        headers = {"Authorization": f"Bearer {self._key}", "Content-Type": "application/x-ndjson"}
        _must(asking.ask(f"{self._edge}/v1/{region}/deltas", lines.encode(), headers), 200)
        return len(changes)

    def _next(self, stock: int) -> int:
        """Some are sold; a shelf that is nearly empty is filled up now and then."""
        if stock <= LOW and self._random.random() < 0.5:
            return stock + self._random.randint(*RESTOCKED)
        return max(0, stock - self._random.randint(1, 3))


def _must(answer: asking.Answer, status: int) -> None:
    if answer.status >= 500:
        raise Unavailable(f"the edge answers {answer.status}")
    if answer.status != status:
        problem: Any = answer.json
        raise TandemError(f"the edge answers {answer.status}: {problem.get('detail', problem)}")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m deploy.feed", description=__doc__)
    parser.add_argument("--as-of", type=date.fromisoformat, default=date(2017, 12, 31))
    parser.add_argument("--seconds", type=float, default=float("inf"))
    options = parser.parse_args(arguments)
    settings = settings_file.from_environment()
    served = set(regions_file.load(settings.config_folder).names)
    products = asking.popular(settings, options.as_of, PRODUCTS)
    feed = Feed(settings, {region: skus for region, skus in products.items() if region in served})
    end = time.monotonic() + options.seconds
    while time.monotonic() < end:
        print(f"{datetime.now(UTC):%T}  {feed.tick()} changes")
        time.sleep(1)
    return 0


if __name__ == "__main__":
    processes.command(main)
