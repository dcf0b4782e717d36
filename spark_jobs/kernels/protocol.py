"""How a ranking is judged: learn on the first days, ask about the rest, in numbers with intervals.

Protocol. The days are split in time: what is learned comes from the first 80 % of the days that have orders, questions
from the rest. A product is known if it was in at least 10 learned orders. A query is an anchor in a later order of 2 to
100 known products; relevant are that order's other known products. Splitting by time keeps the future out of what is
learned (Meng et al., RecSys 2020, "Exploring data splitting strategies"); all products are ranked, none sampled
(Krichene & Rendle, KDD 2020, "On sampled metrics"). Queries of one customer are not independent of each other, so
intervals come from a bootstrap that draws customers (Efron & Tibshirani 1993; Field & Welsh, JRSS B 69, 2007).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from spark_jobs.kernels.cells import Ints, Offsets

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

LEARNED_SHARE = 0.8
MIN_ORDERS = 10
SMALLEST, LARGEST = 2, 100
FIRST, NDCG_FIRST = 5, 10
POPULAR = 100
"""A hit is in the tail if it is not among so many most popular products."""
RESAMPLES = 400
SEED = 11


class Estimate(NamedTuple):
    """A mean over queries with its 95 % interval."""

    value: float
    low: float
    high: float
    queries: int


class Measure(NamedTuple):
    """A row of the `evaluations` table; metric is `measure/subject`, a point of a curve ends in `@x`."""

    region: str
    segment: str
    metric: str
    value: float
    low: float
    high: float
    queries: int


MEASURED = "region string, segment string, metric string, value double, low double, high double, queries long"
"""The columns of Measure, for Spark."""


@dataclass(frozen=True)
class Orders:
    """Orders as arrays: products by number, each once in an order and ascending; orders in any order."""

    starts: Offsets
    """Shape (orders + 1): where each order's products begin in `items`."""
    items: Ints
    customer: Ints
    """Shape (orders): number of the customer; an order without one has a number of its own."""
    day: Ints
    """Shape (orders): day of the order, counted from any day."""
    products: int
    """How many products there are; `items` are below it."""

    @property
    def count(self) -> int:
        return len(self.customer)

    @property
    def sizes(self) -> Offsets:
        return np.diff(self.starts)

    @property
    def item_counts(self) -> Ints:
        """Shape (products): orders that hold each product."""
        return np.bincount(self.items, minlength=self.products).astype(np.int32)

    def where(self, keep: Mask) -> Orders:
        """The orders at which `keep` (shape (orders)) is true."""
        sizes = self.sizes
        starts = np.concatenate(([0], np.cumsum(sizes[keep]))).astype(np.int64)
        items = self.items[np.repeat(keep, sizes)]
        return Orders(starts, items, self.customer[keep], self.day[keep], self.products)

    def holding(self, number: Ints, products: int) -> Orders:
        """The same orders with products renumbered: `number` (shape (products)) is the new one, below 0: left out."""
        new = number[self.items]
        kept = new >= 0
        order = np.repeat(np.arange(self.count), self.sizes)[kept]
        items = new[kept].astype(np.int32)
        by_order = np.lexsort((items, order))
        starts = np.concatenate(([0], np.cumsum(np.bincount(order, minlength=self.count)))).astype(np.int64)
        return Orders(starts, items[by_order], self.customer, self.day, products)


def orders_of(order: NDArray[np.int64], item: Ints, customer: Ints, day: Ints, products: int) -> Orders:
    """Orders from one entry per line, in any order; a product that an order holds twice counts once.

    `customer` and `day` are taken from an order's first line.
    """
    by_order = np.lexsort((item, order))
    order, item = order[by_order], item[by_order]
    new_order = np.diff(order, prepend=order[:1] - 1) != 0
    kept = new_order | (np.diff(item, prepend=-1) != 0)
    firsts = by_order[new_order]
    places = np.flatnonzero(new_order[kept])
    starts = np.append(places, int(kept.sum())).astype(np.int64)
    return Orders(
        starts, item[kept].astype(np.int32), customer[firsts].astype(np.int32), day[firsts].astype(np.int32), products
    )


def first_asked_day(days: Ints, share: float = LEARNED_SHARE) -> int:
    """The day that questions begin: the first after `share` of the different `days` of orders; 0 without any."""
    days = np.unique(days)
    return int(days[min(int(len(days) * share), len(days) - 1)]) if len(days) else 0


class Trial(NamedTuple):
    """What is learned from and what is asked, in the numbers of known products."""

    learned: Orders
    asked: Queries
    number: Ints
    """Shape (all products): the number among the known ones, -1 if unknown."""
    known: Ints
    """Shape (known products): the number among all."""


class Queries(NamedTuple):
    """Every known product of every later order, as an anchor. Arrays of shape (queries) but where said."""

    starts: Offsets
    """Shape (later orders + 1): a query is one place of `anchor`; those of one order stand together."""
    anchor: Ints
    customer: Ints
    tail: Mask
    """Shape (known products): not among the most popular."""


def trial(orders: Orders, *, share: float = LEARNED_SHARE, min_orders: int = MIN_ORDERS) -> Trial:
    """`orders` split in time; see the module."""
    cut = first_asked_day(orders.day, share)
    return trial_of(orders.where(orders.day < cut), orders.where(orders.day >= cut), min_orders=min_orders)


def trial_of(before: Orders, after: Orders, *, min_orders: int = MIN_ORDERS) -> Trial:
    """A trial from orders that are split already; both number the same products."""
    known = np.flatnonzero(before.item_counts >= min_orders).astype(np.int32)
    number = np.full(before.products, -1, np.int32)
    number[known] = np.arange(len(known), dtype=np.int32)
    learned = before.holding(number, len(known))
    return Trial(learned, queries(after.holding(number, len(known)), learned.item_counts), number, known)


def queries(after: Orders, popularity: Ints) -> Queries:
    """The queries of later orders in known products; `popularity` (shape (products)) is of what was learned."""
    asked = after.where((after.sizes >= SMALLEST) & (after.sizes <= LARGEST))
    tail = np.ones(len(popularity), bool)
    tail[popular(popularity, POPULAR)] = False
    return Queries(asked.starts, asked.items, np.repeat(asked.customer, asked.sizes), tail)


def popular(popularity: Ints, count: int) -> Ints:
    """The `count` most popular products, best first; ties go to the lower number."""
    return np.argsort(-popularity.astype(np.int64), kind="stable")[:count].astype(np.int32)


class Answers(NamedTuple):
    """What each query found, shape (queries) each: hits 0 or 1, NDCG 0 to 1, whether anything was listed."""

    hit: Floats
    tail: Floats
    ndcg: Floats
    answered: Floats


def ask(asked: Queries, lists: Ints) -> Answers:
    """Each query answered from `lists`, shape (known products, at least 10): best companions first, -1 for none.

    hit: one of the first five is in the order; tail: one that is not among the 100 most popular is; ndcg: gain 1 for
    each companion in the order among the first ten, discounted by log2(place + 1), over the best possible (Järvelin &
    Kekäläinen, TOIS 20(4), 2002). The anchor itself never counts.
    """
    return Answers(*_ask(asked.starts, asked.anchor, lists, asked.tail, FIRST, NDCG_FIRST))


@njit(cache=True)
def _ask(starts, anchor, lists, tail, first, ndcg_first):  # type: ignore[no-untyped-def]
    held = np.zeros(len(tail), np.bool_)
    hit, in_tail = np.zeros(len(anchor)), np.zeros(len(anchor))
    ndcg, answered = np.zeros(len(anchor)), np.zeros(len(anchor))
    gain = 1.0 / np.log2(np.arange(ndcg_first) + 2.0)
    best = np.concatenate((np.zeros(1), np.cumsum(gain)))
    for order in range(len(starts) - 1):
        begin, end = starts[order], starts[order + 1]
        held[anchor[begin:end]] = True
        ideal = best[min(end - begin - 1, ndcg_first)]
        for query in range(begin, end):
            found = 0.0
            for place in range(min(lists.shape[1], ndcg_first)):
                item = lists[anchor[query], place]
                if item < 0:
                    break
                if place < first:
                    answered[query] = 1.0
                if item == anchor[query] or not held[item]:
                    continue
                found += gain[place]
                if place < first:
                    hit[query] = 1.0
                    if tail[item]:
                        in_tail[query] = 1.0
            ndcg[query] = found / ideal
        held[anchor[begin:end]] = False
    return hit, in_tail, ndcg, answered


def coverage(asked: Queries, lists: Ints) -> float:
    """Share of the known products that at least one anchor that is asked for shows among its first five."""
    shown = np.unique(lists[np.unique(asked.anchor), :FIRST])
    return float((shown >= 0).sum() / max(len(asked.tail), 1))


def measured(asked: Queries, lists: Ints) -> dict[str, Estimate]:
    """hit@5, tail@5, ndcg@10, answered and coverage of `lists` (see `ask`); coverage has no interval."""
    answers = ask(asked, lists)
    names = (f"hit@{FIRST}", f"tail@{FIRST}", f"ndcg@{NDCG_FIRST}", "answered")
    found = estimates(dict(zip(names, answers, strict=True)), asked.customer)
    share = coverage(asked, lists)
    return found | {"coverage": Estimate(share, share, share, len(asked.anchor))}


def estimate(values: Floats, customer: Ints) -> Estimate:
    """The mean of `values` (one a query) with its 95 % interval, customers drawn with replacement.

    For the gain of one ranking over another, give the differences of their answers to the same queries.
    """
    return estimates({"": values}, customer)[""]


def estimates(values: Mapping[str, Floats], customer: Ints) -> dict[str, Estimate]:
    """`estimate` of several measures of the same queries, on the same draws."""
    if not len(customer):
        return dict.fromkeys(values, Estimate(0.0, 0.0, 0.0, 0))
    _, owner = np.unique(customer, return_inverse=True)
    asked = np.bincount(owner).astype(np.float64)
    sums = np.stack([np.bincount(owner, each) for each in values.values()])
    draws = np.random.default_rng(SEED)
    means = np.empty((RESAMPLES, len(sums)))
    for resample in range(RESAMPLES):
        drawn = np.bincount(draws.integers(0, len(asked), len(asked)), minlength=len(asked))
        means[resample] = sums @ drawn / (asked @ drawn)
    low, high = np.quantile(means, (0.025, 0.975), axis=0)
    mean = sums.sum(1) / asked.sum()
    return {
        name: Estimate(float(mean[place]), float(low[place]), float(high[place]), len(customer))
        for place, name in enumerate(values)
    }


def rows(found: Mapping[str, Estimate], subject: str, region: str, segment: str) -> list[Measure]:
    """Rows of `evaluations` for the measures of one subject: `hit@5/confidence`."""
    return [Measure(region, segment, f"{name}/{subject}", *each) for name, each in found.items()]
