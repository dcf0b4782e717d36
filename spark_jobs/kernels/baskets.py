"""The orders of all cells as arrays that counting walks through: cells together, and in them each customer's orders."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numba import njit
from numpy.typing import NDArray

from spark_jobs.kernels.cells import Cell, Ints, Offsets
from spark_jobs.kernels.prefetch import prefetch

Longs = NDArray[np.int64]
Shorts = NDArray[np.int16]
Flags = NDArray[np.bool_]

WALK = np.dtype([("weight", np.int64), ("owner", np.int32), ("crossing", np.int32), ("timed", np.int32)], align=True)
"""An order: what it adds to a decayed count, the number of its customer in its cell (an order without a customer has
one of its own), its place in `Baskets.crossing_orders` (-1 where its customer has one cell), and whether its lines have
two times or more."""
AHEAD = 16
"""Orders that are fetched before they are copied."""
NOBODY = np.iinfo(np.int32).max
"""As k of a level: no pair has so many customers, the level is not asked for."""


@dataclass(frozen=True)
class Orders:
    """Orders as they were read, in any order. A cell is a segment of a region."""

    skus: pa.Array
    """Item number to SKU, distinct, in any order."""
    starts: Offsets
    """Shape (orders + 1): where each order's items begin in `items`."""
    items: Ints
    """Distinct within an order."""
    moments: Shorts
    """Shape (lines): place of the line's time among the times of its order, from 0; empty: no order has two times."""
    customer: Ints
    """Shape (orders): number of the customer, -1 where there is none. A customer may have orders in several cells."""
    cell: Shorts
    at: Longs
    """Shape (orders): when the first line was written, microseconds since 1970."""
    weight: Longs
    """Shape (orders): what the order adds to a decayed count."""


@dataclass(frozen=True)
class Baskets:
    """Orders by cell, then customer; items numbered by popularity, so that what is met often lies together.

    Levels are numbered: the cells, then the regions, then everything.
    """

    skus: pa.Array
    """Item number to SKU."""
    sku_place: Ints
    """Shape (items): place of the item's SKU among all, sorted."""
    item_orders: Longs
    """Shape (items): orders that hold each item, falling."""
    walk: np.ndarray
    """Shape (orders): rows of WALK."""
    starts: Offsets
    """Shape (orders + 1): where each order's items begin in `items`."""
    items: Ints
    moments: Shorts
    """Shape (lines) as `items`, or empty where no order has two times."""
    cell: Shorts
    """Shape (orders), rising."""
    cell_region: Shorts
    """Shape (cells): region of each cell, rising."""
    regions: int
    crossing_orders: Ints
    """Orders of customers of several cells, by customer, then cell."""
    crossing_person: Ints
    """Shape (crossing orders): their customer."""
    twice_in_region: Flags
    """Shape (regions): whether a customer has orders in two cells of the region."""

    @property
    def orders(self) -> int:
        return len(self.cell)

    @property
    def levels(self) -> int:
        return len(self.cell_region) + self.regions + 1

    def level_sums(self, of_cells: Longs) -> Longs:
        """Sums by level, shape (levels, …), of sums by cell, shape (cells, …)."""
        by_region = np.zeros((self.regions, *of_cells.shape[1:]), of_cells.dtype)
        np.add.at(by_region, self.cell_region, of_cells)
        return np.concatenate((of_cells, by_region, of_cells.sum(0, keepdims=True, dtype=of_cells.dtype)))

    def level_orders(self) -> Longs:
        """Shape (levels): orders."""
        return self.level_sums(np.bincount(self.cell, minlength=len(self.cell_region)))

    def level_weights(self) -> Longs:
        """Shape (levels): weights of all orders."""
        sums = np.zeros(len(self.cell_region), np.int64)
        np.add.at(sums, self.cell, self.walk["weight"])
        return self.level_sums(sums)

    @cached_property
    def item_counts(self) -> tuple[Ints, Longs]:
        """Shape (levels, items) each: orders that hold the item, and their weights."""
        orders, weights = _item_counts(
            self.starts, self.walk, self.items, self.cell, len(self.cell_region), len(self.skus)
        )
        return self.level_sums(orders), self.level_sums(weights)


def arrange(orders: Orders, cell_region: Shorts, regions: int) -> Baskets:
    """`orders` by cell and customer. `cell_region` gives each cell's region, rising."""
    customer = orders.customer.astype(np.int64)
    alone = customer < 0
    people = int(customer.max(initial=-1)) + 1
    customer[alone] = people + np.arange(int(alone.sum()))
    people += int(alone.sum())
    by_owner = _sorted_by(orders.cell, len(cell_region), _sorted_by(customer, people, np.arange(len(customer))))
    cell, customer = orders.cell[by_owner], customer[by_owner]
    first = (np.diff(cell, prepend=-1) != 0) | (np.diff(customer, prepend=-1) != 0)
    item_orders, number, old = by_popularity(orders)
    walk = np.empty(len(by_owner), WALK)
    walk["weight"] = orders.weight[by_owner]
    walk["owner"] = np.cumsum(first) - 1
    starts, items, moments = _gathered(walk, by_owner, orders.starts, orders.items, orders.moments, number)
    walk["crossing"], crossing, person, twice = _crossing(customer, cell, first, cell_region, regions, people)
    skus = orders.skus.take(pa.array(old))
    return Baskets(
        skus=skus,
        sku_place=places(skus),
        item_orders=item_orders,
        walk=walk,
        starts=starts,
        items=items,
        moments=moments,
        cell=cell,
        cell_region=cell_region.astype(np.int16),
        regions=regions,
        crossing_orders=crossing,
        crossing_person=person,
        twice_in_region=twice,
    )


def from_cell(cell: Cell) -> tuple[Baskets, Ints]:
    """One cell as baskets of one cell in one region, and the cell's own number of each item."""
    baskets = arrange(orders_of(cell), np.zeros(1, np.int16), 1)
    return baskets, baskets.sku_place  # the cell numbers items in the order of their SKUs


def orders_of(cell: Cell) -> Orders:
    """The orders of a cell, as if all were of one moment, weightless."""
    return Orders(
        skus=cell.skus,
        starts=cell.order_starts,
        items=cell.order_items,
        moments=np.empty(0, np.int16),
        customer=cell.order_customer,
        cell=np.zeros(cell.orders, np.int16),
        at=np.zeros(cell.orders, np.int64),
        weight=np.zeros(cell.orders, np.int64),
    )


def by_popularity(orders: Orders) -> tuple[Longs, Ints, NDArray[np.intp]]:
    """Orders of each item, falling; the new number of each old one, and the old number of each new one."""
    held = counted(orders.items, len(orders.skus))
    old = np.lexsort((places(orders.skus), -held))
    number = np.empty(len(old), np.int32)
    number[old] = np.arange(len(old), dtype=np.int32)
    return held[old], number, old


def places(skus: pa.Array) -> Ints:
    """Each SKU's place among all, sorted."""
    found = np.empty(len(skus), np.int32)
    found[pc.array_sort_indices(skus).to_numpy()] = np.arange(len(skus), dtype=np.int32)
    return found


def _crossing(
    customer: Longs, cell: Shorts, first: Flags, cell_region: Shorts, regions: int, people: int
) -> tuple[Ints, Ints, Ints, Flags]:
    cells_of = np.bincount(customer[first], minlength=people)
    orders = np.flatnonzero(cells_of[customer] > 1).astype(np.int32)
    orders = orders[np.argsort(customer[orders], kind="stable")]
    places = np.full(len(customer), -1, np.int32)
    places[orders] = np.arange(len(orders), dtype=np.int32)
    twice = np.zeros(regions, bool)
    met = first[orders]
    person, region = customer[orders[met]], cell_region[cell[orders[met]]]
    same = (np.diff(person, prepend=-1) == 0) & (np.diff(region, prepend=-1) == 0)
    twice[region[same]] = True
    return places, orders, customer[orders].astype(np.int32), twice


@njit(cache=True)
def counted(numbers, below):  # type: ignore[no-untyped-def]
    """Shape (below): how often each number is there, as np.bincount, which would make them twice as wide first."""
    found = np.zeros(below, np.int64)
    for number in numbers:
        found[number] += 1
    return found


@njit(cache=True)
def _sorted_by(key, keys, among):  # type: ignore[no-untyped-def]
    """`among` by their `key`, below `keys`; what has the same stays in its order. A counting sort (Seward 1954)."""
    begins = np.zeros(keys + 1, np.int64)
    for one in among:
        begins[key[one] + 1] += 1
    begins = np.cumsum(begins)
    found = np.empty_like(among)
    for one in among:
        found[begins[key[one]]] = one
        begins[key[one]] += 1
    return found


@njit(cache=True)
def _gathered(walk, by_owner, starts, items, moments, number):  # type: ignore[no-untyped-def]
    """Orders as `by_owner` has them, items renumbered: starts, items and moments; sets `timed`."""
    new_starts = np.empty(len(walk) + 1, np.int64)
    new_items = np.empty(len(items), np.int32)
    new_moments = np.empty(len(moments), np.int16)
    new_starts[0] = 0
    for place in range(len(walk)):
        if place + 2 * AHEAD < len(walk):
            prefetch(starts, by_owner[place + 2 * AHEAD])
            prefetch(items, starts[by_owner[place + AHEAD]])
        walk[place].timed = 0
        begin, new = starts[by_owner[place]], new_starts[place]
        lines = starts[by_owner[place] + 1] - begin
        for line in range(lines):
            new_items[new + line] = number[items[begin + line]]
        if len(moments):
            for line in range(lines):
                new_moments[new + line] = moments[begin + line]
                if moments[begin + line] > 0:
                    walk[place].timed = 1
        new_starts[place + 1] = new + lines
    return new_starts, new_items, new_moments


@njit(cache=True)
def _item_counts(starts, walk, items, cell, cells, skus):  # type: ignore[no-untyped-def]
    orders = np.zeros((cells, skus), np.int32)
    weights = np.zeros((cells, skus), np.int64)
    for order in range(len(walk)):
        here, weight = cell[order], walk[order].weight
        for line in range(starts[order], starts[order + 1]):
            orders[here, items[line]] += 1
            weights[here, items[line]] += weight
    return orders, weights
