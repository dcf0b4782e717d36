"""A shop's orders and products as arrays, from the Arrow rows that a task is given."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from spark_jobs.kernels.cells import Ints, codes
from spark_jobs.kernels.features import Catalogue
from spark_jobs.kernels.protocol import Orders

LEVEL = " > "


class History(NamedTuple):
    """Orders with the products they hold; numbers in `orders` and `catalogue` are places in `skus`."""

    orders: Orders
    catalogue: Catalogue
    skus: pa.Array
    worth: NDArray[np.float64]
    """Shape (products): what a hit of each is worth, the middle product 1."""

    def known(self, min_orders: int) -> History:
        """The same in products of at least `min_orders` orders."""
        kept = np.flatnonzero(self.orders.item_counts >= min_orders).astype(np.int32)
        number = np.full(self.orders.products, -1, np.int32)
        number[kept] = np.arange(len(kept), dtype=np.int32)
        orders = self.orders.holding(number, len(kept))
        return History(orders, self.catalogue.of(kept), self.skus.take(pa.array(kept)), self.worth[kept])


def history(orders: pa.Table, products: pa.Table, *, only_listed: bool = False) -> History:
    """`orders`: customer (may be null), day (days since any day), skus (a list), one row per order, in any order.

    `products`: sku, category (levels split by ` > `), brand, price, worth; all but sku may be null, and products may
    be missing. `only_listed`: what is not among them is left out of the orders.
    """
    lists = _whole(orders["skus"])
    item, skus = codes(lists.flatten())
    sizes = lists.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
    customer, named = _owners(_whole(orders["customer"]))
    day = orders["day"].to_numpy().astype(np.int32)
    # Rows come in any order: orders stand by customer, day and what they hold, so that the same rows give the same.
    first = np.full(len(sizes), -1, np.int64)
    starts = np.concatenate(([0], np.cumsum(sizes))).astype(np.int64)
    first[sizes > 0] = item[starts[:-1][sizes > 0]]
    by = np.lexsort((_mixed(item, starts), first, sizes, day, customer))
    place = np.empty(len(by), np.int32)
    place[by] = np.arange(len(by), dtype=np.int32)
    order = np.repeat(place, sizes)
    rows = np.lexsort((item, order))
    customer = customer[by]
    customer[customer == named] += np.arange(int((customer == named).sum()), dtype=np.int32)
    arranged = np.concatenate(([0], np.cumsum(sizes[by]))).astype(np.int64)
    held = Orders(arranged, item[rows], customer, day[by], len(skus))
    at = pc.index_in(skus, _whole(products["sku"]))
    found = History(held, _catalogue(products, at), skus, _worth(products, at))
    if not only_listed:
        return found
    listed = np.flatnonzero(pc.is_valid(at).to_numpy(zero_copy_only=False)).astype(np.int32)
    number = np.full(len(skus), -1, np.int32)
    number[listed] = np.arange(len(listed), dtype=np.int32)
    orders_listed = held.holding(number, len(listed))
    return History(orders_listed, found.catalogue.of(listed), skus.take(pa.array(listed)), found.worth[listed])


def _whole(values: pa.ChunkedArray | pa.Array) -> pa.Array:
    return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values


def _mixed(item: Ints, starts: NDArray[np.int64]) -> NDArray[np.uint64]:
    """A number per order that depends on all it holds, whatever stands first."""
    hashed = (item.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    total = np.concatenate((np.zeros(1, np.uint64), np.cumsum(hashed ^ (hashed >> np.uint64(29)), dtype=np.uint64)))
    return total[starts[1:]] - total[starts[:-1]]


def _owners(customer: pa.Array) -> tuple[Ints, int]:
    """A number per customer, and how many there are; that number stands for all who are unknown."""
    unknown = customer.is_null().to_numpy(zero_copy_only=False)
    owner = np.empty(len(customer), np.int32)
    owner[~unknown], named = codes(customer.drop_null())
    owner[unknown] = len(named)
    return owner, len(named)


def _catalogue(products: pa.Table, at: pa.Array) -> Catalogue:
    paths = _text(products["category"], at)
    split = [path.split(LEVEL) if path else [] for path in paths]
    levels = [
        [LEVEL.join(path) for path in split],
        [LEVEL.join(path[:-1] or path) for path in split],
        [path[0] if path else "" for path in split],
    ]
    return Catalogue(
        np.array([_numbers(level) for level in levels], np.int32).reshape(3, len(paths)),
        _numbers(_text(products["brand"], at)),
        pc.cast(products["price"].take(at), pa.float64()).fill_null(np.nan).to_numpy(),
    )


def _text(column: pa.ChunkedArray, at: pa.Array) -> list[str]:
    return column.take(at).cast(pa.string()).fill_null("").to_pylist()  # type: ignore[no-any-return]


def _numbers(names: list[str]) -> Ints:
    """A number per name, in the order of names; -1 for the empty one."""
    number = {name: place for place, name in enumerate(sorted(set(names) - {""}))}
    return np.array([number.get(name, -1) for name in names], np.int32)


def _worth(products: pa.Table, at: pa.Array) -> NDArray[np.float64]:
    given = pc.cast(products["worth"].take(at), pa.float64()).fill_null(np.nan).to_numpy()
    positive = given[given > 0]
    if not len(positive):
        return np.ones(len(given))
    return np.where(np.isnan(given), 1.0, np.clip(given / np.median(positive), 0.01, 20.0))
