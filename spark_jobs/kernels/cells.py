"""The orders of one cell (a region and segment) as arrays that counting walks through."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Ints = NDArray[np.int32]
Offsets = NDArray[np.int64]


@dataclass(frozen=True)
class Cell:
    """Orders numbered so that orders of one customer stand together; items numbered in the order of their SKUs."""

    skus: pa.Array
    """Item number to SKU, sorted."""
    order_starts: Offsets
    """Shape (orders + 1): where each order's items begin in `order_items`."""
    order_items: Ints
    order_customer: Ints
    """Shape (orders): number of the order's customer; an order without a customer counts as one of its own."""
    item_starts: Offsets
    """Shape (items + 1): where each item's orders begin in `item_orders`."""
    item_orders: Ints
    """Ascending within an item, so customers stand together there too."""

    @property
    def orders(self) -> int:
        return len(self.order_customer)

    @property
    def item_counts(self) -> Ints:
        """Shape (items): orders that hold each item."""
        return np.diff(self.item_starts).astype(np.int32)


def cell(customer: pa.ChunkedArray, skus: pa.ChunkedArray) -> Cell:
    """A cell from one row per order, in any order: its customer (may be null) and its list of distinct products."""
    lists = skus.combine_chunks() if isinstance(skus, pa.ChunkedArray) else skus
    item_codes, item_keys = codes(lists.flatten())
    owner = owners(customer.combine_chunks() if isinstance(customer, pa.ChunkedArray) else customer)
    by_customer = np.argsort(owner, kind="stable")
    place = np.empty_like(by_customer)
    place[by_customer] = np.arange(len(by_customer))
    sizes = lists.value_lengths().to_numpy(zero_copy_only=False)
    order_of = np.repeat(place, sizes).astype(np.int32)
    rows = np.lexsort((item_codes, order_of))
    by_item = np.lexsort((order_of, item_codes))
    return Cell(
        skus=item_keys,
        order_starts=offsets(np.bincount(order_of, minlength=len(owner))),
        order_items=item_codes[rows],
        order_customer=owner[by_customer],
        item_starts=offsets(np.bincount(item_codes, minlength=len(item_keys))),
        item_orders=order_of[by_item],
    )


def owners(customer: pa.Array) -> Ints:
    """A number per customer; each null has one of its own."""
    unknown = customer.is_null().to_numpy(zero_copy_only=False)
    owner = np.empty(len(customer), np.int32)
    owner[~unknown], known = codes(customer.drop_null())
    owner[unknown] = len(known) + np.arange(int(unknown.sum()), dtype=np.int32)
    return owner


def codes(values: pa.Array) -> tuple[Ints, pa.Array]:
    """Each value's number in sorted order, and the sorted distinct values."""
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    encoded = values.dictionary_encode()
    order = pc.array_sort_indices(encoded.dictionary)
    rank = np.empty(len(order), np.int32)
    rank[order.to_numpy()] = np.arange(len(order), dtype=np.int32)
    return rank[encoded.indices.to_numpy()], encoded.dictionary.take(order)


def united(values: Sequence[pa.Array]) -> tuple[pa.Array, list[Ints]]:
    """All distinct values, sorted, and for each array its values' numbers."""
    number, known = codes(pa.chunked_array(values, pa.string()))
    return known, np.split(number, np.cumsum([len(each) for each in values])[:-1])


def offsets(sizes: NDArray[np.integer]) -> Offsets:
    """Where each of so many begins, and the end: shape (sizes + 1,)."""
    return np.concatenate(([0], np.cumsum(sizes))).astype(np.int64)
