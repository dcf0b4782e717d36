"""Sets that are bought together, by Spark MLlib's FP-growth and by Tandem's miner: the same rows, the same support."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import combinations
from typing import Any

import numpy as np
import pyarrow as pa

from spark_jobs.kernels import cells, sets

Found = dict[tuple[str, ...], int]
"""Each set's products, sorted, to the orders that hold it."""
SCHEMA = "skus array<string>, orders long"


def fp_growth(orders: Any, min_orders: int, largest: int) -> Any:
    """A DataFrame of all frequent sets of 2 to `largest` products (Li et al., RecSys 2008; Han et al., SIGMOD 2000).

    `orders` is a DataFrame with `skus`.
    """
    from pyspark.ml.fpm import FPGrowth
    from pyspark.sql import functions as F

    count = orders.count()
    # Half an order less: a share times a count may round the wrong way.
    model = FPGrowth(itemsCol="skus", minSupport=(min_orders - 0.5) / count, minConfidence=1.0).fit(orders)
    size = F.size("items")
    kept = model.freqItemsets.where((size >= 2) & (size <= largest))
    return kept.select(F.array_sort("items").alias("skus"), F.col("freq").alias("orders"))


def tandem(orders: Any, min_orders: int, largest: int, category: Mapping[str, str] | None = None) -> Any:
    """The same by `kernels.sets`; with `category`, only sets of which no two products share one."""

    def mine(rows: pa.Table) -> pa.Table:
        return mined(rows, min_orders, largest, category)

    return orders.select("skus").groupBy().applyInArrow(mine, SCHEMA)


def mined(rows: pa.Table, min_orders: int, largest: int, category: Mapping[str, str] | None = None) -> pa.Table:
    """Frequent sets of `rows` (a column `skus`), every order a customer of its own."""
    cell = cells.cell(pa.nulls(len(rows), pa.string()), rows["skus"])
    names = cell.skus.to_pylist()
    number = np.arange(len(names)) if category is None else _numbers([category[name] for name in names])

    def may_meet(first: cells.Ints, second: cells.Ints, *_: cells.Ints) -> np.ndarray:
        return number[first] != number[second]

    found = sets.frequent_sets(
        cell, min_orders=min_orders, min_customers=min_orders, max_components=largest, admitted=may_meet
    )
    ends = np.concatenate(([0], np.cumsum((found.items >= 0).sum(1)))).astype(np.int32)
    skus = pa.ListArray.from_arrays(pa.array(ends), cell.skus.take(pa.array(found.items[found.items >= 0])))
    return pa.table({"skus": skus, "orders": pa.array(found.orders.astype(np.int64))})


def _numbers(values: list[str]) -> np.ndarray:
    return np.unique(np.array(values), return_inverse=True)[1]


def collected(frame: Any) -> Found:
    """All sets of `frame`; each is there once."""
    rows = frame.collect()
    found = {tuple(row.skus): int(row.orders) for row in rows}
    assert len(found) == len(rows), "a set was given twice"
    return found


def allowed(found: Found, category: Mapping[str, str]) -> Found:
    """Those of which no two products share a category."""
    return {skus: orders for skus, orders in found.items() if len({category[sku] for sku in skus}) == len(skus)}


def differences(theirs: Found, mine: Found) -> list[tuple[str, ...]]:
    """Sets that only one has, or that they count differently."""
    return sorted(key for key in theirs.keys() | mine.keys() if theirs.get(key) != mine.get(key))


def baskets(count: int, items: int, seed: int = 7) -> list[list[str]]:
    """Orders with `items // 10` recipes in them: sets of 3 to 5 products often bought together, among noise."""
    chance = np.random.default_rng(seed)
    popularity = 1 / (np.arange(items) + 30)
    bounds = np.cumsum(popularity / popularity.sum())
    recipes = [chance.choice(items, chance.integers(3, 6), replace=False) for _ in range(max(items // 10, 1))]
    orders = []
    for size in np.clip(chance.lognormal(1.8, 0.7, count).astype(int), 1, 60):
        held = set(np.minimum(np.searchsorted(bounds, chance.random(size)), items - 1).tolist())
        if chance.random() < 0.5:
            recipe = recipes[int(len(recipes) * chance.random() ** 2)]
            held |= {int(item) for item in recipe if chance.random() < 0.8}
        orders.append([f"{item:05}" for item in sorted(held)])
    return orders


def categories(orders: Iterable[Iterable[str]], count: int) -> dict[str, str]:
    """A category for each product, so that some recipes have two products of one."""
    return {sku: f"category {int(sku) % count}" for order in orders for sku in order}


def counted(orders: Iterable[Iterable[str]], min_orders: int, largest: int) -> Found:
    """Frequent sets by counting every subset of every order: slow, plain, and right."""
    found: Found = {}
    for order in orders:
        for size in range(2, largest + 1):
            for skus in combinations(sorted(order), size):
                found[skus] = found.get(skus, 0) + 1
    return {skus: held for skus, held in found.items() if held >= min_orders}
