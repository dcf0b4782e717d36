"""Stock and prices of every product of a region in arrays: 130 bytes a product, and what changed since when."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from copy import copy

from tandem.offer import Live

SHARDS = 4_096
"""Small maps instead of one: their numbers stay below 257 up to a million products, and Python keeps those once."""
MARKS = 1 << 20
"""Places that changes are marked at. Two products may share one: then a change of either counts for both."""
NOTHING = -1
"""In an array: no value. Amounts are never negative."""


class LiveTable:
    """What is known about every product. `version` grows with each entry of the feed that is taken in."""

    def __init__(self) -> None:
        self._shards = tuple(_Shard() for _ in range(SHARDS))
        self._marks = array("Q", bytes(8 * MARKS))
        self.version = 0
        self.generation = 0
        """Which of the tables that were made from each other."""

    def __len__(self) -> int:
        return sum(len(shard.numbers) for shard in self._shards)

    def __bool__(self) -> bool:
        return any(shard.numbers for shard in self._shards)

    def copy(self) -> LiveTable:
        """One that changes apart from this one."""
        other = copy(self)
        other._shards, other._marks = tuple(shard.copy() for shard in self._shards), self._marks[:]
        other.generation += 1
        return other

    def get(self, sku: str) -> Live | None:
        """What is known of a product right now; None: nothing ever was."""
        shard = self._shards[hash(sku) % SHARDS]
        number = shard.numbers.get(sku)
        if number is None:
            return None
        stock, list_price, sale_price = shard.stock[number], shard.list_price[number], shard.sale_price[number]
        return Live(
            None if stock < 0 else stock, None if list_price < 0 else list_price, None if sale_price < 0 else sale_price
        )

    def now(self, sku: str) -> tuple[int, int]:
        """Stock, and what one unit costs; NOTHING where it was never told, or is unknown."""
        spot = self.spot(sku)
        return (NOTHING, NOTHING) if spot is None else now_at(spot)

    def spot(self, sku: str) -> Spot | None:
        """Where the product stands, in this table and as long as it lasts; None: nothing is known of it yet."""
        shard = self._shards[hash(sku) % SHARDS]
        number = shard.numbers.get(sku)
        return None if number is None else (shard, number)

    def keep_all(self, pairs: Sequence[bytes]) -> None:
        """Put products' nine words in place: sku, nine words, sku, nine words …; what Redis was never told (it may have
        been emptied) stays as it was. Raises ValueError for anything else than nine words.
        """
        shards, marks, version, each = self._shards, self._marks, self.version, iter(pairs)
        for sku in each:
            name, words = sku.decode(), next(each).split()
            stock, _, _, price, _, _, sale, _, _ = words
            place = hash(name)
            shard = shards[place % SHARDS]
            number = shard.numbers.setdefault(name, len(shard.stock))
            if number == len(shard.stock):
                shard.stock.append(NOTHING if stock == b"-" else int(stock))
                shard.list_price.append(NOTHING if price == b"-" else int(price))
                shard.sale_price.append(NOTHING if sale == b"-" else int(sale))
            else:
                shard.change(number, words)
            marks[place % MARKS] = version

    def changed(self, marks: Iterable[int], version: int) -> bool:
        """Whether a product that one of `marks` (see `mark_of`) is of has changed since `version`."""
        changed_at = self._marks
        for mark in marks:  # noqa: SIM110 - a generator costs more than the loop
            if changed_at[mark] > version:
                return True
        return False


def now_at(spot: Spot) -> tuple[int, int]:
    """As `LiveTable.now`."""
    shard, number = spot
    sale_price = shard.sale_price[number]
    return shard.stock[number], shard.list_price[number] if sale_price < 0 else sale_price


def mark_of(sku: str) -> int:
    """Where a product's changes are marked; may be one that nothing is known about yet."""
    return hash(sku) % MARKS


class _Shard:
    """Some of the products, each with its number, and their values by number."""

    __slots__ = ("list_price", "numbers", "sale_price", "stock")

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}
        self.stock, self.list_price, self.sale_price = array("q"), array("q"), array("q")

    def change(self, number: int, words: list[bytes]) -> None:
        """Put the words of a product that is there already in place."""
        stock, stock_told, stock_at, price, price_told, price_at, sale, sale_told, sale_at = words
        if stock != b"-":
            self.stock[number] = int(stock)
        elif not stock_told == stock_at == b"0":
            self.stock[number] = NOTHING
        if price != b"-":
            self.list_price[number] = int(price)
        elif not price_told == price_at == b"0":
            self.list_price[number] = NOTHING
        if sale != b"-":
            self.sale_price[number] = int(sale)
        elif not sale_told == sale_at == b"0":
            self.sale_price[number] = NOTHING

    def copy(self) -> _Shard:
        other = _Shard()
        other.numbers = dict(self.numbers)
        other.stock, other.list_price, other.sale_price = self.stock[:], self.list_price[:], self.sale_price[:]
        return other


Spot = tuple[_Shard, int]
