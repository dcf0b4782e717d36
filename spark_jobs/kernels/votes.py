"""Companions for products that no orders speak for: what the most alike products are bought with, and what is popular.

A product's voters are those most alike by content (`kernels.content`), most often of its own category. Each says with
what share of its orders it is bought together with j, shrunk to j's share of all orders; votes weigh by likeness:
share(j) = Σ_v w_v · (c_vj + m · p_j) / (n_v + m) / Σ_v w_v. Neighbourhood voting with shrinkage as in Bell & Koren,
Scalable Collaborative Filtering with Jointly Derived Neighborhood Interpolation Weights, ICDM 2007.

No order of the product itself has a say: a product in two orders would give away what two customers had in their
baskets. A companion is answered only where at least k distinct customers bought it with the voters.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from spark_jobs.kernels.cells import Cell, Ints
from spark_jobs.kernels.content import Floats
from spark_jobs.kernels.threads import in_parts

CATEGORY, CONTENT, POPULAR = 3, 4, 5
"""Levels of evidence, after segment, region and global (0 to 2)."""
SHRINKAGE = 100.0
"""m: orders that a companion's popularity is worth."""
VOTERS = 10
MIN_ORDERS = 5
"""Orders of a voter."""
NEAR_ENOUGH = 0.3
"""Share of the likeness of the most alike product that a voter has at least."""
SPARE = 8
"""Companions answered beyond those wanted, for regions that do not sell all of them."""


class Votes(NamedTuple):
    """Shapes (anchors, top), best first; companion -1 where there is no more."""

    companion: Ints
    share: NDArray[np.float64]
    """Share of the anchor's orders that are thought to hold the companion."""
    customers: Ints
    """Distinct customers who bought the companion with a voter."""


def voters(anchors: Ints, near: Ints, likeness: Floats, category: Ints) -> tuple[Ints, Ints]:
    """Who votes for each of `anchors`, shape (anchors, VOTERS), -1 none, and the level of its answers.

    Of those near it (shape (anchors, any), -1 none) those of its own finest category, if there are any: CATEGORY; else
    those near enough: CONTENT.
    """
    own = category[anchors][:, None]
    same = (near >= 0) & (own >= 0) & (category[near] == own)
    close = (likeness > 0) & (likeness >= NEAR_ENOUGH * likeness.max(axis=1, initial=0, keepdims=True))
    alike = same.any(1)
    chosen = np.where(np.where(alike[:, None], same, close & (near >= 0)), near, -1)[:, :VOTERS]
    return chosen.astype(np.int32), np.where(alike, CATEGORY, CONTENT).astype(np.int32)


def votes(
    cell: Cell,
    anchors: Ints,
    voters: Ints,
    likeness: Floats,
    *,
    usable: NDArray[np.bool_],
    category: Ints,
    min_customers: int,
    min_lift: float,
    top: int,
    shrinkage: float = SHRINKAGE,
) -> Votes:
    """The `top` companions of each of `anchors`, by what its voters are bought with; none of them is a companion.

    `voters`: shape (anchors, any), -1 none; `likeness`: as many columns or more.
    Companions are usable, of another category (or of none), and at least `min_lift` times what chance gives.
    """
    popularity = cell.item_counts / max(cell.orders, 1)
    orders = (cell.order_starts, cell.order_items, cell.order_customer, cell.item_starts, cell.item_orders)
    terms = (usable, category, popularity, min_customers, min_lift, top, shrinkage)
    return Votes(*in_parts(anchors, lambda part: _votes(*orders, anchors[part], voters[part], likeness[part], *terms)))


@njit(cache=True, nogil=True)
def _votes(  # type: ignore[no-untyped-def]
    order_starts,
    order_items,
    order_customer,
    item_starts,
    item_orders,
    anchors,
    voters,
    likeness,
    usable,
    category,
    popularity,
    min_customers,
    min_lift,
    top,
    shrinkage,
):
    items = len(item_starts) - 1
    companion = np.full((len(anchors), top), -1, np.int32)
    share, customers = np.zeros((len(anchors), top)), np.zeros((len(anchors), top), np.int32)
    sums, buyers = np.zeros(items), np.zeros(items, np.int32)
    last, met = np.full(items, -1, np.int32), np.empty(items, np.int32)
    barred = np.full(items, -1, np.int64)
    for place in range(len(anchors)):
        anchor = anchors[place]
        barred[anchor] = place
        weight, rest, held = 0.0, 0.0, 0
        for spot in range(voters.shape[1]):
            voter = voters[place, spot]
            if voter < 0:
                continue
            barred[voter] = place
            orders = item_starts[voter + 1] - item_starts[voter]
            held += orders
            weight += likeness[place, spot]
            rest += likeness[place, spot] * shrinkage / (orders + shrinkage)
        if held == 0 or weight <= 0:
            continue
        where, weights = np.empty(held, np.int64), np.empty(held)
        filled = 0
        for spot in range(voters.shape[1]):
            voter = voters[place, spot]
            if voter < 0:
                continue
            first, end = item_starts[voter], item_starts[voter + 1]
            each = likeness[place, spot] / (end - first + shrinkage) / weight
            for posting in range(first, end):
                where[filled], weights[filled] = item_orders[posting], each
                filled += 1
        ranked = np.argsort(where, kind="mergesort")
        touched = 0
        for step in ranked:
            order = where[step]
            customer = order_customer[order]
            for line in range(order_starts[order], order_starts[order + 1]):
                item = order_items[line]
                if sums[item] == 0.0:
                    met[touched] = item
                    touched += 1
                sums[item] += weights[step]
                if last[item] != customer:
                    last[item] = customer
                    buyers[item] += 1
        for index in range(touched):
            item = met[index]
            value = sums[item] + rest / weight * popularity[item]
            fine = usable[item] and barred[item] != place and buyers[item] >= min_customers
            fine = fine and (category[item] < 0 or category[item] != category[anchor])
            if fine and value >= min_lift * popularity[item]:
                _place(companion[place], share[place], customers[place], item, value, buyers[item])
            sums[item], buyers[item], last[item] = 0.0, 0, -1
    return companion, share, customers


@njit(cache=True)
def _place(companions, shares, customers, item, value, buyers):  # type: ignore[no-untyped-def]
    """Put `item` in its place by value, then by number; drop the last."""
    at = len(companions)
    while at > 0 and (
        companions[at - 1] < 0 or shares[at - 1] < value or (shares[at - 1] == value and companions[at - 1] > item)
    ):
        at -= 1
    for place in range(len(companions) - 1, at, -1):
        companions[place], shares[place] = companions[place - 1], shares[place - 1]
        customers[place] = customers[place - 1]
    if at < len(companions):
        companions[at], shares[at], customers[at] = item, value, buyers


def popular(
    anchors: Ints, counts: Ints, customers: Ints, orders: int, *, category: Ints, min_customers: int, top: int
) -> Votes:
    """For each of `anchors` the `top` most bought products of another category, of `min_customers` customers each.

    `counts` and `customers`, shape (items): orders and distinct customers of each product that may be answered.
    """
    best = np.flatnonzero((customers >= min_customers) & (counts > 0))
    best = best[np.lexsort((best, -counts[best]))]
    companion = np.full((len(anchors), top), -1, np.int32)
    filled = np.zeros(len(anchors), np.int64)
    for item in best:
        takes = (filled < top) & (anchors != item) & ((category[item] < 0) | (category[anchors] != category[item]))
        companion[takes, filled[takes]] = item
        filled[takes] += 1
        if (filled == top).all():
            break
    told = np.maximum(companion, 0)
    return Votes(companion, counts[told] / max(orders, 1), customers[told].astype(np.int32))


def buyers(cell: Cell) -> Ints:
    """Shape (items): distinct customers of each item."""
    owner = cell.order_customer[cell.item_orders]
    new = np.diff(owner, prepend=-1) != 0
    new[cell.item_starts[:-1][np.diff(cell.item_starts) > 0]] = True
    item = np.repeat(np.arange(len(cell.item_starts) - 1), np.diff(cell.item_starts))
    return np.bincount(item[new], minlength=len(cell.item_starts) - 1).astype(np.int32)
