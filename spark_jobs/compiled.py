"""Every kernel that a nightly build calls, called once on a toy shop: Numba's cache holds it before a job needs it."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from spark_jobs import cold, substitutes
from spark_jobs.embeddings import FACTORS
from spark_jobs.kernels import (
    baselines,
    cells,
    cover,
    discounts,
    history,
    judged,
    lines,
    nearest,
    pairs,
    placebo,
    poisson,
    protocol,
    sets,
    shelf,
)
from tandem.rules import Rules

SKUS = ("a", "b", "c")
DAYS = 12
"""Enough that products are known to the protocol of evaluation."""


def compile_all() -> None:
    """Call them all. Raises nothing that a kernel of a real shop would not."""
    orders = _counting()
    _rankings(orders)
    _needs(orders)
    _prices()


def _counting() -> pa.Table:
    """From lines to pairs and sets; gives the orders."""
    at = [lines.DAY * day + place for day in range(DAYS) for place in range(len(SKUS))]
    bought = pa.table(
        {
            "order_id": [f"{day}" for day in range(DAYS) for _ in SKUS],
            "ordered_at": pa.array(at, pa.timestamp("us", "UTC")),
            "sku": list(SKUS) * DAYS,
            "customer_id": ["someone"] * len(SKUS) * DAYS,
        }
    )
    part = lines.packed(bought, "here", {}, "everyone")
    lines.joined([part, part], decay=lines.Decay(1, 0, DAYS), max_basket=9, max_item_orders=99)
    orders = lines.orders([part], 9)
    cell = cells.cell(orders["customer"], orders["skus"])
    pairs.best_companions(cell, min_customers=1, top=1, damping=0.0)
    sets.frequent_sets(cell, min_orders=1, min_customers=1)
    sets.count_sets(cell, np.array([[0, 1]], np.int32))
    one = np.array([1], np.int32)
    cover.choose(one, np.ones(1), np.array([0, 1], np.int64), one, np.zeros(2, np.int32), per_anchor=1)
    return orders


def _rankings(orders: pa.Table) -> None:
    named = pa.table(dict.fromkeys(("sku", "category", "brand"), SKUS) | {"price": [1.0, 2.0, 3.0]})
    held = history.history(orders, named.append_column("worth", named["price"]))
    asked = {"damping": 0.2, "tail_weight": 0.3, "frontier": (), "rank": True, "more": baselines.BASELINES}
    list(judged.judged("*", held, DAYS - 1, None, **asked))
    early = held.orders.day < DAYS - 1
    blends = np.ones((1, 1, 1))
    labels = np.zeros((1, 1), np.int32)
    placebo.asked(held.orders.where(early), held.orders.where(~early), labels, 300.0 * blends, 0.5 * blends)


def _needs(orders: pa.Table) -> None:
    """Substitutes, neighbours, and answers for products that nobody bought."""
    text = dict.fromkeys(("sku", "title", "brand", "category"), SKUS)
    held = shelf.shelf(orders, pa.table(text | {"price": [1.0, 2.0, 3.0]}))
    factors = np.ones((len(SKUS), FACTORS), np.float32)
    list(nearest.nearest(factors, held.category, alike=1, others=1))
    substitutes.found(held, factors, 1)
    anchors = np.arange(len(SKUS), dtype=np.int32)
    cold.everything(held, cold.read(held, anchors), anchors, 1, Rules())


def _prices() -> None:
    number = np.arange(protocol.MIN_ORDERS, dtype=np.int64)
    poisson.fit(number * 0, number, np.ones(len(number)), np.ones((len(number), 2)))
    money, share = np.full((1, 2), 100, np.int64), np.ones((1, 2))
    offered = discounts.Sets(money, money // 2, share, -share, share, np.ones(1), np.ones(1), share)
    for strategy in (discounts.best, discounts.fixed):
        discounts.outcome(offered, strategy(offered, discounts.Terms()), discounts.Terms())
    discounts.within_budget(np.ones(1), np.ones(1), 1.0)
