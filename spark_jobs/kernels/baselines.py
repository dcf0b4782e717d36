"""The textbook's rankings, exactly: what a ranking must beat. Each gives lists of the best companions of every anchor.

Ties go to the more popular companion, then to the lower number: with the few orders of most anchors there are many.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from spark_jobs.kernels.cells import Ints, Offsets
from spark_jobs.kernels.protocol import NDCG_FIRST, Orders, popular

Floats = NDArray[np.float64]
CONFIDENCE, DAMPED, LIFT, COSINE, NPMI, LLR = range(6)
LIFT_MIN_ORDERS = 10
"""Lift of fewer common orders is chance: the smallest counts would win every list."""
BM25_K1, BM25_B = 0.9, 0.4
CATEGORY_WEIGHT = 30.0


@dataclass(frozen=True)
class Postings:
    """Orders and, for each product, the orders that hold it."""

    orders: Orders
    item_starts: Offsets
    """Shape (products + 1): where each product's orders begin in `item_orders`."""
    item_orders: Ints


def postings(orders: Orders) -> Postings:
    order_of = np.repeat(np.arange(orders.count, dtype=np.int32), orders.sizes)
    starts = np.concatenate(([0], np.cumsum(orders.item_counts))).astype(np.int64)
    return Postings(orders, starts, order_of[np.argsort(orders.items, kind="stable")])


def popularity(held: Postings, top: int = NDCG_FIRST) -> Ints:
    """Shape (products, top): the most popular products, the anchor left out."""
    counts = held.orders.item_counts
    best = popular(counts, top + 1)
    lists = np.full((len(counts), top), -1, np.int32)
    lists[:, : len(best[:top])] = best[:top]
    for place, item in enumerate(best[:top]):
        others = np.delete(best, place)
        lists[item, : len(others)] = others
        lists[item, len(others) :] = -1
    return lists


def by_measure(held: Postings, measure: int, *, top: int = NDCG_FIRST, damping: float = 0.2, least: int = 1) -> Ints:
    """Shape (products, top): companions of at least `least` common orders by a measure, as `kernels.measures` has it.

    DAMPED is c / (n_i · n_j^damping). Sources: see `kernels.measures`; cosine: Sarwar et al., WWW 2001.
    """
    orders = held.orders
    unit = np.ones(orders.count)
    return _ranked(
        orders.starts,
        orders.items,
        held.item_starts,
        held.item_orders,
        orders.item_counts.astype(np.float64),
        unit,
        measure,
        damping,
        least,
        top,
    )


def bm25(held: Postings, top: int = NDCG_FIRST) -> Ints:
    """Products as documents whose words are orders, weighted by BM25 (Robertson & Zaragoza 2009), compared by product.

    A product in n orders weighs (k1 + 1) / (k1 (1 - b + b n / mean n) + 1) in each, an order of length l its inverse
    frequency ln(products) - ln(1 + l); a pair's score is the sum over common orders of the products of both. This is
    how item-to-item recommenders use it.
    """
    orders = held.orders
    length = orders.item_counts / max(orders.item_counts.mean(), 1e-9)
    weight = (BM25_K1 + 1) / (BM25_K1 * (1 - BM25_B + BM25_B * length) + 1)
    rarity = np.log(max(orders.products, 1)) - np.log1p(orders.sizes)
    return _weighted(
        orders.starts, orders.items, held.item_starts, held.item_orders, weight, rarity**2, orders.item_counts, top
    )


def smoothed(held: Postings, category: Ints, top: int = NDCG_FIRST) -> Ints:
    """Confidence drawn toward what goes with the anchor's category, and a little toward popularity.

    (c + 30 P(j | category of i) + P(j)) / (n_i + 31): additive smoothing as Jelinek & Mercer 1980 and MacKay & Peto
    1995 do it for words. `category` is a number per product; a product without one (-1) has none to lean on.
    """
    orders = held.orders
    counts = orders.item_counts.astype(np.float64)
    share = counts / max(orders.count, 1)
    size = int(category.max(initial=-1)) + 1
    by_category = [np.flatnonzero(category == each).astype(np.int32) for each in range(size)]
    members = np.concatenate([*by_category, np.empty(0, np.int32)]).astype(np.int32)
    starts = np.concatenate(([0], np.cumsum([len(each) for each in by_category]))).astype(np.int64)
    return _smoothed(
        orders.starts,
        orders.items,
        held.item_starts,
        held.item_orders,
        counts,
        share,
        members,
        starts,
        CATEGORY_WEIGHT,
        top,
    )


BASELINES: dict[str, Callable[[Postings], Ints]] = {
    "popularity": popularity,
    "confidence": lambda held: by_measure(held, CONFIDENCE),
    "damped": lambda held: by_measure(held, DAMPED),
    "lift": lambda held: by_measure(held, LIFT, least=LIFT_MIN_ORDERS),
    "cosine": lambda held: by_measure(held, COSINE),
    "npmi": lambda held: by_measure(held, NPMI),
    "llr": lambda held: by_measure(held, LLR),
    "bm25": bm25,
}
"""Name to ranking; `smoothed` needs categories besides."""


@njit(cache=True)
def count_anchor(anchor, starts, items, item_starts, item_orders, weight, total, touched):  # type: ignore[no-untyped-def]
    """Adds each order's weight to `total` of every product it holds with `anchor`; gives how many were touched."""
    met = 0
    for place in range(item_starts[anchor], item_starts[anchor + 1]):
        order = item_orders[place]
        for line in range(starts[order], starts[order + 1]):
            item = items[line]
            if total[item] == 0.0:
                touched[met] = item
                met += 1
            total[item] += weight[order]
    return met


@njit(cache=True)
def insert(best, score, popularity, item, items, scores, filled):  # type: ignore[no-untyped-def]
    """Puts `item` where it belongs among the at most `best` of `items`, best first; gives how many there are."""
    place = filled
    while place > 0:
        other = items[place - 1]
        if scores[place - 1] > score:
            break
        if scores[place - 1] == score and (
            popularity[other] > popularity[item] or (popularity[other] == popularity[item] and other < item)
        ):
            break
        place -= 1
    if place >= best:
        return filled
    last = min(filled, best - 1)
    for back in range(last, place, -1):
        items[back], scores[back] = items[back - 1], scores[back - 1]
    items[place], scores[place] = item, score
    return last + 1


@njit(cache=True)
def _measure(kind, c, a, b, n, damping):  # type: ignore[no-untyped-def]
    if kind == 0:
        return c / a
    if kind == 1:
        return c / (a * b**damping)
    if kind == 2:
        return c * n / (a * b)
    if kind == 3:
        return c / np.sqrt(a * b)
    if kind == 4:
        return np.log(c * n / (a * b)) / -np.log(c / n) if c < n else 0.0
    total = 0.0
    for observed, row, column in (
        (c, a, b),
        (a - c, a, n - b),
        (b - c, n - a, b),
        (n - a - b + c, n - a, n - b),
    ):
        if observed > 0:
            total += observed * np.log(observed * n / (row * column))
    return 2 * total


@njit(cache=True)
def _ranked(starts, items, item_starts, item_orders, counts, weight, kind, damping, least, top):  # type: ignore[no-untyped-def]
    products, orders = len(counts), len(starts) - 1
    lists, scores = np.full((products, top), -1, np.int32), np.zeros(top)
    total, touched = np.zeros(products), np.empty(products, np.int32)
    for anchor in range(products):
        met = count_anchor(anchor, starts, items, item_starts, item_orders, weight, total, touched)
        filled = 0
        for index in range(met):
            item = touched[index]
            if item != anchor and total[item] >= least:
                score = _measure(kind, total[item], counts[anchor], counts[item], orders, damping)
                filled = insert(top, score, counts, item, lists[anchor], scores, filled)
            total[item] = 0.0
    return lists


@njit(cache=True)
def _weighted(starts, items, item_starts, item_orders, own, weight, counts, top):  # type: ignore[no-untyped-def]
    products = len(counts)
    lists, scores = np.full((products, top), -1, np.int32), np.zeros(top)
    total, touched = np.zeros(products), np.empty(products, np.int32)
    for anchor in range(products):
        met = count_anchor(anchor, starts, items, item_starts, item_orders, weight, total, touched)
        filled = 0
        for index in range(met):
            item = touched[index]
            if item != anchor:
                filled = insert(top, total[item] * own[item], counts, item, lists[anchor], scores, filled)
            total[item] = 0.0
    return lists


@njit(cache=True)
def _smoothed(starts, items, item_starts, item_orders, counts, share, members, member_starts, strength, top):  # type: ignore[no-untyped-def]
    products = len(counts)
    lists, scores = np.full((products, top), -1, np.int32), np.zeros(top)
    total, touched = np.zeros(products), np.empty(products, np.int32)
    unit = np.ones(len(starts) - 1)
    for category in range(len(member_starts) - 1):
        of_category, given = np.zeros(products), 1e-12
        for place in range(member_starts[category], member_starts[category + 1]):
            anchor = members[place]
            met = count_anchor(anchor, starts, items, item_starts, item_orders, unit, total, touched)
            for index in range(met):
                item = touched[index]
                if item != anchor:
                    of_category[item] += total[item]
                total[item] = 0.0
            given += counts[anchor]
        for place in range(member_starts[category], member_starts[category + 1]):
            anchor = members[place]
            met = count_anchor(anchor, starts, items, item_starts, item_orders, unit, total, touched)
            filled = 0
            for item in range(products):
                if item != anchor:
                    expected = strength * of_category[item] / given + share[item]
                    score = (total[item] + expected) / (counts[anchor] + strength + 1.0)
                    if filled < top or score >= scores[top - 1]:
                        filled = insert(top, score, counts, item, lists[anchor], scores, filled)
            for index in range(met):
                total[touched[index]] = 0.0
    return lists
