"""Exact pair counts of one cell: orders and distinct customers that hold both, the best companions of each anchor.

For each anchor the orders that hold it are walked, and each item met there is counted in an array indexed by item.
Orders of one customer stand together, so the customer last seen with an item tells whether it is a new one: customers
are counted in the same pass. Time is the number of pair increments, memory a few arrays of one number per item.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from spark_jobs.kernels.cells import Cell, Ints

Pairs = tuple[Ints, Ints, Ints, Ints, NDArray[np.float64]]
"""anchor, companion (item numbers), orders both, customers both, score: one entry per pair, best companion first."""


def best_companions(cell: Cell, *, min_customers: int, top: int, damping: float) -> Pairs:
    """The `top` companions of every anchor by score, of those that at least `min_customers` customers bought together.

    score = orders_both / (orders_anchor · orders_companion^damping); ties go to the lower SKU.
    """
    counts = cell.item_counts
    weights = counts.astype(np.float64) ** -damping
    return _count(
        cell.order_starts,
        cell.order_items,
        cell.order_customer,
        cell.item_starts,
        cell.item_orders,
        weights,
        min_customers,
        top,
    )


@njit(cache=True)
def _count(order_starts, order_items, order_customer, item_starts, item_orders, weights, min_customers, top):  # type: ignore[no-untyped-def]
    items = len(item_starts) - 1
    both = np.zeros(items, np.int32)
    customers = np.zeros(items, np.int32)
    last = np.full(items, -1, np.int32)
    touched = np.empty(items, np.int32)
    room = 1024
    anchors, companions = np.empty(room, np.int32), np.empty(room, np.int32)
    orders_out, customers_out = np.empty(room, np.int32), np.empty(room, np.int32)
    scores = np.empty(room, np.float64)
    filled = 0
    for anchor in range(items):
        held = item_starts[anchor + 1] - item_starts[anchor]
        if held < min_customers:
            continue
        met = 0
        for place in range(item_starts[anchor], item_starts[anchor + 1]):
            order = item_orders[place]
            customer = order_customer[order]
            for line in range(order_starts[order], order_starts[order + 1]):
                item = order_items[line]
                if both[item] == 0:
                    touched[met] = item
                    met += 1
                both[item] += 1
                if last[item] != customer:
                    last[item] = customer
                    customers[item] += 1
        kept = 0
        for index in range(met):
            item = touched[index]
            if item != anchor and customers[item] >= min_customers:
                touched[kept], touched[index] = item, touched[kept]
                kept += 1
        if kept:
            found = np.sort(touched[:kept])
            ranked = np.argsort(-(both[found] * weights[found]), kind="mergesort")[:top]
            if filled + len(ranked) > room:
                room = 2 * room + len(ranked)
                anchors, companions = grown(anchors, room), grown(companions, room)
                orders_out, customers_out = grown(orders_out, room), grown(customers_out, room)
                scores = grown(scores, room)
            for index in ranked:
                item = found[index]
                anchors[filled] = anchor
                companions[filled] = item
                orders_out[filled] = both[item]
                customers_out[filled] = customers[item]
                scores[filled] = both[item] * weights[item] / held
                filled += 1
        for index in range(met):
            item = touched[index]
            both[item] = 0
            customers[item] = 0
            last[item] = -1
    return anchors[:filled], companions[:filled], orders_out[:filled], customers_out[:filled], scores[:filled]


@njit(cache=True)
def grown(values, room):  # type: ignore[no-untyped-def]
    """`values` at the start of an array with `room` places; the rest is not set."""
    larger = np.empty(room, values.dtype)
    larger[: len(values)] = values
    return larger
