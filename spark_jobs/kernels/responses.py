"""Price response of every category of a shop from its products' weeks: panels, fits at every node, shrinkage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from spark_jobs.kernels import poisson
from spark_jobs.kernels.poisson import Fit, Floats, Ints

LEVEL = " > "
"""Between the levels of a category's path."""
MIN_WEEKS = 8
"""Weeks with a sale that a product needs to tell anything."""
MIN_SOLD_SHARE = 0.3
"""Of the weeks from its first to its last sale. Below it, what the price was while nobody bought is a guess."""
MIN_VARIATION = 0.01
"""Standard deviation of the logarithm of a product's price, below which its price did not change."""
MIN_ROWS = 30
REDUCED = 0.5
"""Share of a week's lines below list price from which on the week counts as a promotion."""


class Weeks(NamedTuple):
    """Sales of products by week, sorted by product, then week; equal lengths."""

    product: Ints
    week: Ints
    units: Floats
    price: Floats
    """Median price paid for a unit, over lines: the shelf's price, which multi-buys and coupons of some do not move."""
    reduced: Floats
    """Share of lines below list price."""


def summed(product: Ints, week: Ints, price: Floats, units: Floats, lines: Floats, reduced: Floats) -> Weeks:
    """Weeks of products from sums by product, week and price (rows in any order, of several regions)."""
    order = np.lexsort((price, week, product))
    product, week, price = product[order], week[order], price[order]
    first = np.flatnonzero((np.diff(product, prepend=-1) != 0) | (np.diff(week, prepend=week[:1]) != 0))
    if not len(first):
        return Weeks(product, week, units, price, reduced)
    units, lines, reduced = units[order], lines[order], reduced[order]
    upto = np.cumsum(lines)
    total = np.add.reduceat(lines, first)
    half = np.append(0.0, upto)[first] + total / 2
    return Weeks(
        product[first],
        week[first],
        np.add.reduceat(units, first),
        price[np.searchsorted(upto, half)],
        np.add.reduceat(reduced, first) / total,
    )


def panel(sold: Weeks) -> Weeks:
    """The products that can tell a price response, with a row of zero units for each week in which none was sold.

    A week without a sale shows no price: the last one seen is carried on, promotion and all. Leaving such weeks out
    would keep only the weeks in which something sold, the more so the dearer it was, and draw the response to zero.
    """
    starts = np.flatnonzero(np.diff(sold.product, prepend=-1))
    if not len(starts):
        return sold
    weeks = np.diff(np.append(starts, len(sold.product)))
    last = starts + weeks - 1
    span = sold.week[last] - sold.week[starts] + 1
    log = np.log(sold.price)
    mean = np.add.reduceat(log, starts) / weeks
    variance = np.add.reduceat((log - np.repeat(mean, weeks)) ** 2, starts) / weeks
    usable = (weeks >= MIN_WEEKS) & (weeks >= MIN_SOLD_SHARE * span) & (variance > MIN_VARIATION**2)
    kept = np.repeat(usable, weeks)
    held = Weeks(*(values[kept] for values in sold))
    starts, span = np.flatnonzero(np.diff(held.product, prepend=-1)), span[usable]
    if not len(starts):
        return held
    ends = np.cumsum(span)
    place = held.week - np.repeat(held.week[starts] - (ends - span), weeks[usable])
    source = np.zeros(int(ends[-1]), np.int64)
    source[place] = np.arange(len(place))
    source = np.maximum.accumulate(source)
    units = np.zeros(len(source))
    units[place] = held.units
    begin = np.repeat(ends - span, span)
    return Weeks(
        held.product[source],
        np.arange(len(source)) - begin + np.repeat(held.week[starts], span),
        units,
        held.price[source],
        held.reduced[source],
    )


def nodes(categories: Sequence[str]) -> list[tuple[str, int, int]]:
    """Every category of the sorted paths `categories` (one a product) and those above it, with its products' range.

    Paths must be sorted by their levels (`levels`): then the products of each category stand together.
    """
    found: dict[str, list[int]] = {}
    for place, path in enumerate(categories):
        for name in ancestry(path):
            found.setdefault(name, [place, place])[1] = place + 1
    return [(name, first, last) for name, (first, last) in found.items()]


def levels(path: str) -> tuple[str, ...]:
    """`A > B` as (A, B); no level for the empty path."""
    return tuple(path.split(LEVEL)) if path else ()


def ancestry(path: str) -> list[str]:
    """`A > B` as `A`, `A > B`: the path's own categories, coarse to fine."""
    parts = levels(path)
    return [LEVEL.join(parts[:depth]) for depth in range(1, len(parts) + 1)]


def fitted(held: Weeks, first: int, last: int) -> Fit | None:
    """The response of products `first` to `last` - 1 of a panel: β[0] is the elasticity.

    None where they are too few to say anything.
    """
    begin, end = np.searchsorted(held.product, (first, last))
    if end - begin < MIN_ROWS:
        return None
    promotion = (held.reduced[begin:end] >= REDUCED).astype(np.float64)
    columns = np.column_stack([np.log(held.price[begin:end]), promotion])
    return poisson.fit(held.product[begin:end], held.week[begin:end], held.units[begin:end], columns)
