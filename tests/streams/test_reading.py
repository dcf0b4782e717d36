"""Who reads what: one's own, another's, nobody's."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import pytest

from edge_service.region_payloads import Changes
from streams.messages import Message, PriceChanged, PricesUnchanged, StockChanged, StockUnchanged, encode, headers
from streams.reading import FUTURE_SECONDS, Reading
from streams.topics import INVENTORY, PRICES
from tandem.errors import InputError

NOW = datetime.now(UTC)
STOCK = StockChanged(region="north", sku="1", stock=5, sequence=7, at=NOW)
PRICE = PriceChanged(region="north", sku="1", list_price=299, sequence=7, at=NOW)


class Record:
    """As Kafka's client gives it."""

    def __init__(self, message: Message, topic: str = INVENTORY.name, key: bytes | None = None, kind: int = 2) -> None:
        self._message, self._topic, self._key, self._kind = message, topic, key, kind

    def key(self) -> bytes:
        return self._message.key if self._key is None else self._key

    def value(self) -> bytes:
        return encode(self._message)

    def headers(self) -> list[tuple[str, bytes]]:
        return headers(self._message)

    def topic(self) -> str:
        return self._topic

    def timestamp(self) -> tuple[int, int]:
        return self._kind, int(NOW.timestamp() * 1000)


def reading(region: str = "north", clock: float = 0.0) -> Reading:
    return Reading(region, ["north", "south"], lambda: clock or time.time())


def taken(record: Any, by: Reading) -> Changes | None:
    changes = Changes()
    return changes if by.take(record, changes) else None


def test_stock_and_prices_are_told_apart() -> None:
    stock, price = taken(Record(STOCK), reading()), taken(Record(PRICE, PRICES.name), reading())
    assert stock is not None
    assert price is not None
    assert (stock.stocks, stock.lists, stock.sales) == ([5], [None], [None])
    assert (price.stocks, price.lists, price.sales) == ([None], [299], ["-"])


def test_a_quiet_shop_says_up_to_when_all_is_as_it_was() -> None:
    stock = taken(Record(StockUnchanged(region="north", at=NOW)), reading())
    prices = taken(Record(PricesUnchanged(region="north", at=NOW), PRICES.name), reading())
    assert stock is not None
    assert prices is not None
    now = int(NOW.timestamp() * 1000)
    assert (stock.stock_at, stock.prices_at, len(stock)) == (now, 0, 0)
    assert (prices.stock_at, prices.prices_at, len(prices)) == (0, now, 0)


def test_another_regions_message_is_not_even_read() -> None:
    class Unread(Record):
        def value(self) -> bytes:
            raise AssertionError

    assert taken(Unread(STOCK), reading("south")) is None


def test_a_key_of_no_region_is_the_first_regions_to_put_aside() -> None:
    stray = Record(STOCK, key=b"mars:1")
    assert taken(stray, reading("south")) is None
    with pytest.raises(InputError, match="names no region"):
        taken(stray, reading("north"))


def test_a_message_on_the_wrong_topic_is_refused() -> None:
    with pytest.raises(InputError, match="stock-changed does not belong on this topic"):
        taken(Record(STOCK, PRICES.name), reading())


def test_the_brokers_clock_judges_where_it_stamps_and_ours_where_it_does_not() -> None:
    assert taken(Record(STOCK), reading(clock=1.0)) is not None
    with pytest.raises(InputError, match=r"field at: is .* seconds ahead of the clock"):
        taken(Record(STOCK, kind=1), reading(clock=NOW.timestamp() - FUTURE_SECONDS - 2))
