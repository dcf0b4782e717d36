"""Does the discount find the profit? A market whose truth is known, and what each way to discount earns there.

Shoppers have a willingness to pay for each product and take what leaves them most: nothing, one, both at their prices,
or the pair at its own (Adams & Yellen, QJE 90, 1976). On some visits a pair is needed together, so pairs differ in how
often they are bought together, for reasons that have nothing to do with whether a discount pays. Tandem sees what a
shop sees: units by week at changing prices, baskets, unit costs. The oracle sees the shoppers.

    python -m benchmarks.pricing [--markets 12] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

from spark_jobs.kernels import discounts, hierarchy, responses
from spark_jobs.kernels.discounts import Sets, Terms

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

CATEGORIES, PRODUCTS, WEEKS, PAIRS = 12, 10, 52, 100
SEEN_VISITS = 20_000
PRIOR = (-2.62, 2.21)
TERMS = Terms(max_bps=1_500)
MIN_MARGIN = 1.05
NEEDED = 1.5
"""Log odds of taking a product on a visit on which it is needed."""
STRIPS = 32
FREE = 1e-12
"""Of its price, what a product costs that is given away: everybody takes it."""


class Market(NamedTuple):
    """Products with their truth, and pairs of them (shape (pairs, 2)) that are offered."""

    category: Ints
    price: Ints
    cost: Floats
    liking: Floats
    """Log odds that a visitor takes the product at its price."""
    slope: Floats
    """How fast the odds fall with the logarithm of the price."""
    pairs: Ints
    need: Floats
    """Share of visits on which the pair is wanted together."""


def market(chance: np.random.Generator) -> Market:
    """A market drawn at random."""
    count = CATEGORIES * PRODUCTS
    category = np.repeat(np.arange(CATEGORIES), PRODUCTS)
    price = np.round(np.exp(chance.normal(6.0, 0.6, count))).astype(np.int64)
    slope = chance.uniform(1.0, 4.5, CATEGORIES)
    margin = np.clip(chance.uniform(0.5, 2.0, CATEGORIES) / slope, 0.1, 0.7)[category]
    slope = slope[category] * np.exp(chance.normal(0, 0.1, count))
    pairs = np.array([chance.choice(count, 2, replace=False) for _ in range(PAIRS)])
    liking = chance.normal(-2.5, 0.5, count)
    return Market(category, price, price * (1 - margin), liking, slope, pairs, chance.beta(0.5, 8, PAIRS))


def elasticities(held: Market, chance: np.random.Generator) -> tuple[Floats, Floats]:
    """Each product's elasticity and error, as learned from a year of weeks with promotions."""
    count = len(held.price)
    price = held.price[:, None] * np.where(
        chance.random((count, WEEKS)) < 0.25, chance.uniform(0.7, 0.9, (count, 1)), 1
    )
    odds = np.exp(held.liking[:, None] - held.slope[:, None] * np.log(price / held.price[:, None]))
    units = chance.poisson(150 * np.exp(chance.normal(0, 0.1, WEEKS)) * odds / (1 + odds))
    product, week = np.nonzero(units)
    sold = responses.Weeks(product, week, units[product, week] * 1.0, price[product, week], np.zeros(len(week)))
    panel = responses.panel(sold)
    fits = [responses.fitted(panel, first * PRODUCTS, (first + 1) * PRODUCTS) for first in range(CATEGORIES)]
    own = np.array([np.nan, *(fit.beta[0] if fit else np.nan for fit in fits)])
    error = np.array([np.nan, *(fit.error[0] if fit else np.nan for fit in fits)])
    own[0], error[0] = hierarchy.mean(own[1:][np.isfinite(own[1:])], error[1:][np.isfinite(own[1:])])
    below = np.ones(CATEGORIES, np.int64)
    drawn = hierarchy.shrink(own, error, np.append(-1, 0 * below), np.append(0, below), PRIOR)
    return drawn.value[1:][held.category], drawn.error[1:][held.category]


def taken(held: Market, pair: int, discount: float) -> Floats:
    """Shares of visitors who take the first, the second and both products of a pair that costs `discount` less.

    Worth is independent between products but for the visits on which both are needed; what a visitor would pay for a
    product is a log-logistic. Exact, but for one integral over the visitors to whom neither is worth its price and the
    pair is worth its own, which is by the midpoints of STRIPS strips.
    """
    needed, plain = (_taken(held, pair, discount, needed) for needed in (True, False))
    share = held.need[pair]
    mixed: Floats = share * needed + (1 - share) * plain
    return mixed


def _taken(held: Market, pair: int, discount: float, needed: bool) -> Floats:
    products = held.pairs[pair]
    price, slope = held.price[products], held.slope[products]
    liking = np.full(2, NEEDED) if needed else held.liking[products]

    def worth(side: int, less: Floats | float) -> Floats:
        """Share to whom the product is worth more than its price less `less`."""
        left = np.maximum(1 - np.asarray(less) / price[side], FREE)
        share: Floats = special.expit(liking[side] - slope[side] * np.log(left))
        return share

    full = np.array([worth(side, 0.0) for side in range(2)])
    further = np.array([worth(side, discount) for side in range(2)]) - full
    edges = np.linspace(0, discount, STRIPS + 1)
    middles = (edges[1:] + edges[:-1]) / 2
    both_short = float((np.diff(worth(0, edges)) * (worth(1, discount - middles) - full[1])).sum())
    alone = full + further * full[::-1] + both_short
    both = full.prod() + (full * further[::-1]).sum() + both_short
    return np.array([*alone, both])


def true_profits(held: Market, depths: Ints) -> Floats:
    """Shape (pairs, depths): true profit of 1,000 visits; a third of what is won is lost by other products."""
    profits = np.zeros(depths.shape)
    for pair, products in enumerate(held.pairs):
        prices = held.price[products]
        margins = prices - held.cost[products]
        plain = taken(held, pair, 0.0)
        for place, bps in enumerate(depths[pair]):
            off = float(prices.sum() - discounts.less(prices.sum(), bps))
            found = taken(held, pair, off)
            counted = plain[:2] + (found[:2] - plain[:2]) * (1 - TERMS.switching)
            profits[pair, place] = 1_000 * (margins @ counted - off * found[2])
    return profits


def seen(held: Market, learned: tuple[Floats, Floats], chance: np.random.Generator) -> Sets:
    """The pairs as a shop knows them: counts of its own baskets, prices, costs, learned elasticities."""
    share = np.array([taken(held, pair, 0.0) for pair in range(len(held.pairs))])
    kinds = np.column_stack([share[:, 2], share[:, 0] - share[:, 2], share[:, 1] - share[:, 2]])
    counts = chance.multinomial(SEEN_VISITS, np.column_stack([kinds, 1 - kinds.sum(1)])).astype(np.float64)
    together, holding = counts[:, 0], counts[:, :1] + counts[:, 1:3]
    cost = held.cost[held.pairs]
    return Sets(
        price=held.price[held.pairs],
        floor=np.ceil(cost * MIN_MARGIN).astype(np.int64),
        cost=cost,
        elasticity=learned[0][held.pairs],
        error=learned[1][held.pairs],
        together=together,
        lift=together * SEEN_VISITS / np.maximum(holding.prod(1), 1),
        holding=holding,
    )


def by_rank(sets: Sets, terms: Terms) -> Ints:
    """The more often bought together, the deeper, to the floors."""
    wanted = terms.max_bps * np.argsort(np.argsort(sets.together)) / (len(sets.together) - 1)
    return _cut(sets, terms, wanted)


def by_lift(sets: Sets, terms: Terms) -> Ints:
    """Deeper the smaller the lift: half of the deepest at a lift of 10."""
    return _cut(sets, terms, terms.max_bps * 10 / (10 + sets.lift))


def _cut(sets: Sets, terms: Terms, wanted: Floats) -> Ints:
    tried = discounts.depths(sets.total, terms)
    place = np.minimum((wanted // terms.step_bps).astype(np.int64), discounts.room(sets, tried))
    return tried[np.arange(len(tried)), place]


def earned(seed: int) -> dict[str, float]:
    """What each way earns beyond no discount in one market, for 1,000 visits to each pair, minor units."""
    chance = np.random.default_rng(seed)
    held = market(chance)
    sets = seen(held, elasticities(held, chance), chance)
    tried = discounts.depths(sets.total, TERMS)
    profits = true_profits(held, tried)
    allowed = np.arange(tried.shape[1]) <= discounts.room(sets, tried)[:, None]
    ways = {
        "none": discounts.none(sets, TERMS),
        "fixed 5 %": discounts.fixed(sets, TERMS),
        "by co-purchase rank": by_rank(sets, TERMS),
        "by lift": by_lift(sets, TERMS),
        "profit, any probability": discounts.best(sets, TERMS._replace(probability=0.0)),
        "profit": discounts.best(sets, TERMS),
    }
    gains = {name: _gain(profits, tried, bps) for name, bps in ways.items()}
    return gains | {"oracle": float((np.where(allowed, profits, -np.inf).max(1) - profits[:, 0]).sum())}


def _gain(profits: Floats, tried: Ints, bps: Ints) -> float:
    place = (tried == bps[:, None]).argmax(1)
    return float((profits[np.arange(len(place)), place] - profits[:, 0]).sum())


def summary(markets: int) -> list[dict[str, float | str]]:
    """Each way's mean gain over `markets` markets, and its share of the oracle's, with 95 % intervals over markets."""
    found = [earned(seed) for seed in range(markets)]
    rows: list[dict[str, float | str]] = []
    best = np.array([each["oracle"] for each in found])
    for name in found[0]:
        gains = np.array([each[name] for each in found])
        draws = np.random.default_rng(1).integers(0, markets, (2_000, markets))
        ratio = np.quantile(gains[draws].sum(1) / best[draws].sum(1), (0.025, 0.975))
        share = float(gains.sum() / best.sum())
        rows.append({"name": name, "gain": float(gains.mean()), "share": share, "low": ratio[0], "high": ratio[1]})
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--markets", type=int, default=12)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args(arguments)
    rows = summary(given.markets)
    print(f"{'discounted':<26}{'gain':>10}{'share of the oracle':>24}   95 % interval")
    for row in rows:
        text = f"{row['name']:<26}{row['gain']:>10.0f}{row['share']:>23.1%}   {row['low']:.1%} to {row['high']:.1%}"
        print(text)
    if given.json:
        told = [{"name": f"share of the oracle/{row['name']}", "value": row["share"], "unit": "share"} for row in rows]
        given.json.write_text(
            json.dumps({"machine": platform.platform(), "rows": told, "ratios": {}}), encoding="utf-8"
        )


if __name__ == "__main__":
    main()
