"""Stock and prices of every product of a region in one array, 135 bytes a product with its name; and what changed."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from copy import copy

from tandem.offer import Live

SHARDS = 4_096
"""Small maps instead of one: their numbers stay below 257 up to a million products, and Python keeps those once."""
NOTHING = -1
"""In an array: no value. Amounts are never negative."""
FIELDS = 4
"""Of a product, side by side: version of its last change, stock, list price, sale price."""

Spot = int
"""Where a product's fields begin, in a table and in all copies of it."""
UNKNOWN: Spot = 0
"""Of all products that nothing is known about: it changes whenever one of them becomes known."""
Wanted = tuple[Spot, int, int]
"""A product, how many of it, and the least that one may cost: 1 or more, for nothing is sold for nothing."""


class LiveTable:
    """What is known about every product. `version` grows with each entry of the feed that is taken in."""

    def __init__(self) -> None:
        self._numbers: tuple[dict[str, int], ...] = tuple({} for _ in range(SHARDS))
        """Of each shard the row of each product, from 1; in a row each shard has one place."""
        self._values = _rows(1)
        self.version = 0
        self.generation = 0
        """Which of the tables that were made from each other."""

    def __len__(self) -> int:
        return sum(map(len, self._numbers))

    def __bool__(self) -> bool:
        return any(self._numbers)

    def copy(self) -> LiveTable:
        """One that changes apart from this one."""
        other = copy(self)
        other._numbers, other._values = tuple(map(dict, self._numbers)), self._values[:]
        other.generation += 1
        return other

    def get(self, sku: str) -> Live | None:
        """What is known of a product right now; None: nothing ever was."""
        spot = self.spot(sku)
        if spot == UNKNOWN:
            return None
        told = self._values[spot + 1 : spot + FIELDS]
        return Live(*[None if value < 0 else value for value in told])

    def spot(self, sku: str) -> Spot:
        """Where the product stands, for good unless it is UNKNOWN."""
        shard = hash(sku) % SHARDS
        number = self._numbers[shard].get(sku)
        return UNKNOWN if number is None else (number * SHARDS + shard) * FIELDS

    def on_sale(self, wanted: Iterable[Wanted]) -> tuple[list[int], int] | None:
        """What one unit of each costs, and how often all of them are there together; None where one is not, costs
        less than it may, or was never told.
        """
        values, unit_prices, sellable = self._values, [], -1
        for spot, quantity, lowest in wanted:
            unit_price = values[spot + 3]
            if unit_price < 0:
                unit_price = values[spot + 2]
            left = values[spot + 1] // quantity
            if left < 1 or unit_price < lowest:
                return None
            if left < sellable or sellable < 0:
                sellable = left
            unit_prices.append(unit_price)
        return unit_prices, sellable

    def stock_at(self, spot: Spot) -> int:
        """NOTHING where it was never told, or is unknown."""
        return self._values[spot + 1]

    def keep_all(self, pairs: Sequence[bytes]) -> None:
        """Put products' nine words in place: sku, nine words, sku, nine words …; what Redis was never told (it may have
        been emptied) stays as it was. Raises ValueError for anything else than nine words.
        """
        numbers, values, version, each = self._numbers, self._values, self.version, iter(pairs)
        for sku in each:
            name, words = sku.decode(), next(each).split()
            stock, stock_told, stock_at, price, price_told, price_at, sale, sale_told, sale_at = words
            shard = hash(name) % SHARDS
            number = numbers[shard].get(name) or self._added(name, shard)
            spot = (number * SHARDS + shard) * FIELDS
            values[spot] = version
            if stock != b"-":
                values[spot + 1] = int(stock)
            elif not stock_told == stock_at == b"0":
                values[spot + 1] = NOTHING
            if price != b"-":
                values[spot + 2] = int(price)
            elif not price_told == price_at == b"0":
                values[spot + 2] = NOTHING
            if sale != b"-":
                values[spot + 3] = int(sale)
            elif not sale_told == sale_at == b"0":
                values[spot + 3] = NOTHING

    def _added(self, name: str, shard: int) -> int:
        """The row of a product that becomes known."""
        held = self._numbers[shard]
        held[name] = number = len(held) + 1
        rows = len(self._values) // (SHARDS * FIELDS)
        if number == rows:
            self._values += _rows(1 + rows // 8)
        self._values[UNKNOWN] = self.version
        return number

    def changed(self, spots: Iterable[Spot], version: int) -> bool:
        """Whether a product at one of `spots` has changed since `version`."""
        values = self._values
        for spot in spots:  # noqa: SIM110 - a generator costs more than the loop
            if values[spot] > version:
                return True
        return False


def _rows(count: int) -> array[int]:
    return array("q", [0, NOTHING, NOTHING, NOTHING]) * (SHARDS * count)
