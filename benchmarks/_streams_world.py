"""A world of streams: regions with a Redis each, projectors as processes of their own, and what it all must end in."""

from __future__ import annotations

import random
import signal
import subprocess
import sysconfig
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import redis

from benchmarks._serving import environment
from edge_service import region_store
from edge_service.region_payloads import live_of
from streams import broker
from streams.dead_letters import Letter, held
from streams.messages import Message, PriceChanged, StockChanged
from tandem.offer import Live
from tandem.settings import Settings

REGION = """
[[region]]
name = "{name}"
currency = "USD"
time_zone = "UTC"
redis_url = "{url}"
[region.object_store]
endpoint = "http://127.0.0.1:1"
bucket = "none"
public_url = "http://127.0.0.1:1/none"
"""
SECONDS = 60.0


def until(true: Callable[[], object], seconds: float = SECONDS, said: Callable[[], object] = str) -> None:
    """Return once `true()` holds; fail after `seconds`."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"not within {seconds:g} s: {said()}"
        time.sleep(0.02)


class Projecting:
    """A projector as a process of its own, which may be killed."""

    def __init__(self, settings: Settings, region: str, *more: str, log: Path) -> None:
        self._settings, self._arguments, self._log = settings, ("project", "--region", region, *more), log
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [str(Path(sysconfig.get_path("scripts")) / "tandem"), *self._arguments]
        with self._log.open("ab") as file:
            self.process = subprocess.Popen(command, env=environment(self._settings), stdout=file, stderr=file)

    def kill(self, number: int = signal.SIGKILL) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(30)

    @property
    def said(self) -> str:
        return self._log.read_text(encoding="utf-8") if self._log.exists() else ""


class World:
    """Topics of this test, the regions north and south, and what was sent."""

    def __init__(self, settings: Settings, urls: Mapping[str, str], folder: Path) -> None:
        """Writes regions.toml. `urls`: a Redis for each region; `folder`: where logs lie."""
        self.settings, self.urls, self._folder = settings, urls, folder
        settings.config_folder.mkdir(parents=True, exist_ok=True)
        text = "".join(REGION.format(name=name, url=url) for name, url in urls.items())
        (settings.config_folder / "regions.toml").write_text(text, encoding="ascii")
        self.sent: list[Message] = []
        self._started: list[Projecting] = []
        self._chance = random.Random(7)
        self._sequence = time.time_ns() // 1000

    def projecting(self, region: str = "north", *more: str) -> Projecting:
        found = Projecting(self.settings, region, *more, log=self._folder / f"{region}{len(self._started)}.log")
        found.start()
        self._started.append(found)
        return found

    def close(self) -> None:
        for each in self._started:
            with suppress(AssertionError):
                each.kill()

    def changes(self, count: int, products: int = 50, regions: tuple[str, ...] = ("north",)) -> list[Message]:
        """Changes of products drawn at random, three of stock for one of a price."""
        return [self._change(str(self._chance.randrange(products)), self._chance.choice(regions)) for _ in range(count)]

    def _change(self, sku: str, region: str) -> Message:
        self._sequence += 1
        at = datetime.now(UTC)
        told = {"region": region, "sku": sku, "sequence": self._sequence, "at": at}
        if self._chance.random() < 0.75:
            return StockChanged(stock=self._chance.randrange(900), **told)  # type: ignore[arg-type]
        price = self._chance.randrange(100, 900)
        return PriceChanged(list_price=price, sale_price=self._chance.choice([None, price - 10]), **told)  # type: ignore[arg-type]

    def send(self, messages: Iterable[Message]) -> None:
        """Produce them and wait until the broker has all."""
        producer = broker.producer(self.settings)
        for message in messages:
            self.sent.append(message)
            broker.send(producer, self.settings, message)
            producer.poll(0)
        assert producer.flush(SECONDS) == 0

    def send_raw(self, topic: str, key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes]]) -> None:
        producer = broker.producer(self.settings)
        producer.produce(self.settings.topic_prefix + topic, value, key, headers=headers)
        assert producer.flush(SECONDS) == 0

    def state(self, region: str = "north") -> dict[str, Live]:
        """What the region's Redis says of every product."""
        with redis.Redis.from_url(self.urls[region]) as client:
            return {sku.decode(): live_of(words) for sku, words in client.hgetall(region_store.LIVE).items()}

    def expected(self, region: str = "north") -> dict[str, Live]:
        """The same, from what was sent: per product and kind the highest sequence."""
        return reference(message for message in self.sent if message.region == region)  # type: ignore[attr-defined]

    def arrived(self, *regions: str) -> bool:
        return all(self.state(name) == self.expected(name) for name in regions or ("north",))

    def wait(self, *regions: str, seconds: float = SECONDS) -> None:
        """Until the state is what was sent."""
        until(lambda: self.arrived(*regions) or self._failed(), seconds, self._said)
        assert not self._failed(), self._said()

    def _failed(self) -> bool:
        codes = [each.process.poll() for each in self._started if each.process is not None]
        return any(code not in (None, 0, -signal.SIGKILL) for code in codes)

    def _said(self) -> str:
        return "\n".join(each.said for each in self._started)[-3000:]

    def places(self, region: str = "north") -> dict[str, int]:
        """Offset of every partition that the region has read of."""
        with redis.Redis.from_url(self.urls[region]) as client:
            return {k.decode(): int(v.split()[0]) for k, v in client.hgetall(region_store.PLACES).items()}

    def entries(self, region: str = "north") -> list[tuple[bytes, dict[bytes, bytes]]]:
        """The delta stream that edges read."""
        with redis.Redis.from_url(self.urls[region]) as client:
            found: Any = client.xrange(region_store.DELTAS)
        return list(found)

    def counted(self) -> Counter[tuple[str, str]]:
        """How often each product with its nine words is in the delta stream."""
        told: Counter[tuple[str, str]] = Counter()
        for _, fields in self.entries():
            told.update((sku.decode(), words.decode()) for sku, words in fields.items() if sku)
        return told

    def letters(self, count: int) -> list[Letter]:
        """The dead letters, once there are `count`."""
        until(lambda: len(list(held(self.settings))) >= count)
        return list(held(self.settings))


@contextmanager
def flowing(world: World, a_turn: int = 100) -> Iterator[None]:
    """Changes that keep coming while the body runs."""
    stop = threading.Event()

    def flow() -> None:
        while not stop.wait(0.02):
            world.send(world.changes(a_turn))

    thread = threading.Thread(target=flow)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def killed_at_work(world: World, projecting: Projecting, seconds: float) -> None:
    """Kill it so many seconds after it brought something in since it was started."""
    before = sum(world.places().values())
    until(lambda: sum(world.places().values()) > before)
    time.sleep(seconds)
    projecting.kill()


def reference(messages: Iterable[Message]) -> dict[str, Live]:
    """What a plain loop over all messages ends in, the highest sequence per product and kind."""
    stock: dict[str, StockChanged] = {}
    price: dict[str, PriceChanged] = {}
    for message in messages:
        held: dict[str, Any] = stock if isinstance(message, StockChanged) else price
        sku = message.sku  # type: ignore[attr-defined]
        if sku not in held or message.sequence > held[sku].sequence:  # type: ignore[attr-defined]
            held[sku] = message
    return {
        sku: Live(
            stock=stock[sku].stock if sku in stock else None,
            list_price=price[sku].list_price if sku in price else None,
            sale_price=price[sku].sale_price if sku in price else None,
        )
        for sku in stock.keys() | price.keys()
    }
