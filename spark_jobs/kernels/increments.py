"""Pair counts that are kept from day to day: new orders add theirs, orders that leave the window take theirs off.

The counts are those of a recount, to the last integer, distinct customers too: a customer is taken off a pair with the
last of its orders that hold it, which its other orders of the window tell. Only customers with a changed order are
looked at, and of them only pairs of changed orders. A customer who moves to another segment is one whose orders leave
one cell and enter another.

Counts are rows sorted by level and pair (32 bytes), each pair once. The day's changes are merged into a small run of
changes; when that has grown to an eighth of the counts, the two are merged (O'Neil et al., The log-structured
merge-tree, Acta Informatica 33, 1996). Counts of cells add up to those of regions and of everything; where a customer
has orders in several cells, rows of the upper levels hold what its customers are too many by, as a negative number.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numba import njit
from numpy.typing import NDArray

from spark_jobs.kernels.baskets import Flags, Longs, Orders, Shorts
from spark_jobs.kernels.cells import Ints, Offsets
from spark_jobs.kernels.pairs import grown

COUNT = np.dtype(
    [
        ("key", np.uint64),
        ("decayed", np.int64),
        ("orders", np.int32),
        ("customers", np.int32),
        ("before", np.int32),
        ("after", np.int32),
    ]
)
"""A pair at a level: `key` is made by `keys`; `before` and `after` are the orders in which the item of the lower number
was taken before and after the other; the rest is as in `pairs.FOUND`."""
LEVEL_BITS, ITEM_BITS = 14, 25
"""16,384 levels and 33 million items fit into a key."""
SHARE = 8
"""Changes of so large a share of the counts (one in SHARE) are merged into them."""
ANYWHERE, SAME_REGION, SAME_CELL = 1, 2, 3
"""How near another order of the customer is that holds the pair as well; 0: there is none."""


@dataclass(frozen=True)
class Window:
    """The orders that are counted, in any order. Customers and items keep their numbers from day to day."""

    starts: Offsets
    items: Ints
    """Distinct and rising within an order."""
    moments: Shorts
    """As `items`, place of the line's time within its order; empty: no order has two times."""
    customer: Ints
    """-1 where there is none."""
    cell: Shorts
    weight: Longs

    @property
    def orders(self) -> int:
        return len(self.cell)


@dataclass(frozen=True)
class Counts:
    """All pairs of a window: the sum of two runs, of which the second is small."""

    settled: np.ndarray
    changes: np.ndarray

    def whole(self) -> np.ndarray:
        """One run of all pairs: rows of COUNT, by key."""
        return _merged(self.settled, self.changes)


def keys(level: NDArray[np.integer], low: NDArray[np.integer], high: NDArray[np.integer]) -> NDArray[np.uint64]:
    """The key of the pair of items low < high at a level."""
    wide = [np.asarray(part).astype(np.uint64) for part in (level, low, high)]
    return (wide[0] << np.uint64(2 * ITEM_BITS)) | (wide[1] << np.uint64(ITEM_BITS)) | wide[2]


class Numbers:
    """The numbers of products and customers: the next new one gets the next number, and none ever changes."""

    def __init__(self) -> None:
        self.skus, self.people = pa.array([], pa.string()), pa.array([], pa.string())

    def window(self, orders: Orders, people: pa.Array) -> Window:
        """`orders` of `people` (see `lines.merged`) by these numbers."""
        self.skus, item = _numbered(self.skus, orders.skus)
        self.people, person = _numbered(self.people, people)
        owner = np.repeat(np.arange(len(orders.cell)), np.diff(orders.starts))
        items = item[orders.items]
        rising = np.lexsort((items, owner))
        return Window(
            starts=orders.starts,
            items=items[rising],
            moments=orders.moments[rising] if len(orders.moments) else orders.moments,
            customer=np.append(person, np.int32(-1))[orders.customer],
            cell=orders.cell,
            weight=orders.weight,
        )


def _numbered(known: pa.Array, values: pa.Array) -> tuple[pa.Array, Ints]:
    """`known` with what is new in `values` behind it, and the number of each of `values`."""
    new = values.filter(pc.invert(pc.is_in(values, known)))
    known = pa.concat_arrays([known, new])
    return known, pc.index_in(values, known).to_numpy().astype(np.int32)


def nothing() -> Counts:
    """The counts of a window without orders."""
    return Counts(np.empty(0, COUNT), np.empty(0, COUNT))


def advanced(
    counts: Counts, window: Window, leaving: Flags, entering: Window, cell_region: Shorts
) -> tuple[Counts, Window]:
    """The counts and the window after the orders `leaving` (a flag an order) have left and `entering` have come.

    Levels are numbered as in `Baskets`: cells (their regions in `cell_region`), regions, everything.
    """
    union = joined(window, entering)
    change = np.zeros(union.orders, np.int8)
    change[: window.orders][leaving] = -1
    change[window.orders :] = 1
    run = _run(union, change, cell_region)
    changes = _merged(counts.changes, run)
    if len(changes) * SHARE > len(counts.settled):
        counts = Counts(_merged(counts.settled, changes), changes[:0].copy())
    else:
        counts = Counts(counts.settled, changes)
    return counts, kept(union, change >= 0)


def joined(one: Window, other: Window) -> Window:
    """The orders of both."""
    timed = len(one.moments) or len(other.moments)
    moments = [part.moments if len(part.moments) else np.zeros(len(part.items), np.int16) for part in (one, other)]
    return Window(
        starts=np.concatenate((one.starts, one.starts[-1] + other.starts[1:])),
        items=np.concatenate((one.items, other.items)),
        moments=np.concatenate(moments) if timed else one.moments,
        customer=np.concatenate((one.customer, other.customer)),
        cell=np.concatenate((one.cell, other.cell)),
        weight=np.concatenate((one.weight, other.weight)),
    )


def kept(window: Window, keep: Flags) -> Window:
    """The orders that `keep` flags."""
    sizes = np.diff(window.starts)
    lines = np.repeat(keep, sizes)
    return Window(
        starts=np.concatenate(([0], np.cumsum(sizes[keep]))).astype(np.int64),
        items=window.items[lines],
        moments=window.moments[lines] if len(window.moments) else window.moments,
        customer=window.customer[keep],
        cell=window.cell[keep],
        weight=window.weight[keep],
    )


def _run(union: Window, change: NDArray[np.int8], cell_region: Shorts) -> np.ndarray:
    """What the changes do to the counts: rows of COUNT, each key once."""
    changed = np.flatnonzero(change)
    if not len(changed):
        return np.empty(0, COUNT)
    people = int(union.customer.max(initial=-1)) + 1
    concerned = np.zeros(people + 1, bool)
    concerned[union.customer[changed]] = True
    concerned[people] = False  # what -1 stands for: orders of nobody
    theirs = np.flatnonzero(concerned[union.customer] | (change != 0)).astype(np.int32)
    theirs = theirs[np.argsort(union.customer[theirs], kind="stable")]
    sizes = np.diff(union.starts)[changed]
    room = int((sizes * (sizes - 1) // 2).sum())
    items = int(union.items.max(initial=-1)) + 1
    regions = int(cell_region.max(initial=-1)) + 1
    events = _events(
        union.starts,
        union.items,
        union.moments,
        union.customer,
        union.cell,
        union.weight,
        change,
        theirs,
        cell_region,
        regions,
        np.full(items, -1, np.int32),
        np.empty(max(room, 1), COUNT),
    )
    return _summed(events, np.argsort(events["key"], kind="stable"))


@njit(cache=True)
def _events(  # type: ignore[no-untyped-def]
    starts, items, moments, customer, cell, weight, change, theirs, cell_region, regions, place_of, out
):
    """A row for each pair of each changed order, and for what it does to the customers of upper levels."""
    cells = len(cell_region)
    filled = 0
    alive = np.zeros(len(theirs), np.bool_)
    widest = 1
    for order in theirs:
        widest = max(widest, starts[order + 1] - starts[order])
    near = np.zeros((widest, widest), np.int8)
    shared = np.empty(widest, np.int32)
    begin = 0
    while begin < len(theirs):
        who = customer[theirs[begin]]
        end = begin + 1
        while who >= 0 and end < len(theirs) and customer[theirs[end]] == who:
            end += 1
        for index in range(begin, end):
            alive[index] = change[theirs[index]] <= 0
        # One order after the other leaves, then one after the other enters: what is left tells who is still there.
        for sign in (-1, 1):
            for index in range(begin, end):
                order = theirs[index]
                if change[order] != sign:
                    continue
                alive[index] = False
                first, size = starts[order], starts[order + 1] - starts[order]
                near[:size, :size] = 0
                for line in range(size):
                    place_of[items[first + line]] = line
                here = cell[order]
                for other_index in range(begin, end):
                    if not alive[other_index]:
                        continue
                    other = theirs[other_index]
                    both = 0
                    for line in range(starts[other], starts[other + 1]):
                        if place_of[items[line]] >= 0:
                            shared[both] = place_of[items[line]]
                            both += 1
                    if both < 2:
                        continue
                    nearness = ANYWHERE
                    if cell[other] == here:
                        nearness = SAME_CELL
                    elif cell_region[cell[other]] == cell_region[here]:
                        nearness = SAME_REGION
                    for one in range(both):
                        for two in range(one + 1, both):
                            if near[shared[one], shared[two]] < nearness:
                                near[shared[one], shared[two]] = nearness
                for line in range(size):
                    place_of[items[first + line]] = -1
                region = cells + cell_region[here]
                for one in range(size):
                    for two in range(one + 1, size):
                        in_cell = sign if near[one, two] < SAME_CELL else 0
                        in_region = sign if near[one, two] < SAME_REGION else 0
                        in_all = sign if near[one, two] < ANYWHERE else 0
                        if filled + 3 > len(out):
                            out = grown(out, 2 * (filled + 3))
                        row = out[filled]
                        row.key = _key(here, items[first + one], items[first + two])
                        row.orders, row.customers, row.decayed = sign, in_cell, sign * weight[order]
                        row.before, row.after = 0, 0
                        if len(moments):
                            row.before = sign if moments[first + one] < moments[first + two] else 0
                            row.after = sign if moments[first + one] > moments[first + two] else 0
                        filled += 1
                        if in_region != in_cell:
                            filled = _correct(
                                out, filled, _key(region, items[first + one], items[first + two]), in_region - in_cell
                            )
                        if in_all != in_cell:
                            everything = cells + regions
                            filled = _correct(
                                out, filled, _key(everything, items[first + one], items[first + two]), in_all - in_cell
                            )
                alive[index] = sign > 0
        begin = end
    return out[:filled]


@njit(cache=True)
def _key(level, low, high):  # type: ignore[no-untyped-def]
    return (np.uint64(level) << np.uint64(2 * ITEM_BITS)) | (np.uint64(low) << np.uint64(ITEM_BITS)) | np.uint64(high)


@njit(cache=True)
def _correct(out, filled, key, customers):  # type: ignore[no-untyped-def]
    row = out[filled]
    row.key, row.customers = key, customers
    row.orders, row.decayed, row.before, row.after = 0, 0, 0, 0
    return filled + 1


@njit(cache=True)
def _summed(events, by_key):  # type: ignore[no-untyped-def]
    """Rows of one key as one; those that come to nothing are left out."""
    out = np.empty(len(events), events.dtype)
    filled, index = 0, 0
    while index < len(by_key):
        total = out[filled]
        _copy(total, events[by_key[index]])
        index += 1
        while index < len(by_key) and events[by_key[index]].key == total.key:
            _add(total, events[by_key[index]])
            index += 1
        filled += _counts(total)
    return out[:filled].copy()


@njit(cache=True)
def _merged(one, other):  # type: ignore[no-untyped-def]
    """The sum of two runs."""
    out = np.empty(len(one) + len(other), one.dtype)
    filled, left, right = 0, 0, 0
    while left < len(one) or right < len(other):
        total = out[filled]
        if right == len(other) or (left < len(one) and one[left].key <= other[right].key):
            _copy(total, one[left])
            left += 1
            if right < len(other) and other[right].key == total.key:
                _add(total, other[right])
                right += 1
        else:
            _copy(total, other[right])
            right += 1
        filled += _counts(total)
    return out[:filled]


@njit(cache=True)
def _copy(to, row):  # type: ignore[no-untyped-def]
    to.key, to.decayed, to.orders = row.key, row.decayed, row.orders
    to.customers, to.before, to.after = row.customers, row.before, row.after


@njit(cache=True)
def _add(to, row):  # type: ignore[no-untyped-def]
    to.decayed += row.decayed
    to.orders += row.orders
    to.customers += row.customers
    to.before += row.before
    to.after += row.after


@njit(cache=True)
def _counts(row):  # type: ignore[no-untyped-def]
    """1 where anything is left to count, else 0."""
    return 1 if row.orders != 0 or row.customers != 0 or row.decayed != 0 or row.before != 0 or row.after != 0 else 0
