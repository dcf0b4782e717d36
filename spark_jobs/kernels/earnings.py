"""What discounts are expected to earn on baskets later than those they were decided from.

Pairs are found, counted and priced from what was learned before a day, by the same code as bundles'. Each later order
that holds a pair brought its margin; with a discount it brings that and, in expectation, the pair's gain. How shoppers
answer to a bundle's price cannot be read off baskets without discounts, so the gain stays a model's, learned before
that day; how often pairs are bought is seen. Intervals hold both: customers of the later baskets drawn with replacement
(Efron & Tibshirani 1993), and a state of what is not known for sure (see `discounts`) with each draw.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numba import njit
from numpy.typing import NDArray

from spark_jobs.kernels import cells, discounts, pairs, pricer, products
from spark_jobs.kernels.cells import Cell
from spark_jobs.kernels.discounts import DRAWS, Floats, Ints, Sets
from spark_jobs.kernels.products import UNKNOWN, Products
from spark_jobs.kernels.protocol import RESAMPLES, SEED, Measure
from tandem.regions import Region
from tandem.rules import Rules
from tandem.segments import ALL

COMPANIONS = 5
"""Pairs offered with each anchor."""
PER = 1_000
"""Profits are told for so many later orders."""


class Known(NamedTuple):
    """A region's products and how each answers to its price."""

    products: Products
    elasticity: Floats
    error: Floats


def measured(rows: pa.Table, told: pa.Table, region: Region, rules: Rules) -> Iterator[Measure]:
    """Measures of the region and each of its segments.

    `rows` are orders: segment, customer, skus, later (asked about, not learned from); `told` as `pricing.TOLD` says,
    with elasticities learned before the later orders.
    """
    kinds = pricer.by_kind(told)
    known = pricer.known_products(kinds, rules.pricing)
    response = products.response(known.category, pricer.responses_of(kinds["elasticity"], region.name))
    for segment in (ALL, *sorted(pc.unique(rows["segment"]).to_pylist())):
        mine = rows if segment == ALL else rows.filter(pc.equal(rows["segment"], segment))
        later = mine["later"].combine_chunks()
        learned, asked = (_cell(mine.filter(chosen)) for chosen in (pc.invert(later), later))
        if learned.orders and asked.orders:
            for metric, value, low, high in _measures(learned, asked, Known(known, *response), region, rules):
                yield Measure(region.name, segment, metric, value, low, high, asked.orders)


def _cell(rows: pa.Table) -> Cell:
    return cells.cell(rows["customer"], rows["skus"])


def _measures(
    learned: Cell, asked: Cell, known: Known, region: Region, rules: Rules
) -> Iterator[tuple[str, float, float, float]]:
    items, sets = offered(learned, known, region.k, rules)
    if not len(items):
        return
    terms = pricer.terms_of(rules.pricing, region.currency)
    ways = {"discounts": discounts.STRATEGIES[rules.pricing.strategy], "fixed_discounts": discounts.fixed}
    given = {name: way(sets, terms) for name, way in ways.items()}
    margin = sets.total - sets.cost.sum(1)
    gains = [discounts.gains(sets, bps, terms) for bps in given.values()]
    share = sets.together[:, None] / np.maximum(sets.holding, 1)
    place = pc.index_in(learned.skus, asked.skus).fill_null(-1).to_numpy(zero_copy_only=False)
    values = np.column_stack([margin, np.ones(len(margin)), *gains])
    sums = _summed(asked, place[items], values, _predicted(place, items, share, len(asked.skus)))
    orders = np.bincount(asked.order_customer).astype(np.float64)
    draw = _drawn(sums, orders)
    state = 2 + np.arange(RESAMPLES) % DRAWS

    def told(name: str, mean: float, drawn: Floats) -> tuple[str, float, float, float]:
        low, high = np.quantile(drawn, (0.025, 0.975))
        return name, float(mean), float(min(low, mean)), float(max(high, mean))

    total, whole = sums.sum(0), orders.sum()
    without = PER * total[0] / whole
    yield told("expected_profit_without/discounts", without, PER * draw[:, 0] / draw[:, -1])
    for place_of, (name, bps) in enumerate(given.items()):
        first = 2 + place_of * DRAWS
        gain = PER * total[first : first + DRAWS].mean() / whole
        drawn = PER * draw[np.arange(RESAMPLES), state + place_of * DRAWS] / draw[:, -1]
        yield told(f"profit_gain/{name}", gain, drawn)
        yield told(f"given_share/{name}", (bps > 0).mean(), np.array([(bps > 0).mean()]))
        if name == "discounts":
            yield told(f"expected_profit_with/{name}", without + gain, drawn + PER * draw[:, 0] / draw[:, -1])
    yield told(
        "attach_ratio/discounts", 2 * total[1] / max(total[-1], 1e-9), 2 * draw[:, 1] / np.maximum(draw[:, -2], 1e-9)
    )


def offered(learned: Cell, known: Known, k: int, rules: Rules) -> tuple[Ints, Sets]:
    """Each anchor's best COMPANIONS as pairs, shape (pairs, 2) of the cell's products, and what is known of them.

    Both are active, of different categories and have a price, as bundles ask for it.
    """
    damping = rules.learning.popularity_damping
    anchor, companion, both, *_ = pairs.best_companions(learned, min_customers=k, top=COMPANIONS, damping=damping)
    items = np.sort(np.column_stack([anchor, companion]).astype(np.int64), axis=1)
    items, first = np.unique(items, axis=0, return_index=True)
    number = known.products.numbers(learned.skus)[items]
    usable = (number >= 0).all(1) & (np.append(known.products.price, UNKNOWN)[number] > 0).all(1)
    category = np.append(known.products.category, "")[number]
    usable &= (category[:, 0] != category[:, 1]) | (category[:, 0] == "")
    items, number, together = items[usable], number[usable], both[first][usable].astype(np.float64)
    holding = learned.item_counts[items].astype(np.float64)
    lift = together * learned.orders / np.maximum(holding.prod(1), 1)
    usable = lift > rules.pricing.min_lift
    return items[usable], Sets(
        price=known.products.price[number][usable],
        floor=known.products.floor[number][usable],
        cost=known.products.cost[number][usable].astype(np.float64),
        elasticity=known.elasticity[number][usable],
        error=known.error[number][usable],
        together=together[usable],
        lift=lift[usable],
        holding=holding[usable],
    )


def _predicted(place: NDArray[np.int32], items: Ints, share: Floats, size: int) -> Floats:
    """Shape (later products): of an order that holds it, how many of its pairs are expected to be whole."""
    later = place[items.ravel()]
    known = later >= 0
    return np.bincount(later[known], share.ravel()[known], size)


def _summed(asked: Cell, items: NDArray[np.int32], values: Floats, predicted: Floats) -> Floats:
    """Shape (customers, columns of `values` and the pairs expected): sums over each customer's later orders."""
    sums = np.zeros((int(asked.order_customer.max()) + 1, values.shape[1] + 1))
    _hold(asked.item_starts, asked.item_orders, asked.order_customer, items, values, sums)
    owner = np.repeat(asked.order_customer, np.diff(asked.order_starts))
    sums[:, -1] = np.bincount(owner, predicted[asked.order_items], len(sums))
    return sums


@njit(cache=True)
def _hold(starts, orders, customer, items, values, sums):  # type: ignore[no-untyped-def]
    for pair in range(len(items)):
        first, second = items[pair, 0], items[pair, 1]
        if first < 0 or second < 0:
            continue
        left, right = starts[first], starts[second]
        while left < starts[first + 1] and right < starts[second + 1]:
            if orders[left] < orders[right]:
                left += 1
            elif orders[left] > orders[right]:
                right += 1
            else:
                owner = customer[orders[left]]
                for column in range(values.shape[1]):
                    sums[owner, column] += values[pair, column]
                left += 1
                right += 1


def _drawn(sums: Floats, orders: Floats) -> Floats:
    """Shape (RESAMPLES, columns of `sums` and the orders): totals of customers drawn with replacement."""
    draws = np.random.default_rng(SEED)
    columns = np.column_stack([sums, orders])
    chosen = draws.multinomial(len(orders), np.full(len(orders), 1 / len(orders)), RESAMPLES)
    total: Floats = chosen.astype(np.float64) @ columns
    return total
