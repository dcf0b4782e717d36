"""From Kafka's records to changes of one region: another's are passed over unread, what nobody can use is refused."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME

from edge_service.region_payloads import Changes, milliseconds, told_sale
from streams.messages import PriceChanged, Refused, StockChanged, StockUnchanged, read
from streams.topics import INVENTORY, PRICES

TOPICS = (INVENTORY, PRICES)
FUTURE_SECONDS = 300
"""How far ahead of the broker's clock (else of this machine's) a message's time and sequence may be. One from a clock
that runs ahead would make all look fresh, and outrank every later change until then."""


class Reading:
    """What one region's projector makes of records."""

    def __init__(self, region: str, regions: Collection[str], clock: Callable[[], float], prefix: str = "") -> None:
        """`regions`: all names, in the order of regions.toml. Who has the first one answers for keys that name none.

        `prefix`: what topics are called by before their names.
        """
        self._own = f"{region}:".encode()
        self._region, self._clock = region, clock
        self._others = frozenset(name.encode() for name in regions)
        self._strays = region == next(iter(regions))
        self._expected = {prefix + topic.name: frozenset(topic.messages) for topic in TOPICS}

    def take(self, record: Any, changes: Changes) -> bool:
        """Add the record's change; False where it is none of this region's. Raises Refused."""
        key: bytes | None = record.key()
        if key is None or not key.startswith(self._own):
            if self._strays and (key or b"").partition(b":")[0] not in self._others:
                raise Refused(f"key: {key!r} names no region of regions.toml; it must be region:sku")
            return False
        message = read(record.headers(), record.value())
        if message.key != key:
            raise Refused(f"key: {key!r} is not that of the value, {message.key!r}")
        if type(message) not in self._expected[record.topic()]:
            raise Refused(f"header type: {message.type} does not belong on this topic")
        at = self._time(record, message)
        if isinstance(message, StockChanged):
            changes.add(message.sku, message.sequence, at, message.stock)
        elif isinstance(message, PriceChanged):
            changes.add(message.sku, message.sequence, at, None, message.list_price, told_sale(message.sale_price))
        elif isinstance(message, StockUnchanged):
            changes.stock_at = max(changes.stock_at, at)
        else:
            changes.prices_at = max(changes.prices_at, at)
        return True

    def _time(self, record: Any, message: Any) -> int:
        """The message's `at` in ms since 1970. Raises Refused for one from a clock that runs ahead."""
        kind, told = record.timestamp()
        newest = (told if kind == TIMESTAMP_LOG_APPEND_TIME else int(self._clock() * 1000)) + FUTURE_SECONDS * 1000
        at, sequence = milliseconds(message.at), getattr(message, "sequence", 0) // 1000
        if at > newest or sequence > newest:
            field, value = ("at", at) if at > newest else ("sequence", sequence)
            ahead = (value - newest) // 1000 + FUTURE_SECONDS
            raise Refused(
                f"{message.type}: field {field}: is {ahead} seconds ahead of the clock; {FUTURE_SECONDS} may be"
            )
        return at
