"""Exact counts of sets of 2 to 4: an anchor with one, two or three of its candidate companions.

An anchor's orders are walked once. Of its candidates those in the order are listed, and every subset of up to three of
them is counted: its orders, and its distinct customers by the customer last seen with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numba import njit

from spark_jobs.kernels.cells import Cell, Ints, Offsets
from spark_jobs.kernels.pairs import grown

ABSENT = -1


@dataclass(frozen=True)
class Sets:
    """One entry per set that enough customers bought: shapes (sets, 4), (sets,), (sets,)."""

    items: Ints
    """Item numbers, the anchor first, then companions in the candidates' order; -1 fills smaller sets."""
    orders: Ints
    customers: Ints


def count_sets(
    cell: Cell, anchors: Ints, candidate_starts: Offsets, candidates: Ints, *, max_components: int, min_customers: int
) -> Sets:
    """Sets of each of `anchors` with its `candidates` (CSR; at most 62 each), bought by at least `min_customers`."""
    widest = int(np.diff(candidate_starts).max(initial=0))
    subsets = np.array(
        [
            chosen + (ABSENT,) * (3 - len(chosen))
            for size in range(1, max_components)
            for chosen in combinations(range(widest), size)
        ],
        np.int32,
    ).reshape(-1, 3)
    place = np.full((widest + 1,) * 3, ABSENT, np.int32)
    place[subsets[:, 0], subsets[:, 1], subsets[:, 2]] = np.arange(len(subsets), dtype=np.int32)
    items, orders, customers = _count(
        cell.order_starts,
        cell.order_items,
        cell.order_customer,
        cell.item_starts,
        cell.item_orders,
        anchors,
        candidate_starts,
        candidates,
        subsets,
        place,
        max_components - 1,
        min_customers,
    )
    return Sets(items, orders, customers)


@njit(cache=True)
def _count(  # type: ignore[no-untyped-def]
    order_starts,
    order_items,
    order_customer,
    item_starts,
    item_orders,
    anchors,
    candidate_starts,
    candidates,
    subsets,
    place,
    largest,
    min_customers,
):
    slot_of = np.full(len(item_starts) - 1, -1, np.int32)
    counts, customers = np.zeros(len(subsets), np.int32), np.zeros(len(subsets), np.int32)
    last = np.full(len(subsets), -1, np.int32)
    present = np.empty(64, np.int32)
    room = 1024
    out_items, out_orders = np.empty((room, 4), np.int32), np.empty(room, np.int32)
    out_customers = np.empty(room, np.int32)
    filled = 0
    for index in range(len(anchors)):
        anchor = anchors[index]
        first = candidate_starts[index]
        width = candidate_starts[index + 1] - first
        for slot in range(width):
            slot_of[candidates[first + slot]] = slot
        for posting in range(item_starts[anchor], item_starts[anchor + 1]):
            order = item_orders[posting]
            customer = order_customer[order]
            found = 0
            for line in range(order_starts[order], order_starts[order + 1]):
                slot = slot_of[order_items[line]]
                if slot >= 0:
                    present[found] = slot
                    found += 1
            present[:found].sort()
            for x in range(found):
                _mark(place[present[x], -1, -1], customer, counts, customers, last)
                if largest < 2:
                    continue
                for y in range(x + 1, found):
                    _mark(place[present[x], present[y], -1], customer, counts, customers, last)
                    if largest < 3:
                        continue
                    for z in range(y + 1, found):
                        _mark(place[present[x], present[y], present[z]], customer, counts, customers, last)
        for subset in range(len(subsets)):
            if customers[subset] >= min_customers:
                if filled == room:
                    room *= 2
                    larger = np.empty((room, 4), np.int32)
                    larger[:filled] = out_items
                    out_items = larger
                    out_orders, out_customers = grown(out_orders, room), grown(out_customers, room)
                out_items[filled, 0] = anchor
                for part in range(3):
                    slot = subsets[subset, part]
                    out_items[filled, 1 + part] = candidates[first + slot] if slot >= 0 else -1
                out_orders[filled] = counts[subset]
                out_customers[filled] = customers[subset]
                filled += 1
        counts[:] = 0
        customers[:] = 0
        last[:] = -1
        for slot in range(width):
            slot_of[candidates[first + slot]] = -1
    return out_items[:filled], out_orders[:filled], out_customers[:filled]


@njit(cache=True)
def _mark(subset, customer, counts, customers, last):  # type: ignore[no-untyped-def]
    counts[subset] += 1
    if last[subset] != customer:
        last[subset] = customer
        customers[subset] += 1
