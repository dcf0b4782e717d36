"""What stands in for what: pairs of one need, how often customers changed from one to the other, and took both at once.

A customer's orders are walked in the order of time. From A to B it is a *swap* where an order holds B and not A, and
the customer's last order that held either held A and not B. *expected* is what orders together there would be if each
customer's own purchases of A and B had fallen on that customer's orders by chance, larger orders holding more:
Σ over customers of n_A · n_B · Σ s² / (Σ s)², s the sizes of the customer's orders. Taste and how often somebody shops
therefore cancel: below it the two shun one basket (as Manchanda, Ansari & Gupta, The "Shopping Basket", Marketing
Science 18, 1999, tell substitutes from complements), above it they seek it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from spark_jobs.kernels.cells import Cell, Ints

Numbers = NDArray[np.float64]
POPULAR = 60
"""Candidates of a need: its most bought products."""
PRIOR_SWAPS = 5.0
"""Swaps that category, popularity and likeness are worth together."""
ALIKE = 0.3
"""Cosine of content from which two products of different or unknown categories may serve one need."""
SEEN, SHUN = 10.0, 0.1
"""Where nothing is known of two products but orders: orders together expected, at least, and the share of them seen."""


class History(NamedTuple):
    """Of each pair (A, B), one entry."""

    swaps: Ints
    customers: Ints
    """Distinct customers who swapped."""
    together: Ints
    """Orders that hold both."""
    expected: Numbers


class Substitutes(NamedTuple):
    """One entry per product and substitute, best first within a product, products ascending."""

    item: Ints
    substitute: Ints
    similarity: Numbers
    swaps: Ints
    customers: Ints
    together: Ints
    expected: Numbers
    score: Numbers
    """Share of A's replacements that B is thought to be."""
    rank: Ints


def history(cell: Cell, known: int, left: Ints, right: Ints) -> History:
    """The history of the pairs (left[p], right[p]) in a cell whose orders stand in the order of time per customer.

    Customers from number `known` on are orders without a customer: nobody swaps there, and what is expected together
    is taken over all of them as if they were one.
    """
    owner = np.minimum(cell.order_customer, known)
    sizes = np.diff(cell.order_starts).astype(np.float64)
    total = np.bincount(owner, sizes, minlength=known + 1)
    squares = np.bincount(owner, sizes**2, minlength=known + 1)
    chance = np.divide(squares, total**2, out=np.zeros(known + 1), where=total > 0)
    return History(*_history(cell.item_starts, cell.item_orders, owner, known, chance, left, right))


@njit(cache=True)
def _history(item_starts, item_orders, owner, known, chance, left, right):  # type: ignore[no-untyped-def]
    pairs = len(left)
    swaps, customers, together = np.zeros(pairs, np.int32), np.zeros(pairs, np.int32), np.zeros(pairs, np.int32)
    expected = np.zeros(pairs, np.float64)
    for pair in range(pairs):
        at, end = item_starts[left[pair]], item_starts[left[pair] + 1]
        other, stop = item_starts[right[pair]], item_starts[right[pair] + 1]
        customer, mine, theirs, last, swapped = -1, 0, 0, 0, False
        while at < end or other < stop:
            first = item_orders[at] if at < end else np.int32(2**31 - 1)
            second = item_orders[other] if other < stop else np.int32(2**31 - 1)
            order = min(first, second)
            held = (1 if first == order else 0) + (2 if second == order else 0)
            if owner[order] != customer:
                if mine and theirs:
                    expected[pair] += mine * theirs * chance[customer]
                customer, mine, theirs, last, swapped = owner[order], 0, 0, 0, False
            if held == 2 and last == 1 and customer < known:
                swaps[pair] += 1
                if not swapped:
                    customers[pair] += 1
                    swapped = True
            last = held
            if held & 1:
                mine += 1
                at += 1
            if held & 2:
                theirs += 1
                other += 1
            if held == 3:
                together[pair] += 1
        if mine and theirs:
            expected[pair] += mine * theirs * chance[customer]
    return swaps, customers, together, expected


def candidates(orders: Ints, category: Ints, usable: NDArray[np.bool_], near: Ints) -> tuple[Ints, Ints]:
    """Pairs worth looking at, of usable products: with the most bought of the same category, and with those near.

    `category`: number of the finest category, -1 unknown; `near`: shape (items, any), -1 none: the most alike by what
    is written and by who buys. Pairs ascend and stand once.
    """
    items = len(orders)
    bought = np.flatnonzero(usable & (orders > 0) & (category >= 0))
    ordered = bought[np.lexsort((bought, -orders[bought], category[bought]))]
    popular = ordered[_places(category[ordered]) < POPULAR]
    return _pairs(items, usable, category, popular, near)


def _pairs(items: int, usable: NDArray[np.bool_], category: Ints, popular: Ints, near: Ints) -> tuple[Ints, Ints]:
    """Each usable item with the popular ones of its category and with those near it."""
    shelves = category[popular]
    begin, end = np.searchsorted(shelves, category, "left"), np.searchsorted(shelves, category, "right")
    width = np.where(usable, end - begin, 0)
    left = np.repeat(np.arange(items), width)
    inside = np.arange(len(left)) - np.repeat(np.cumsum(width) - width, width)
    right = popular[np.repeat(begin, width) + inside]
    alike, column = np.nonzero((near >= 0) & usable[:, None])
    key = np.unique(np.concatenate([left * items + right, alike * items + near[alike, column]]))
    first, second = key // items, key % items
    keep = (first != second) & usable[second]
    return first[keep].astype(np.int32), second[keep].astype(np.int32)


def _places(groups: Ints) -> Ints:
    """0, 1, 2 … within each run of the same group."""
    firsts = np.flatnonzero(np.diff(groups, prepend=groups[:1] - 1)) if len(groups) else np.zeros(0, np.int64)
    lengths = np.diff(np.append(firsts, len(groups)))
    return (np.arange(len(groups)) - np.repeat(firsts, lengths)).astype(np.int32)


def chosen(
    left: Ints,
    right: Ints,
    found: History,
    similarity: Numbers,
    buyers: Numbers,
    *,
    orders: Ints,
    category: Ints,
    min_customers: int,
    top: int,
) -> Substitutes:
    """The `top` best substitutes of each product: score = need · (swaps + m · prior) / (all swaps + m), m PRIOR_SWAPS.

    Swaps of fewer than `min_customers` customers say nothing (they would tell of persons). The prior of B is its share
    of the orders of A's candidates, weighted by likeness. Need is 1 in one category, the square of likeness (from
    ALIKE on) where categories differ or are unknown; where nothing at all is known it is how much the two shun one
    basket, if that is beyond chance (SEEN, SHUN).
    """
    items = len(orders)
    same = (category[left] == category[right]) & (category[left] >= 0)
    need = np.where(same, 1.0, np.where(similarity >= ALIKE, similarity**2, 0.0))
    unknown = (category[left] < 0) & (category[right] < 0) & (need == 0)
    shun = unknown & (found.expected >= SEEN) & (found.together <= SHUN * found.expected)
    shun &= found.customers >= min_customers
    need = np.where(shun, 1 - found.together / np.maximum(found.expected, SEEN), need)
    swaps = np.where(found.customers >= min_customers, found.swaps, 0)
    weight = need * orders[right] * np.maximum(similarity, 0.1) * np.maximum(buyers, 0.05)
    prior = weight / np.maximum(np.bincount(left, weight, minlength=items), 1e-12)[left]
    every = np.bincount(left, swaps * (need > 0), minlength=items)
    score = need * (swaps + PRIOR_SWAPS * prior) / (every[left] + PRIOR_SWAPS)
    keep = np.flatnonzero(score > 0)
    order = keep[np.lexsort((right[keep], -score[keep], left[keep]))]
    place = _places(left[order])
    order, place = order[place < top], place[place < top]
    return Substitutes(
        left[order],
        right[order],
        similarity[order],
        swaps[order].astype(np.int32),
        found.customers[order],
        found.together[order],
        found.expected[order],
        score[order],
        place + np.int32(1),
    )
