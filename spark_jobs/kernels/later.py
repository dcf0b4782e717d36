"""Substitutes and answers of cold products, asked of later orders than they were learned from.

Repair: a customer took A in at least two learned orders, and a later order of theirs holds another product of A's
finest category and not A. The first such order is one query; a list repairs it if one of its first three is in it.
Cold: a tenth of the known products, drawn once, lose every learned line; then they are asked as anchors.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numba import njit
from numpy.typing import NDArray

from spark_jobs.kernels import cells, protocol
from spark_jobs.kernels import shelf as shelves
from spark_jobs.kernels.cells import Cell, Ints
from spark_jobs.kernels.protocol import Orders
from spark_jobs.kernels.shelf import Shelf

REPAIRS = 3
LOYAL_ORDERS = 2
HIDDEN_SHARE = 0.1
SEED = 5


class Split(NamedTuple):
    """What came before the day from which questions are asked, on a shelf, and what came after."""

    held: Shelf
    before: Orders
    after: Orders
    """In the shelf's numbers; customers as on the shelf, those unknown there from its largest number on."""


def split(bought: pa.Table, products: pa.Table) -> Split:
    """Orders (customer, skus, day; in the order of time) cut as `protocol` cuts them."""
    day = bought["day"].to_numpy()
    cut = protocol.first_asked_day(day)
    first, then = bought.filter(pa.array(day < cut)), bought.filter(pa.array(day >= cut))
    held = shelves.shelf(first, products)
    cell = held.cell
    before = Orders(
        cell.order_starts, cell.order_items, cell.order_customer, day[day < cut][held.given], len(cell.skus)
    )
    return Split(held, before, _later(held, first["customer"], then))


def _later(held: Shelf, known: pa.ChunkedArray, then: pa.Table) -> Orders:
    lists = then["skus"].combine_chunks()
    item = pc.fill_null(pc.index_in(lists.flatten(), held.cell.skus), -1).to_numpy()
    order = np.repeat(np.arange(len(then)), lists.value_lengths().to_numpy(zero_copy_only=False))
    people = pc.unique(known.combine_chunks().drop_null())
    people = people.take(pc.array_sort_indices(people))
    owner = pc.fill_null(pc.index_in(then["customer"].combine_chunks(), people), -1).to_numpy().copy()
    strange = owner < 0
    owner[strange] = held.cell.order_customer.max(initial=0) + 1 + np.arange(int(strange.sum()))
    use = item >= 0
    day = then["day"].to_numpy()
    return protocol.orders_of(
        order[use], item[use].astype(np.int32), owner[order[use]], day[order[use]], len(held.cell.skus)
    )


class Repairs(NamedTuple):
    """Queries, shape (queries) each."""

    item: Ints
    order: Ints
    """Number among the later orders."""
    customer: Ints


def repairs(found: Split) -> Repairs:
    """The queries of `found`: see the module."""
    held, after = found.held, found.after
    owner = np.repeat(found.before.customer, found.before.sizes).astype(np.int64)
    key, times = np.unique(owner * found.before.products + found.before.items, return_counts=True)
    key = key[(times >= LOYAL_ORDERS) & (key // found.before.products < held.known)]
    customer, item = key // found.before.products, (key % found.before.products).astype(np.int32)
    fit = held.usable[item] & (held.category[item] >= 0)
    customer, item = customer[fit], item[fit]
    begins = np.searchsorted(customer, np.arange(held.known + 1)).astype(np.int64)
    entry, order = _first_without(after.starts, after.items, after.customer, held.category, begins, item)
    return Repairs(item[entry], order, after.customer[order])


@njit(cache=True)
def _first_without(starts, items, customers, category, begins, loyal):  # type: ignore[no-untyped-def]
    """For each loyal (customer, item) the customer's first order with another item of its category and not it."""
    entries, orders = np.empty(len(loyal), np.int64), np.empty(len(loyal), np.int32)
    done = np.zeros(len(loyal), np.bool_)
    filled = 0
    for order in range(len(customers)):
        if customers[order] >= len(begins) - 1:
            continue
        for entry in range(begins[customers[order]], begins[customers[order] + 1]):
            if done[entry]:
                continue
            another, itself = False, False
            for line in range(starts[order], starts[order + 1]):
                itself |= items[line] == loyal[entry]
                another |= category[items[line]] == category[loyal[entry]]
            if another and not itself:
                done[entry] = True
                entries[filled], orders[filled] = entry, order
                filled += 1
    return entries[:filled], orders[:filled]


def repaired(asked: Repairs, after: Orders, lists: Ints) -> NDArray[np.float64]:
    """1 where one of the first REPAIRS of the item's list (shape (items, any), -1 none) is in the order, else 0."""
    order = np.repeat(np.arange(after.count), after.sizes)
    held = np.sort(order * after.products + after.items)
    hit = np.zeros(len(asked.item), bool)
    for place in range(min(REPAIRS, lists.shape[1])):
        shown = lists[asked.item, place]
        wanted = asked.order.astype(np.int64) * after.products + shown
        spot = np.minimum(np.searchsorted(held, wanted), max(len(held) - 1, 0))
        hit |= (shown >= 0) & (held[spot] == wanted) if len(held) else False
    return hit.astype(np.float64)


def listed(item: Ints, other: Ints, rank: Ints, items: int, top: int) -> Ints:
    """Shape (items, top) from one entry a pair with its rank from 1; -1 where there is none."""
    lists = np.full((items, top), -1, np.int32)
    keep = rank <= top
    lists[item[keep], rank[keep] - 1] = other[keep]
    return lists


def popular_of_category(orders: Ints, category: Ints, usable: NDArray[np.bool_], top: int) -> Ints:
    """Shape (items, top): the most bought usable products of each item's category, itself left out."""
    lists = np.full((len(orders), top), -1, np.int32)
    bought = np.flatnonzero(usable & (orders > 0) & (category >= 0))
    bought = bought[np.lexsort((bought, -orders[bought], category[bought]))]
    begins = np.searchsorted(category[bought], np.arange(category.max(initial=-1) + 2))
    for item in np.flatnonzero(category >= 0):
        best = bought[begins[category[item]] : begins[category[item] + 1]][: top + 1]
        best = best[best != item][:top]
        lists[item, : len(best)] = best
    return lists


def hidden(known: Ints) -> Ints:
    """A tenth of `known`, drawn the same way every time."""
    count = min(len(known), max(1, round(len(known) * HIDDEN_SHARE)))
    return np.sort(np.random.default_rng(SEED).choice(known, count, replace=False)).astype(np.int32)


def without_items(cell: Cell, items: Ints) -> Cell:
    """`cell` in which no order holds `items`."""
    gone = np.zeros(len(cell.item_starts) - 1, bool)
    gone[items] = True
    order = np.repeat(np.arange(cell.orders), np.diff(cell.order_starts))
    keep = ~gone[cell.order_items]
    counts = np.where(gone, 0, np.diff(cell.item_starts))
    owner = np.repeat(np.arange(len(gone)), np.diff(cell.item_starts))
    return Cell(
        skus=cell.skus,
        order_starts=cells.offsets(np.bincount(order[keep], minlength=cell.orders)),
        order_items=cell.order_items[keep],
        order_customer=cell.order_customer,
        item_starts=cells.offsets(counts),
        item_orders=cell.item_orders[~gone[owner]],
    )
