"""The sets of one cell that may be offered: arrays and Arrow, no Spark."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from spark_jobs.kernels import sets
from spark_jobs.kernels.cells import Cell, Ints
from spark_jobs.kernels.lawful import complete, covers_all, may_meet, sane
from spark_jobs.kernels.sets import ABSENT, LARGEST, Sets
from spark_jobs.kernels.shop import Floats, Held, Mask, Shop, places
from tandem.bundle import bundle_id
from tandem.rules import Rules

FOUND = pa.schema(
    [
        ("bundle_id", pa.string()),
        ("skus", pa.list_(pa.string())),
        ("orders_each", pa.list_(pa.int64())),
        ("orders_together", pa.int64()),
        ("customers_together", pa.int64()),
        ("orders_total", pa.int64()),
        ("mined", pa.bool_()),
    ]
)
"""A set that a cell's orders hold: its products, sorted, and the orders that hold each, all, and any.
`mined`: it may be offered for what the orders say; else it is here because it is pinned."""
PAIRS_KEPT, SETS_KEPT = 24, 16
"""Pairs and larger sets that a cell keeps of each anchor: what lists are chosen from."""


def mined(cell: Cell, shop: Shop, rules: Rules, *, region: str, segment: str, k: int) -> pa.Table:
    """The sets of one cell that may be offered, the best of each anchor, and those that are pinned: rows of FOUND.

    Every pair inside a set is bought together more than chance has it, rests on enough orders (or on factors that
    agree), serves two needs (or is two varieties that shoppers take together), and is sane in price.
    """
    number = shop.numbers(cell.skus)
    held = [rule for rule in shop.held if covers_all(rule, region, segment)]
    usable = number >= 0
    for rule in held:
        if rule.excludes:
            usable &= ~rule.products[number]
    ways = _Ways(cell, shop, rules, held, number, shop.prices(region)[number])
    found = sets.frequent_sets(
        cell,
        min_orders=rules.learning.min_orders_together,
        min_customers=k,
        max_components=rules.bundling.max_components,
        usable=usable,
        admitted=ways.admitted,
        joined=ways.of_two_needs,
    )
    keep = complete(np.where(found.items >= 0, number[found.items], ABSENT), held)
    found = Sets(found.items[keep], found.orders[keep], found.customers[keep])
    best = _best(cell, found, _boosts(shop, number), rules.learning.popularity_damping)
    pins = _pinned(cell, shop)
    items = np.concatenate((found.items[best], pins))
    orders, customers = sets.count_sets(cell, pins)
    counted = Sets(
        items, np.concatenate((found.orders[best], orders)), np.concatenate((found.customers[best], customers))
    )
    return _table(cell, counted, np.arange(len(items)) < len(best))


@dataclass(frozen=True)
class _Ways:
    """What may stand together, by pairs of a cell's items."""

    cell: Cell
    shop: Shop
    rules: Rules
    held: list[Held]
    number: Ints
    price: Floats

    def admitted(self, first: Ints, second: Ints, orders: Ints, _: Ints) -> Mask:
        rules, counts = self.rules, self.cell.item_counts.astype(np.float64)
        left, right = self.number[first], self.number[second]
        lift = orders * float(self.cell.orders) / (counts[first] * counts[second])
        enough = orders >= rules.learning.min_orders_together
        key = self.shop.pair_key(left, right)
        agreed = np.isin(key, self.shop.agreed)
        varieties = enough & (lift >= rules.bundling.variety_lift) & bool(rules.bundling.variety_lift)
        good = (lift > rules.pricing.min_lift) & (enough | agreed) & ~np.isin(key, self.shop.apart)
        good &= self.of_two_needs(first, second, orders, orders) | varieties
        good &= sane(self.price[first], self.price[second], rules.bundling.max_price_ratio)
        return good & may_meet(left, right, self.held)

    def of_two_needs(self, first: Ints, second: Ints, _: Ints, __: Ints) -> Mask:
        category = self.shop.category
        return category[self.number[first]] != category[self.number[second]]


def _boosts(shop: Shop, number: Ints) -> Floats:
    """Shape (items,): the most that any list may boost bundles with the item, so that none is lost too early."""
    factor = np.ones(len(shop.skus) + 1)
    for rule in shop.held:
        if rule.rule.action == "boost":
            factor[:-1][rule.products] *= rule.rule.factor
    return factor[number]


def _best(cell: Cell, found: Sets, boost: Floats, damping: float) -> NDArray[np.int64]:
    """Places of the sets that are among the best of one of their members, pairs and larger sets apart."""
    size = (found.items >= 0).sum(1)
    row, spot = np.nonzero(found.items >= 0)
    counts = cell.item_counts.astype(np.float64)
    shares = np.where(found.items >= 0, (counts[found.items] / max(cell.orders, 1)) ** damping, 0.0)
    anchor = found.items[row, spot]
    others = size[row] - 1
    value = others**2 * found.orders[row] / counts[anchor] / (shares.sum(1)[row] - shares[row, spot])
    value *= np.where(found.items >= 0, boost[found.items], 1.0).max(1, initial=1.0)[row]
    order = np.lexsort((row, -value, size[row] > 2, anchor))
    group = anchor[order].astype(np.int64) * 2 + (size[row] > 2)[order]
    kept = places(group) < np.where(group % 2 == 0, PAIRS_KEPT, SETS_KEPT)
    return np.unique(row[order][kept])


def _pinned(cell: Cell, shop: Shop) -> Ints:
    """Shape (pins, 4): the pinned sets of which the cell has every product."""
    wanted = sorted({pin.skus for pin in shop.pins})
    items = np.full((len(wanted), LARGEST), ABSENT, np.int32)
    for place, skus in enumerate(wanted):
        numbers = pc.fill_null(pc.index_in(pa.array(skus, pa.string()), cell.skus), ABSENT).to_numpy()
        if (numbers >= 0).all():
            items[place, : len(skus)] = np.sort(numbers)
    return items[items[:, 0] >= 0]


def _table(cell: Cell, found: Sets, mined_here: Mask) -> pa.Table:
    items = found.items
    size = (items >= 0).sum(1)
    arranged = np.sort(np.where(items >= 0, items, np.iinfo(np.int32).max), axis=1)
    held = arranged[np.arange(LARGEST) < size[:, None]]
    ends = pa.array(np.concatenate(([0], np.cumsum(size))).astype(np.int32))
    skus = pa.ListArray.from_arrays(ends, cell.skus.take(pa.array(held)))
    return pa.table(
        [
            pa.array([bundle_id((sku, 1) for sku in each) for each in skus.to_pylist()], pa.string()),
            skus,
            pa.ListArray.from_arrays(ends, pa.array(cell.item_counts[held].astype(np.int64))),
            pa.array(found.orders.astype(np.int64)),
            pa.array(found.customers.astype(np.int64)),
            pa.array(np.full(len(items), cell.orders, np.int64)),
            pa.array(mined_here),
        ],
        schema=FOUND,
    )
