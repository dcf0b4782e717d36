"""Exact pair counts at every level in one pass: orders, customers, decayed orders, and which of the two came first.

For each anchor the orders that hold it are walked, cell by cell (a cell is a segment of a region), and each item met
there is counted in a record of its own. A cell's records are added to its region's when the cell ends, and a region's
to everything's when the region ends; at each end the best companions of the anchor are chosen. Orders of a cell stand
together, and in them those of one customer, so the owner last seen with an item tells whether this is a new one.
A customer of several cells is counted once in each; what that is too much further up is taken off there.

Time: pair increments, and distinct pairs of each cell. Memory: 96 bytes an item for records, 4 an item and level,
12 an order of the anchors counted, 44 a pair given; the baskets themselves are 4 bytes a line and 26 an order.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from spark_jobs.kernels.baskets import NOBODY, Baskets, Longs, Orders, by_popularity, from_cell, places
from spark_jobs.kernels.cells import Cell, Ints, Offsets
from spark_jobs.kernels.prefetch import prefetch

Floats = NDArray[np.float64]
Pairs = tuple[Ints, Ints, Ints, Ints, Floats]
"""anchor, companion (item numbers), orders both, customers both, score: one entry per pair, best companion first."""

RECORD = np.dtype([("orders", "i4"), ("customers", "i4"), ("seen", "i4"), ("spare", "i4"), ("decayed", "i8")])
"""What is counted of one companion: one random access finds it all. The order of purchase, which few orders tell, is
counted beside it: before and after, in `sides`."""

FOUND = np.dtype(
    [
        ("value", "f8"),
        ("decayed", "i8"),
        ("anchor", "i4"),
        ("companion", "i4"),
        ("orders", "i4"),
        ("customers", "i4"),
        ("before", "i4"),
        ("after", "i4"),
        ("level", "i4"),
    ]
)
"""A pair that is given: `value` is orders · orders_companion^-damping, which ranks the anchor's companions; `decayed`
the sum of its orders' weights; `before` and `after` the orders in which the anchor was taken before and after the
companion (where both have one time: neither)."""

BOTH = np.dtype([("anchor", "i4"), ("companion", "i4"), ("orders", "i4"), ("rank", "i4")])
"""A pair and the orders that hold both; rank: the companion's place among the anchor's, from 1."""

AHEAD = 12
"""Orders that are fetched before they are walked."""
CELL, REGION, ALL = 0, 1, 2
BEFORE, AFTER = 0, 1


def count(baskets: Baskets, *, k: Ints, top: int, damping: float, block: int = 0, blocks: int = 1) -> np.ndarray:
    """The `top` companions of every anchor at every level, of those with at least `k[level]` customers: rows of FOUND.

    Of the anchors, every `blocks`-th from `block` on: items are numbered by popularity, so blocks weigh alike. Rows of
    a level and anchor stand together, best first; ties go to the lower SKU. A level whose k is NOBODY is not given.
    """
    held, _ = baskets.item_counts()
    highest = int(held.max(initial=0))
    damped = np.concatenate(([0.0], np.arange(1, highest + 1, dtype=np.float64) ** -damping))
    anchors = np.arange(block, len(baskets.skus), blocks, dtype=np.int32)
    starts, orders, places = postings(baskets, anchors, block, blocks)
    items = len(baskets.skus)
    return _count(
        baskets.walk,
        baskets.items,
        baskets.moments,
        baskets.cell,
        baskets.cell_region,
        baskets.crossing_orders,
        baskets.crossing_person,
        baskets.twice_in_region,
        held,
        damped,
        baskets.sku_place,
        anchors,
        starts,
        orders,
        places,
        np.asarray(k, np.int32),
        np.empty(top, np.float64),
        np.empty(top, np.int32),
        np.zeros((3, items), RECORD),
        np.zeros((3, items if baskets.moments.any() else 0, 2), np.int32),
        np.empty((3, items), np.int32),
        np.empty(4096, FOUND),
    )


def count_orders(orders: Orders, *, top: int, block: int = 0, blocks: int = 1) -> np.ndarray:
    """The `top` companions of every anchor by the orders that hold both, wherever they were: rows of BOTH.

    No levels, no customers, no decay: of what `count` counts only the orders, in 4 bytes an item. Anchors, ties and
    blocks as there; items as `orders` numbers them.
    """
    held, number, old = by_popularity(orders)
    items = number[orders.items]
    anchors = np.arange(block, len(old), blocks, dtype=np.int32)
    begins = np.concatenate(([0], np.cumsum(held[anchors], dtype=np.int64)))
    own = _orders_of(orders.starts, items, begins, block, blocks)
    place = places(orders.skus)[old]
    best = (np.empty(top, np.float64), np.empty(top, np.int32))
    counted = (np.zeros(len(old), np.int32), np.empty(len(old), np.int32))
    found = _count_orders(orders.starts, items, anchors, begins, own, place, *best, *counted, np.empty(4096, BOTH))
    found["anchor"], found["companion"] = old[found["anchor"]], old[found["companion"]]
    return found


def postings(baskets: Baskets, anchors: Ints, block: int, blocks: int) -> tuple[Offsets, Ints, Longs]:
    """Where each anchor's orders begin, shape (anchors + 1); the orders, rising; and the anchor's own line in each."""
    starts = np.concatenate(([0], np.cumsum(baskets.item_orders[anchors], dtype=np.int64)))
    return starts, *_placed(baskets.walk, baskets.items, starts, block, blocks)


def best_companions(cell: Cell, *, min_customers: int, top: int, damping: float) -> Pairs:
    """The `top` companions of every anchor by score, of those that at least `min_customers` customers bought together.

    score = orders_both / (orders_anchor · orders_companion^damping); ties go to the lower SKU.
    """
    baskets, number = from_cell(cell)
    found = count(baskets, k=np.array([NOBODY, NOBODY, min_customers], np.int32), top=top, damping=damping)
    found = found[np.argsort(number[found["anchor"]], kind="stable")]
    anchor = number[found["anchor"]]
    score = found["value"] / cell.item_counts[anchor]
    return anchor, number[found["companion"]], found["orders"], found["customers"], score


@njit(cache=True)
def _placed(walk, items, posting_starts, block, blocks):  # type: ignore[no-untyped-def]
    orders = np.empty(posting_starts[-1], np.int32)
    places = np.empty(posting_starts[-1], np.int64)
    filled = posting_starts[:-1].copy()
    for order in range(len(walk)):
        for line in range(walk[order].start, walk[order].start + walk[order].lines):
            item = items[line]
            if item % blocks == block:
                place = filled[item // blocks]
                orders[place] = order
                places[place] = line
                filled[item // blocks] = place + 1
    return orders, places


@njit(cache=True)
def _orders_of(starts, items, begins, block, blocks):  # type: ignore[no-untyped-def]
    """The orders of each anchor of the block, one anchor's after the other's, rising."""
    orders = np.empty(begins[-1], np.int32)
    filled = begins[:-1].copy()
    for order in range(len(starts) - 1):
        for line in range(starts[order], starts[order + 1]):
            item = items[line]
            if item % blocks == block:
                orders[filled[item // blocks]] = order
                filled[item // blocks] += 1
    return orders


@njit(cache=True)
def _count_orders(starts, items, anchors, begins, own, sku_place, heap_value, heap_item, counts, met, out):  # type: ignore[no-untyped-def]
    top, filled = len(heap_value), 0
    for number in range(len(anchors)):
        anchor, size = anchors[number], 0
        for posting in range(begins[number], begins[number + 1]):
            if posting + 2 * AHEAD < len(own):
                prefetch(starts, own[posting + 2 * AHEAD])
                prefetch(items, starts[own[posting + AHEAD]])
            for line in range(starts[own[posting]], starts[own[posting] + 1]):
                item = items[line]
                if counts[item] == 0:
                    met[size] = item
                    size += 1
                counts[item] += 1
        kept = 0
        for index in range(size):
            item = met[index]
            value = float(counts[item])
            if item != anchor:
                if kept < top:
                    _rise(heap_value, heap_item, kept, value, item, sku_place)
                    kept += 1
                elif _worse(heap_value[0], heap_item[0], value, item, sku_place):
                    _sink(heap_value, heap_item, kept, value, item, sku_place)
            counts[item] = 0
        if filled + kept > len(out):
            out = grown(out, 2 * (filled + kept))
        for last in range(kept - 1, -1, -1):
            one = out[filled + last]
            one.anchor, one.companion, one.orders, one.rank = anchor, heap_item[0], np.int32(heap_value[0]), last + 1
            _sink(heap_value, heap_item, last, heap_value[last], heap_item[last], sku_place)
        filled += kept
    return out[:filled]


@njit(cache=True)
def _count(  # type: ignore[no-untyped-def]
    walk,
    items,
    moments,
    cell_of,
    cell_region,
    crossing_orders,
    crossing_person,
    twice_in_region,
    held,
    damped,
    sku_place,
    anchors,
    posting_starts,
    posting_orders,
    posting_places,
    k,
    heap_value,
    heap_item,
    records,
    sides,
    met,
    out,
):
    cells, regions = len(cell_region), len(twice_in_region)
    everything = cells + regions
    touched = np.zeros(3, np.int64)
    wants = np.zeros(3, np.bool_)
    crossing = np.empty(1024, np.int32)
    stamp, stamps, stamped = 0, np.zeros(held.shape[1], np.int64), np.empty(held.shape[1], np.int32)
    filled = 0
    for number in range(len(anchors)):
        anchor = anchors[number]
        place, end = posting_starts[number], posting_starts[number + 1]
        wants[ALL] = k[everything] <= end - place
        crossed = 0
        while place < end:
            cell = cell_of[posting_orders[place]]
            region = cell_region[cell]
            stop = place + held[cell, anchor]
            # Where not even the anchor has enough orders no pair has: its records are passed over.
            wants[CELL] = k[cell] <= stop - place
            wants[REGION] = k[cells + region] <= held[cells + region, anchor]
            layer = CELL if wants[CELL] else (REGION if wants[REGION] else ALL)
            if wants[layer]:
                record, own_met, size = records[layer], met[layer], touched[layer]
                for posting in range(place, stop):
                    if posting + AHEAD < end:
                        prefetch(items, posting_places[posting + AHEAD])
                        prefetch(walk, posting_orders[posting + AHEAD])
                    order = walk[posting_orders[posting]]
                    who, gained = order.owner, order.weight
                    for line in range(order.start, order.start + order.lines):
                        item = items[line]
                        one = record[item]
                        if one.orders == 0:
                            own_met[size] = item
                            size += 1
                            one.seen = -1
                        one.orders += 1
                        one.decayed += gained
                        if one.seen != who:
                            one.seen = who
                            one.customers += 1
                    if order.timed:
                        own = moments[posting_places[posting]]
                        for line in range(order.start, order.start + order.lines):
                            if own < moments[line]:
                                sides[layer, items[line], BEFORE] += 1
                            elif own > moments[line]:
                                sides[layer, items[line], AFTER] += 1
                    if order.crossing >= 0:
                        if crossed == len(crossing):
                            crossing = grown(crossing, 2 * crossed)
                        crossing[crossed] = order.crossing
                        crossed += 1
                touched[layer] = size
            place = stop
            if wants[CELL]:
                upper = REGION if wants[REGION] else ALL
                if wants[upper]:
                    touched[upper] = _add_up(
                        records[CELL],
                        sides[CELL],
                        met[CELL],
                        touched[CELL],
                        records[upper],
                        sides[upper],
                        met[upper],
                        touched[upper],
                    )
                out, filled = _give(
                    records[CELL],
                    sides[CELL],
                    met[CELL],
                    touched[CELL],
                    anchor,
                    cell,
                    k[cell],
                    held[cell],
                    damped,
                    sku_place,
                    heap_value,
                    heap_item,
                    out,
                    filled,
                )
                touched[CELL] = 0
            if place < end and cell_region[cell_of[posting_orders[place]]] == region:
                continue
            if wants[REGION]:
                if wants[ALL]:
                    touched[ALL] = _add_up(
                        records[REGION],
                        sides[REGION],
                        met[REGION],
                        touched[REGION],
                        records[ALL],
                        sides[ALL],
                        met[ALL],
                        touched[ALL],
                    )
                if twice_in_region[region] and crossed:
                    stamp = _take_off(
                        np.sort(crossing[:crossed]),
                        region,
                        crossing_orders,
                        crossing_person,
                        walk,
                        cell_of,
                        cell_region,
                        items,
                        records[REGION],
                        stamp,
                        stamps,
                        stamped,
                    )
                out, filled = _give(
                    records[REGION],
                    sides[REGION],
                    met[REGION],
                    touched[REGION],
                    anchor,
                    cells + region,
                    k[cells + region],
                    held[cells + region],
                    damped,
                    sku_place,
                    heap_value,
                    heap_item,
                    out,
                    filled,
                )
                touched[REGION] = 0
        if wants[ALL]:
            if crossed:
                stamp = _take_off(
                    np.sort(crossing[:crossed]),
                    -1,
                    crossing_orders,
                    crossing_person,
                    walk,
                    cell_of,
                    cell_region,
                    items,
                    records[ALL],
                    stamp,
                    stamps,
                    stamped,
                )
            out, filled = _give(
                records[ALL],
                sides[ALL],
                met[ALL],
                touched[ALL],
                anchor,
                everything,
                k[everything],
                held[everything],
                damped,
                sku_place,
                heap_value,
                heap_item,
                out,
                filled,
            )
            touched[ALL] = 0
    return out[:filled]


@njit(cache=True)
def _add_up(lower, lower_sides, lower_met, size, upper, upper_sides, upper_met, upper_size):  # type: ignore[no-untyped-def]
    """Add the records met in a lower level to those of the upper one; gives how many the upper one has met."""
    for index in range(size):
        item = lower_met[index]
        one, more = upper[item], lower[item]
        if one.orders == 0:
            upper_met[upper_size] = item
            upper_size += 1
            one.seen = -1
        one.orders += more.orders
        one.customers += more.customers
        if len(lower_sides):
            upper_sides[item, BEFORE] += lower_sides[item, BEFORE]
            upper_sides[item, AFTER] += lower_sides[item, AFTER]
        one.decayed += more.decayed
    return upper_size


@njit(cache=True)
def _take_off(
    places, region, crossing_orders, crossing_person, walk, cell_of, cell_region, items, record, stamp, stamps, stamped
):  # type: ignore[no-untyped-def]
    """Take off a pair's customers what one of several cells was counted more than once; region -1: of all regions."""
    person = -1
    for place in places:
        order = crossing_orders[place]
        if region >= 0 and cell_region[cell_of[order]] != region:
            continue
        if crossing_person[place] != person:
            person = crossing_person[place]
            stamp += 1
        who = walk[order].owner
        for line in range(walk[order].start, walk[order].start + walk[order].lines):
            item = items[line]
            if stamps[item] == stamp and stamped[item] != who:
                record[item].customers -= 1
            stamps[item] = stamp
            stamped[item] = who
    return stamp


@njit(cache=True)
def _give(record, sides, met, size, anchor, level, k, held, damped, sku_place, heap_value, heap_item, out, filled):  # type: ignore[no-untyped-def]
    """Put the best of the items met into `out`, best first, and clear all their records."""
    top, kept = len(heap_value), 0
    for index in range(size):
        item = met[index]
        one = record[item]
        if one.customers >= k and item != anchor:
            value = one.orders * damped[held[item]]
            if kept < top:
                _rise(heap_value, heap_item, kept, value, item, sku_place)
                kept += 1
            elif _worse(heap_value[0], heap_item[0], value, item, sku_place):
                _sink(heap_value, heap_item, kept, value, item, sku_place)
    if filled + kept > len(out):
        out = grown(out, 2 * (filled + kept))
    for place in range(filled + kept - 1, filled - 1, -1):
        item, one = heap_item[0], out[place]
        counted = record[item]
        one.value, one.level, one.anchor, one.companion = heap_value[0], level, anchor, item
        one.orders, one.customers = counted.orders, counted.customers
        one.before, one.after, one.decayed = 0, 0, counted.decayed
        if len(sides):
            one.before, one.after = sides[item, BEFORE], sides[item, AFTER]
        last = place - filled
        _sink(heap_value, heap_item, last, heap_value[last], heap_item[last], sku_place)
    for index in range(size):
        one = record[met[index]]
        one.orders, one.customers, one.decayed = 0, 0, 0
        if len(sides):
            sides[met[index], BEFORE], sides[met[index], AFTER] = 0, 0
    return out, filled + kept


@njit(cache=True)
def _worse(value, item, other_value, other_item, sku_place):  # type: ignore[no-untyped-def]
    return value < other_value or (value == other_value and sku_place[item] > sku_place[other_item])


@njit(cache=True)
def _rise(values, items, place, value, item, sku_place):  # type: ignore[no-untyped-def]
    """Put an entry at the end of a heap whose root is its worst."""
    while place > 0:
        parent = (place - 1) // 2
        if not _worse(value, item, values[parent], items[parent], sku_place):
            break
        values[place], items[place] = values[parent], items[parent]
        place = parent
    values[place], items[place] = value, item


@njit(cache=True)
def _sink(values, items, size, value, item, sku_place):  # type: ignore[no-untyped-def]
    """Put an entry in the place of the root of a heap of `size` entries."""
    place = 0
    while 2 * place + 1 < size:
        child = 2 * place + 1
        if child + 1 < size and _worse(values[child + 1], items[child + 1], values[child], items[child], sku_place):
            child += 1
        if not _worse(values[child], items[child], value, item, sku_place):
            break
        values[place], items[place] = values[child], items[child]
        place = child
    values[place], items[place] = value, item


@njit(cache=True)
def grown(values, room):  # type: ignore[no-untyped-def]
    """`values` at the start of an array with `room` places; the rest is not set."""
    larger = np.empty(room, values.dtype)
    larger[: len(values)] = values
    return larger
