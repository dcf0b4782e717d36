"""Exact pair counts at every level: orders, customers, decayed orders, and which of the two came first.

For each anchor the orders that hold it are walked twice. The first walk counts in how many each item is met, 4 bytes
an item. Few are met in as many orders as a level asks for customers (at a million orders and k = 5 one pair in
twenty); these alone are counted in the second walk, cell by cell (a cell is a segment of a region), each in a record
of its own. A cell's records are added to its region's when the cell ends, and a region's to everything's when the
region ends; at each end the best companions of the anchor are chosen. Orders of a cell stand together, and in them
those of one customer, so the owner last seen with an item tells whether this is a new one. A customer of several cells
is counted once in each; what that is too much further up is taken off there.

Time: pair increments. Memory: 110 bytes an item for records, 4 an item and level, 4 an order of the anchors counted,
44 a pair given; the baskets themselves are 4 bytes a line and 34 an order.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from spark_jobs.kernels.baskets import NOBODY, Baskets, Flags, Longs, Orders, Shorts, by_popularity, from_cell, places
from spark_jobs.kernels.cells import Cell, Ints, Offsets
from spark_jobs.kernels.prefetch import prefetch

Floats = NDArray[np.float64]
Pairs = tuple[Ints, Ints, Ints, Ints, Floats]
"""anchor, companion (item numbers), orders both, customers both, score: one entry per pair, best companion first."""

RECORD = np.dtype([("orders", "i4"), ("customers", "i4"), ("seen", "i4"), ("spare", "i4"), ("decayed", "i8")])
"""What is counted of one companion: one access finds it all. The order of purchase, which few orders tell, is
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
NARROW = 1 << 16
"""Products that two bytes can number."""
ROOM = 4
"""Times `top`: candidates that are kept before the best of them are chosen."""
ORDERS_SHIFT, LAST_PLACE = 32, 2**31 - 1
"""A companion as one number, the greater the better: its orders above its SKU's place, counted from the last one."""


class _Walked(NamedTuple):
    """What counting reads: `Baskets`, and the orders of each anchor, rising."""

    starts: Offsets
    walk: np.ndarray
    items: Ints
    narrow: NDArray[np.uint16]
    """`items` in half the bytes, which caches hold twice as many of; empty where there are too many products."""
    moments: Shorts
    cell: Shorts
    cell_region: Shorts
    crossing_orders: Ints
    crossing_person: Ints
    twice_in_region: Flags
    sku_place: Ints
    held: Ints
    """Shape (levels, items): orders that hold each item."""
    damped: Floats
    """By orders that hold an item: what a companion's orders are multiplied by."""
    anchors: Ints
    begins: Offsets
    """Shape (anchors + 1): where each anchor's orders begin in `own`."""
    own: Ints


class _Marks(NamedTuple):
    """What is written down while one anchor is counted; all of it is cleared for the next one."""

    slots: Ints
    """Shape (items): orders in which each was met; then one more than its place in `near`, 0 where it has none."""
    near: Ints
    """The items that were met; then those of them that are met often enough."""
    here: Ints
    """The places in `near` of an order's items."""
    records: np.ndarray
    """Shape (layers, places in `near`): rows of RECORD."""
    sides: Ints
    """Shape (layers, places, before and after), or no places where no order has two times."""
    met: Ints
    """Shape (layers, places): the places whose records are not empty."""
    touched: Longs
    """Shape (layers): how many these are."""
    crossing: Ints
    """Those of the anchor's orders whose customers have several cells, by their places in `crossing_orders`."""
    stamps: Longs
    stamped: Ints
    heap_value: Floats
    heap_slot: Ints


def count(baskets: Baskets, *, k: Ints, top: int, damping: float, block: int = 0, blocks: int = 1) -> np.ndarray:
    """The `top` companions of every anchor at every level, of those with at least `k[level]` customers: rows of FOUND.

    Of the anchors, every `blocks`-th from `block` on: items are numbered by popularity, so blocks weigh alike. Rows of
    a level and anchor stand together, best first; ties go to the lower SKU. A level whose k is NOBODY is not given.
    """
    held, _ = baskets.item_counts
    walked = _Walked(
        baskets.starts,
        baskets.walk,
        baskets.items,
        baskets.items.astype(np.uint16) if len(baskets.skus) <= NARROW else np.empty(0, np.uint16),
        baskets.moments,
        baskets.cell,
        baskets.cell_region,
        baskets.crossing_orders,
        baskets.crossing_person,
        baskets.twice_in_region,
        baskets.sku_place,
        held,
        np.concatenate(([0], np.arange(1, int(held.max(initial=0)) + 1, dtype=np.float64) ** -damping)),
        *_postings(baskets.starts, baskets.items, baskets.item_orders, block, blocks),
    )
    return _count(walked, np.asarray(k, np.int32), _marks(baskets, top), np.empty(4096, FOUND))


def _marks(baskets: Baskets, top: int) -> _Marks:
    items = len(baskets.skus)
    records = np.zeros((3, items), RECORD)
    records["seen"] = -1
    return _Marks(
        slots=np.zeros(items, np.int32),
        near=np.empty(items + 1, np.int32),
        here=np.empty(int(np.diff(baskets.starts).max(initial=0)) + 1, np.int32),
        records=records,
        sides=np.zeros((3, items if baskets.moments.any() else 0, 2), np.int32),
        met=np.empty((3, items + 1), np.int32),
        touched=np.zeros(3, np.int64),
        crossing=np.empty(len(baskets.crossing_orders), np.int32),
        stamps=np.zeros(items, np.int64),
        stamped=np.empty(items, np.int32),
        heap_value=np.empty(top, np.float64),
        heap_slot=np.empty(top, np.int32),
    )


def count_orders(orders: Orders, *, top: int, block: int = 0, blocks: int = 1) -> np.ndarray:
    """The `top` companions of every anchor by the orders that hold both, wherever they were: rows of BOTH.

    No levels, no customers, no decay: of what `count` counts only the orders, in 4 bytes an item. Anchors, ties and
    blocks as there; items as `orders` numbers them.
    """
    held, number, old = by_popularity(orders)
    items = (number.astype(np.uint16) if len(old) <= NARROW else number)[orders.items]
    place = places(orders.skus)
    anchors, begins, own = _postings(orders.starts, items, held, block, blocks)
    at_place = np.empty(len(old), np.int32)
    at_place[place] = np.arange(len(old), dtype=np.int32)
    counts, met = np.zeros(len(old), np.int32), np.empty(len(old) + 1, np.int32)
    keys = np.empty(ROOM * top, np.int64)
    found = _count_orders(
        orders.starts,
        items,
        anchors,
        begins,
        own,
        place[old],
        at_place,
        top,
        counts,
        met,
        keys,
        np.empty(4096, BOTH),
    )
    found["anchor"] = old[found["anchor"]]
    return found


def _postings(starts: Offsets, items: Ints, held: Longs, block: int, blocks: int) -> tuple[Ints, Offsets, Ints]:
    """The anchors of a block, where each one's orders begin, shape (anchors + 1), and the orders, rising."""
    anchors = np.arange(block, len(held), blocks, dtype=np.int32)
    number = np.full(len(held), len(anchors), np.int32)
    number[anchors] = np.arange(len(anchors), dtype=np.int32)
    begins = np.concatenate(([0], np.cumsum(held[anchors], dtype=np.int64)))
    return anchors, begins, _orders_of(starts, items, number, begins)


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


@njit(cache=True, nogil=True)
def _orders_of(starts, items, number, begins):  # type: ignore[no-untyped-def]
    """The orders of each anchor, one anchor's after the other's, rising; `number` tells an item's place among anchors.

    Items that are no anchors have the number after the last: without a branch, their orders go to one place at the end.
    """
    anchors = len(begins) - 1
    orders = np.empty(begins[-1] + 1, np.int32)
    filled = begins.copy()
    for order in range(len(starts) - 1):
        for line in range(starts[order], starts[order + 1]):
            anchor = number[items[line]]
            orders[filled[anchor]] = order
            filled[anchor] += anchor < anchors
    return orders[:-1]


@njit(cache=True)
def _meet(starts, items, own, begin, end, counts, met):  # type: ignore[no-untyped-def]
    """Count the items of the orders own[begin:end], and write down each in `met`; gives how many these are."""
    size = 0
    for posting in range(begin, end):
        if posting + 2 * AHEAD < len(own):
            prefetch(starts, own[posting + 2 * AHEAD])
            prefetch(items, starts[own[posting + AHEAD]])
        for line in range(starts[own[posting]], starts[own[posting] + 1]):
            item = items[line]
            met[size] = item  # without a branch: of pairs, half are met for the first time
            size += counts[item] == 0
            counts[item] += 1
    return size


@njit(cache=True, nogil=True)
def _count_orders(starts, items, anchors, begins, own, sku_place, at_place, top, counts, met, keys, out):  # type: ignore[no-untyped-def]
    filled = 0
    for number in range(len(anchors)):
        size = _meet(starts, items, own, begins[number], begins[number + 1], counts, met)
        counts[anchors[number]] = 0
        kept, least = 0, np.int64(1) << ORDERS_SHIFT
        for index in range(size):
            item = met[index]
            key = (np.int64(counts[item]) << ORDERS_SHIFT) | (LAST_PLACE - sku_place[item])
            counts[item] = 0
            keys[kept] = key
            kept += key >= least
            if kept == len(keys):
                _best_first(keys, top)
                kept, least = top, keys[:top].min()
        keys[:kept].sort()
        if filled + top > len(out):
            out = grown(out, 2 * (filled + top))
        for rank in range(min(kept, top)):
            one, key = out[filled + rank], keys[kept - 1 - rank]
            one.anchor, one.companion = anchors[number], at_place[LAST_PLACE - (key & LAST_PLACE)]
            one.orders, one.rank = key >> ORDERS_SHIFT, rank + 1
        filled += min(kept, top)
    return out[:filled]


@njit(cache=True)
def _best_first(keys, top):  # type: ignore[no-untyped-def]
    """Put the `top` greatest of different numbers before all others. Hoare, Algorithm 65: Find, CACM 4(7), 1961."""
    low, high = 0, len(keys) - 1
    while low < high:
        pivot = keys[(low + high) // 2]
        left, right = low, high
        while left <= right:
            while keys[left] > pivot:
                left += 1
            while keys[right] < pivot:
                right -= 1
            if left <= right:
                keys[left], keys[right] = keys[right], keys[left]
                left, right = left + 1, right - 1
        if top <= right:
            high = right
        elif top > left:
            low = left
        else:
            return


@njit(cache=True, nogil=True)
def _count(walked, k, marks, out):  # type: ignore[no-untyped-def]
    cells, regions = len(walked.cell_region), len(walked.twice_in_region)
    everything, least = cells + regions, k.min()
    filled, stamp = 0, 0
    for number in range(len(walked.anchors)):
        anchor, place, end = walked.anchors[number], walked.begins[number], walked.begins[number + 1]
        # Where not even the anchor has enough orders no pair has: it is passed over, at each level.
        near = _near(walked, number, least, marks) if end - place >= least else 0
        all_wanted, crossed = k[everything] <= end - place, 0
        while place < end and near:
            cell = walked.cell[walked.own[place]]
            region = walked.cell_region[cell]
            stop = place + walked.held[cell, anchor]
            cell_wanted = k[cell] <= stop - place
            region_wanted = k[cells + region] <= walked.held[cells + region, anchor]
            if cell_wanted or region_wanted or all_wanted:
                layer = CELL if cell_wanted else (REGION if region_wanted else ALL)
                crossed = _walk(walked, anchor, place, stop, marks, layer, crossed)
            place = stop
            if cell_wanted:
                if region_wanted or all_wanted:
                    _add_up(marks, CELL, REGION if region_wanted else ALL)
                out, filled = _give(walked, marks, CELL, anchor, cell, k[cell], out, filled)
            goes_on = place < end and walked.cell_region[walked.cell[walked.own[place]]] == region
            if region_wanted and not goes_on:
                if all_wanted:
                    _add_up(marks, REGION, ALL)
                if walked.twice_in_region[region] and crossed:
                    stamp = _take_off(walked, marks, REGION, np.sort(marks.crossing[:crossed]), region, stamp)
                out, filled = _give(walked, marks, REGION, anchor, cells + region, k[cells + region], out, filled)
        if all_wanted and near:
            if crossed:
                stamp = _take_off(walked, marks, ALL, np.sort(marks.crossing[:crossed]), -1, stamp)
            out, filled = _give(walked, marks, ALL, anchor, everything, k[everything], out, filled)
        for index in range(near):
            marks.slots[marks.near[index]] = 0
    return out[:filled]


@njit(cache=True)
def _near(walked, number, least, marks):  # type: ignore[no-untyped-def]
    """Find the items that at least `least` of the anchor's orders hold: sets `slots`; gives how many there are."""
    slots, near = marks.slots, marks.near
    begin, end = walked.begins[number], walked.begins[number + 1]
    if len(walked.narrow):
        size = _meet(walked.starts, walked.narrow, walked.own, begin, end, slots, near)
    else:
        size = _meet(walked.starts, walked.items, walked.own, begin, end, slots, near)
    slots[walked.anchors[number]] = 0
    kept = 0
    for index in range(size):
        item = near[index]
        often = slots[item] >= least
        near[kept] = item
        kept += often
        slots[item] = kept if often else 0
    return kept


@njit(cache=True)
def _walk(walked, anchor, begin, end, marks, layer, crossed):  # type: ignore[no-untyped-def]
    """Count the anchor's orders own[begin:end] in records of `layer`; gives how many orders of `crossing` there are."""
    own, here, record, met = walked.own, marks.here, marks.records[layer], marks.met[layer]
    size = marks.touched[layer]
    for posting in range(begin, end):
        if posting + AHEAD < len(own):
            prefetch(walked.walk, own[posting + AHEAD])
        number = own[posting]
        if len(walked.narrow):
            found = _find(walked.starts, walked.narrow, own, posting, marks.slots, here)
        else:
            found = _find(walked.starts, walked.items, own, posting, marks.slots, here)
        order = walked.walk[number]
        for index in range(found):
            slot = here[index]
            one = record[slot]
            met[size] = slot
            size += one.orders == 0
            one.orders += 1
            one.decayed += order.weight
            one.customers += one.seen != order.owner
            one.seen = order.owner
        if order.timed:
            _take_sides(walked, anchor, number, marks, layer)
        if order.crossing >= 0:
            marks.crossing[crossed] = order.crossing
            crossed += 1
    marks.touched[layer] = size
    return crossed


@njit(cache=True)
def _find(starts, items, own, posting, slots, here):  # type: ignore[no-untyped-def]
    """Write down the places in `near` of the items of an order; gives how many have one."""
    if posting + AHEAD < len(own):
        prefetch(items, starts[own[posting + AHEAD]])
    found = 0
    for line in range(starts[own[posting]], starts[own[posting] + 1]):
        slot = slots[items[line]]
        here[found] = slot - 1  # without a branch: of pairs, half are met often enough
        found += slot > 0
    return found


@njit(cache=True)
def _take_sides(walked, anchor, order, marks, layer):  # type: ignore[no-untyped-def]
    """Count before and after which items of an order its line of the anchor was written."""
    begin, end = walked.starts[order], walked.starts[order + 1]
    own = begin
    while walked.items[own] != anchor:
        own += 1
    for line in range(begin, end):
        slot = marks.slots[walked.items[line]]
        if slot > 0 and walked.moments[own] != walked.moments[line]:
            marks.sides[layer, slot - 1, BEFORE if walked.moments[own] < walked.moments[line] else AFTER] += 1


@njit(cache=True)
def _add_up(marks, lower, upper):  # type: ignore[no-untyped-def]
    """Add the records of a layer to those of the upper one."""
    more, record, met = marks.records[lower], marks.records[upper], marks.met[upper]
    size = marks.touched[upper]
    for index in range(marks.touched[lower]):
        slot = marks.met[lower, index]
        one = record[slot]
        met[size] = slot
        size += one.orders == 0
        one.orders += more[slot].orders
        one.customers += more[slot].customers
        one.decayed += more[slot].decayed
        if marks.sides.shape[1]:
            marks.sides[upper, slot, BEFORE] += marks.sides[lower, slot, BEFORE]
            marks.sides[upper, slot, AFTER] += marks.sides[lower, slot, AFTER]
    marks.touched[upper] = size


@njit(cache=True)
def _take_off(walked, marks, layer, places, region, stamp):  # type: ignore[no-untyped-def]
    """Take off a pair's customers what one of several cells was counted more than once; region -1: of all regions."""
    person = -1
    for place in places:
        order = walked.crossing_orders[place]
        if region >= 0 and walked.cell_region[walked.cell[order]] != region:
            continue
        if walked.crossing_person[place] != person:
            person = walked.crossing_person[place]
            stamp += 1
        who = walked.walk[order].owner
        for line in range(walked.starts[order], walked.starts[order + 1]):
            slot = marks.slots[walked.items[line]] - 1
            if slot >= 0:
                if marks.stamps[slot] == stamp and marks.stamped[slot] != who:
                    marks.records[layer, slot].customers -= 1
                marks.stamps[slot] = stamp
                marks.stamped[slot] = who
    return stamp


@njit(cache=True)
def _give(walked, marks, layer, anchor, level, k, out, filled):  # type: ignore[no-untyped-def]
    """Put the best of a layer's records into `out`, best first, and clear them all."""
    record, near, sku_place, held = marks.records[layer], marks.near, walked.sku_place, walked.held[level]
    values, slots = marks.heap_value, marks.heap_slot
    top, kept = len(values), 0
    for index in range(marks.touched[layer]):
        slot = marks.met[layer, index]
        one = record[slot]
        if one.customers >= k:
            value = one.orders * walked.damped[held[near[slot]]]
            if kept < top:
                _rise(values, slots, kept, value, slot, near, sku_place)
                kept += 1
            elif _worse(values[0], slots[0], value, slot, near, sku_place):
                _sink(values, slots, kept, value, slot, near, sku_place)
    if filled + kept > len(out):
        out = grown(out, 2 * (filled + kept))
    for last in range(kept - 1, -1, -1):
        slot, one = slots[0], out[filled + last]
        counted = record[slot]
        one.value, one.level, one.anchor, one.companion = values[0], level, anchor, near[slot]
        one.orders, one.customers, one.decayed = counted.orders, counted.customers, counted.decayed
        one.before, one.after = 0, 0
        if marks.sides.shape[1]:
            one.before, one.after = marks.sides[layer, slot, BEFORE], marks.sides[layer, slot, AFTER]
        _sink(values, slots, last, values[last], slots[last], near, sku_place)
    for index in range(marks.touched[layer]):
        slot = marks.met[layer, index]
        one = record[slot]
        one.orders, one.customers, one.decayed, one.seen = 0, 0, 0, -1
        if marks.sides.shape[1]:
            marks.sides[layer, slot, BEFORE], marks.sides[layer, slot, AFTER] = 0, 0
    marks.touched[layer] = 0
    return out, filled + kept


@njit(cache=True)
def _worse(value, slot, other_value, other_slot, near, sku_place):  # type: ignore[no-untyped-def]
    return value < other_value or (value == other_value and sku_place[near[slot]] > sku_place[near[other_slot]])


@njit(cache=True)
def _rise(values, slots, place, value, slot, near, sku_place):  # type: ignore[no-untyped-def]
    """Put an entry at the end of a heap whose root is its worst."""
    while place > 0:
        parent = (place - 1) // 2
        if not _worse(value, slot, values[parent], slots[parent], near, sku_place):
            break
        values[place], slots[place] = values[parent], slots[parent]
        place = parent
    values[place], slots[place] = value, slot


@njit(cache=True)
def _sink(values, slots, size, value, slot, near, sku_place):  # type: ignore[no-untyped-def]
    """Put an entry in the place of the root of a heap of `size` entries."""
    place = 0
    while 2 * place + 1 < size:
        child = 2 * place + 1
        if child + 1 < size and _worse(
            values[child + 1], slots[child + 1], values[child], slots[child], near, sku_place
        ):
            child += 1
        if not _worse(values[child], slots[child], value, slot, near, sku_place):
            break
        values[place], slots[place] = values[child], slots[child]
        place = child
    values[place], slots[place] = value, slot


@njit(cache=True)
def grown(values, room):  # type: ignore[no-untyped-def]
    """`values` at the start of an array with `room` places; the rest is not set."""
    larger = np.empty(room, values.dtype)
    larger[: len(values)] = values
    return larger
