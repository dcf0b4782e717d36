"""Exact counts of sets of 2 to 4 products: all that enough orders and customers bought, or those that are named.

`frequent_sets` mines a cell depth first. Products are numbered by how many orders hold them, the rarest first, and a
set is found from its rarest member: its orders are projected to the products that may follow, these are counted, and
each that is frequent is projected again (Zaki, TKDE 2000, on depth-first vertical mining; Uno, Kiyomi & Arimura,
FIMI 2004, LCM, on delivering occurrences to buckets). Orders, distinct customers and what may stand together in pairs
only ever shrink when a set grows, so each prunes exactly: nothing that is left out could have come back.

`count_sets` counts sets that somebody chose (a merchandiser's pins).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from spark_jobs.kernels.cells import Cell, Ints
from spark_jobs.kernels.pairs import grown

ABSENT = -1
LARGEST = 4
"""Products in the largest set that is counted."""


@dataclass(frozen=True)
class Sets:
    """One entry per set: shapes (sets, 4), (sets,), (sets,)."""

    items: Ints
    """Item numbers, ascending; -1 fills smaller sets."""
    orders: Ints
    customers: Ints


Admission = Callable[[Ints, Ints, Ints, Ints], NDArray[np.bool_]]
"""Of pairs (item, other item, orders, customers; one entry a pair, shape (pairs,)): which may stand in one set."""


def everything(first: Ints, second: Ints, orders: Ints, customers: Ints) -> NDArray[np.bool_]:
    """The admission that leaves out nothing."""
    return np.ones(len(first), bool)


def frequent_sets(
    cell: Cell,
    *,
    min_orders: int,
    min_customers: int,
    max_components: int = LARGEST,
    usable: NDArray[np.bool_] | None = None,
    admitted: Admission = everything,
    joined: Admission = everything,
) -> Sets:
    """All pairs of `usable` items (shape (items,); default all) that are `admitted`, and all larger sets of which every
    pair is admitted and `joined`, with exact counts; sorted by size, then by items.

    Pairs need `min_customers` distinct customers, larger sets `min_orders` orders and `min_customers` customers of the
    whole set.
    Time is the projections of what is frequent; memory 12 bytes a line of an order, 16 a pair, 24 a set.
    """
    keep = cell.item_counts >= max(min_customers, 1)
    if usable is not None:
        keep &= usable
    order = np.lexsort((np.arange(len(keep)), cell.item_counts))
    numbers = order[keep[order]].astype(np.int32)
    starts, items, item_starts, item_orders = _by_rarity(
        cell.order_starts, cell.item_starts, cell.item_orders, numbers, cell.orders
    )
    baskets = (starts, items, cell.order_customer, item_starts, item_orders)
    first, second, orders, customers = _pairs(*baskets, min_customers)
    fine = admitted(numbers[first], numbers[second], orders, customers)
    first, second, orders, customers = (values[fine] for values in (first, second, orders, customers))
    found = np.full((len(first), LARGEST), ABSENT, np.int32)
    found[:, 0], found[:, 1] = first, second
    if max_components > 2:
        close = (orders >= min_orders) & joined(numbers[first], numbers[second], orders, customers)
        together = np.searchsorted(first[close], np.arange(len(numbers) + 1)).astype(np.int64)
        larger = _larger(*baskets, together, second[close], min_orders, min_customers, max_components)
        found, orders, customers = (
            np.concatenate(both) for both in zip((found, orders, customers), larger, strict=True)
        )
    return _sorted(np.where(found >= 0, numbers[found], ABSENT), orders, customers)


def _sorted(items: Ints, orders: Ints, customers: Ints) -> Sets:
    size = (items >= 0).sum(1)
    items = np.sort(np.where(items >= 0, items, np.iinfo(np.int32).max), axis=1)
    place = np.lexsort((*items.T[::-1], size))
    items = np.where(items < np.iinfo(np.int32).max, items, ABSENT).astype(np.int32)
    return Sets(items[place], orders[place], customers[place])


@njit(cache=True)
def _by_rarity(order_starts, item_starts, item_orders, numbers, orders):  # type: ignore[no-untyped-def]
    """Orders and postings of the items `numbers`, renumbered by their place there; items ascend within an order."""
    starts = np.zeros(orders + 1, np.int64)
    new_starts = np.zeros(len(numbers) + 1, np.int64)
    for place in range(len(numbers)):
        first, last = item_starts[numbers[place]], item_starts[numbers[place] + 1]
        new_starts[place + 1] = new_starts[place] + last - first
        for posting in range(first, last):
            starts[item_orders[posting] + 1] += 1
    for order in range(orders):
        starts[order + 1] += starts[order]
    filled = starts[:-1].copy()
    items = np.empty(starts[-1], np.int32)
    new_orders = np.empty(starts[-1], np.int32)
    for place in range(len(numbers)):
        first = item_starts[numbers[place]]
        for posting in range(new_starts[place], new_starts[place + 1]):
            order = item_orders[first + posting - new_starts[place]]
            new_orders[posting] = order
            items[filled[order]] = place
            filled[order] += 1
    return starts, items, new_starts, new_orders


@njit(cache=True)
def _pairs(order_starts, order_items, order_customer, item_starts, item_orders, min_customers):  # type: ignore[no-untyped-def]
    """Pairs of enough customers, each once, from its rarer item; sorted."""
    items = len(item_starts) - 1
    both, customers = np.zeros(items, np.int32), np.zeros(items, np.int32)
    last = np.full(items, -1, np.int32)
    touched = np.empty(items, np.int32)
    room = 1024
    out_first, out_second = np.empty(room, np.int32), np.empty(room, np.int32)
    out_orders, out_customers = np.empty(room, np.int32), np.empty(room, np.int32)
    filled = 0
    for item in range(items):
        met = 0
        for posting in range(item_starts[item], item_starts[item + 1]):
            order = item_orders[posting]
            customer = order_customer[order]
            line = order_starts[order + 1] - 1
            while order_items[line] != item:
                other = order_items[line]
                if both[other] == 0:
                    touched[met] = other
                    met += 1
                both[other] += 1
                if last[other] != customer:
                    last[other] = customer
                    customers[other] += 1
                line -= 1
        kept = 0
        for index in range(met):
            other = touched[index]
            if customers[other] >= min_customers:
                touched[kept], touched[index] = other, touched[kept]
                kept += 1
        if filled + kept > room:
            room = 2 * room + kept
            out_first, out_second = grown(out_first, room), grown(out_second, room)
            out_orders, out_customers = grown(out_orders, room), grown(out_customers, room)
        for other in np.sort(touched[:kept]):
            out_first[filled], out_second[filled] = item, other
            out_orders[filled], out_customers[filled] = both[other], customers[other]
            filled += 1
        for index in range(met):
            other = touched[index]
            both[other] = 0
            customers[other] = 0
            last[other] = -1
    return out_first[:filled], out_second[:filled], out_orders[:filled], out_customers[:filled]


@njit(cache=True)
def _larger(  # type: ignore[no-untyped-def]
    order_starts,
    order_items,
    order_customer,
    item_starts,
    item_orders,
    together_starts,
    together,
    min_orders,
    min_customers,
    max_components,
):
    """Sets of 3 and 4 whose pairs all stand in `together` (CSR by the rarer item), by depth-first projection.

    An item's orders are written as runs of places in its row of `together`, each run closed by -1: a place in such a
    run is an occurrence, and what follows it up to -1 is what may still join.
    """
    items = len(item_starts) - 1
    widest = 0
    for item in range(items):
        widest = max(widest, together_starts[item + 1] - together_starts[item])
    place_of = np.full(items, -1, np.int32)
    three, four = _counters(widest), _counters(widest)
    slot_of = np.full(widest, -1, np.int32)
    starts, fill = np.zeros(widest + 1, np.int64), np.zeros(widest, np.int64)
    deeper_starts = np.zeros(widest + 1, np.int64)
    run, owner = np.empty(1024, np.int32), np.empty(1024, np.int32)
    occurrences, deeper = np.empty(1024, np.int64), np.empty(1024, np.int64)
    room = 1024
    found, orders, customers = np.empty((room, 4), np.int32), np.empty(room, np.int32), np.empty(room, np.int32)
    filled = 0
    for first in range(items):
        row = together[together_starts[first] : together_starts[first + 1]]
        if len(row) < 2:
            continue
        needed = 0
        for posting in range(item_starts[first], item_starts[first + 1]):
            order = item_orders[posting]
            needed += order_starts[order + 1] - order_starts[order] + 1
        if needed > len(run):
            run, owner = np.empty(2 * needed, np.int32), np.empty(2 * needed, np.int32)
            occurrences, deeper = np.empty(2 * needed, np.int64), np.empty(2 * needed, np.int64)
        for place in range(len(row)):
            place_of[row[place]] = place
        length = _project(
            order_starts, order_items, order_customer, item_orders[item_starts[first] : item_starts[first + 1]],
            place_of, run, owner,
        )  # fmt: skip
        _deliver_all(run[:length], len(row), starts, fill, occurrences)
        for second in range(len(row)):
            own = occurrences[starts[second] : starts[second + 1]]
            if len(own) < min_orders:
                continue
            follows = together[together_starts[row[second]] : together_starts[row[second] + 1]]
            met = _count_after(run, owner, own, slot_of, False, three)
            kept = _keep(row, follows, met, min_orders, min_customers, three)
            if filled + kept > room:
                room = 2 * room + kept
                found, orders, customers = _wider(found, room), grown(orders, room), grown(customers, room)
            counts, buyers, _, touched = three
            for index in range(kept):
                third = touched[index]
                found[filled, 0], found[filled, 1] = first, row[second]
                found[filled, 2], found[filled, 3] = row[third], -1
                orders[filled], customers[filled] = counts[third], buyers[third]
                filled += 1
            if max_components > 3 and kept > 1:
                _deliver(run, own, touched[:kept], counts, slot_of, deeper_starts, fill, deeper)
                for index in range(kept):
                    third = touched[index]
                    last_row = together[together_starts[row[third]] : together_starts[row[third] + 1]]
                    here = deeper[deeper_starts[index] : deeper_starts[index + 1]]
                    met_four = _count_after(run, owner, here, slot_of, True, four)
                    kept_four = _keep(row, last_row, met_four, min_orders, min_customers, four)
                    if filled + kept_four > room:
                        room = 2 * room + kept_four
                        found, orders, customers = _wider(found, room), grown(orders, room), grown(customers, room)
                    for spot in range(kept_four):
                        fourth = four[3][spot]
                        found[filled, 0], found[filled, 1] = first, row[second]
                        found[filled, 2], found[filled, 3] = row[third], row[fourth]
                        orders[filled], customers[filled] = four[0][fourth], four[1][fourth]
                        filled += 1
                    _forget(met_four, four)
                for index in range(kept):
                    slot_of[touched[index]] = -1
            _forget(met, three)
        for place in range(len(row)):
            place_of[row[place]] = -1
    return found[:filled], orders[:filled], customers[:filled]


@njit(cache=True)
def _counters(width):  # type: ignore[no-untyped-def]
    """Orders, customers, customer last seen, and which places were met."""
    return np.zeros(width, np.int32), np.zeros(width, np.int32), np.full(width, -1, np.int32), np.empty(width, np.int32)


@njit(cache=True)
def _project(order_starts, order_items, order_customer, orders, place_of, run, owner):  # type: ignore[no-untyped-def]
    """Write the places met in each of `orders` to `run`, closed by -1, and the customer of each to `owner`."""
    length = 0
    for order in orders:
        begin = length
        for line in range(order_starts[order], order_starts[order + 1]):
            place = place_of[order_items[line]]
            if place >= 0:
                run[length] = place
                owner[length] = order_customer[order]
                length += 1
        if length - begin < 2:
            length = begin
        else:
            run[length] = -1
            length += 1
    return length


@njit(cache=True)
def _deliver_all(run, width, starts, fill, occurrences):  # type: ignore[no-untyped-def]
    """Where each place occurs in `run`: bucket by bucket in `occurrences`."""
    starts[: width + 1] = 0
    for spot in range(len(run)):
        if run[spot] >= 0:
            starts[run[spot] + 1] += 1
    for place in range(width):
        starts[place + 1] += starts[place]
        fill[place] = starts[place]
    for spot in range(len(run)):
        place = run[spot]
        if place >= 0:
            occurrences[fill[place]] = spot
            fill[place] += 1


@njit(cache=True)
def _deliver(run, own, kept, counts, slot_of, starts, fill, occurrences):  # type: ignore[no-untyped-def]
    """Where each `kept` place occurs after the spots `own`; `slot_of` tells its bucket from now on."""
    starts[0] = 0
    for index in range(len(kept)):
        slot_of[kept[index]] = index
        fill[index] = starts[index]
        starts[index + 1] = starts[index] + counts[kept[index]]
    for begin in own:
        spot = begin + 1
        while run[spot] >= 0:
            slot = slot_of[run[spot]]
            if slot >= 0:
                occurrences[fill[slot]] = spot
                fill[slot] += 1
            spot += 1


@njit(cache=True)
def _count_after(run, owner, own, slot_of, chosen, counters):  # type: ignore[no-untyped-def]
    """Count what follows each of the spots `own` in its run (`chosen`: only places with a slot); give how many met."""
    counts, buyers, last, touched = counters
    met = 0
    for begin in own:
        customer = owner[begin]
        spot = begin + 1
        while run[spot] >= 0:
            place = run[spot]
            if not chosen or slot_of[place] >= 0:
                if counts[place] == 0:
                    touched[met] = place
                    met += 1
                counts[place] += 1
                if last[place] != customer:
                    last[place] = customer
                    buyers[place] += 1
            spot += 1
    return met


@njit(cache=True)
def _keep(row, follows, met, min_orders, min_customers, counters):  # type: ignore[no-untyped-def]
    """Bring the frequent places that `follows` (sorted items) holds to the front of those met; give how many."""
    counts, buyers, _, touched = counters
    kept = 0
    for index in range(met):
        place = touched[index]
        if buyers[place] >= min_customers and counts[place] >= min_orders:
            at = np.searchsorted(follows, row[place])
            if at < len(follows) and follows[at] == row[place]:
                touched[kept], touched[index] = place, touched[kept]
                kept += 1
    return kept


@njit(cache=True)
def _forget(met, counters):  # type: ignore[no-untyped-def]
    counts, buyers, last, touched = counters
    for index in range(met):
        place = touched[index]
        counts[place] = 0
        buyers[place] = 0
        last[place] = -1


@njit(cache=True)
def _wider(rows, room):  # type: ignore[no-untyped-def]
    larger = np.empty((room, rows.shape[1]), rows.dtype)
    larger[: len(rows)] = rows
    return larger


def count_sets(cell: Cell, items: Ints) -> tuple[Ints, Ints]:
    """Orders and distinct customers of each set of `items`, shape (sets, 4), -1 fills smaller sets."""
    orders, customers = np.zeros(len(items), np.int32), np.zeros(len(items), np.int32)
    for place, row in enumerate(items):
        holding = None
        for item in row[row >= 0]:
            own = cell.item_orders[cell.item_starts[item] : cell.item_starts[item + 1]]
            holding = own if holding is None else np.intersect1d(holding, own, assume_unique=True)
        if holding is not None:
            orders[place], customers[place] = len(holding), len(np.unique(cell.order_customer[holding]))
    return orders, customers
