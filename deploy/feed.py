"""A small simulated shop floor: goods are sold at the till and shelves are filled up, every second.

`python -m deploy.feed [--seconds N]`. What is simulated has a fixed seed. Stock is PostgreSQL's: the orders' service is
told of goods that come and go, and the relay tells the edge; the edge itself hears only that all else is as it was.
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
REFILLED = 0.5
SOLD_MEANWHILE = 409
RESTOCKED = (12, 60)


class Feed:
    """The feed of some regions; `tick` is one second of it."""

    def __init__(self, settings: Settings, products: Mapping[str, list[str]]) -> None:
        self._edge, self._orders = settings.local_edge, settings.local_orders
        self._key = settings.feed_key
        self._bearer = {"Authorization": f"Bearer {self._key}"}
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
        asked = f"{self._orders}/v1/{region}/stock"
        found = _must(asking.ask(f"{asked}?skus={','.join(chosen)}", headers=self._bearer), 200)
        movements = [self._movement(product) for product in found.json["products"]]
        told = asking.post(asked, {"movements": movements}, asking.once(self._key)) if movements else found
        if told.status != SOLD_MEANWHILE:
            _must(told, 200)
        beat = json.dumps({"at": datetime.now(UTC).isoformat()}).encode()
        headers = {**self._bearer, "Content-Type": "application/x-ndjson"}
        _must(asking.ask(f"{self._edge}/v1/{region}/deltas", beat, headers), 200)
        return len(movements)

    def _movement(self, product: dict[str, Any]) -> dict[str, Any]:
        """Some are sold; a shelf that is nearly empty is filled up now and then."""
        left = product["stock"]
        if left <= LOW and self._random.random() < REFILLED:
            return {"sku": product["sku"], "change": self._random.randint(*RESTOCKED), "reason": "receipt"}
        return {"sku": product["sku"], "change": -min(left, self._random.randint(1, 3)), "reason": "sale"}


def _must(answer: asking.Answer, status: int) -> asking.Answer:
    """`answer`, if it has that status. Raises Unavailable, TandemError."""
    if answer.status >= 500:
        raise Unavailable(f"answered {answer.status}")
    if answer.status != status:
        problem: Any = answer.json
        raise TandemError(f"answered {answer.status}: {problem.get('detail', problem)}")
    return answer


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
