"""What pricing looks up: a region's products with price, floor, cost and response, as arrays by product number."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from spark_jobs.kernels.responses import LEVEL
from tandem.money import BPS

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

UNKNOWN = -1
"""Stands for an amount that is not known."""


class Products(NamedTuple):
    """One entry a product, by SKU; amounts of one unit in minor units of the region, UNKNOWN where there is none."""

    skus: pa.Array
    price: Ints
    cost: Ints
    """As brought, else assumed from the price; UNKNOWN without either."""
    told: Mask
    """Whose cost was brought."""
    floor: Ints
    category: NDArray[np.object_]

    def numbers(self, skus: pa.Array) -> Ints:
        """Each SKU's number, -1 where it is no product."""
        return pc.index_in(skus, self.skus).fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)


def products(
    skus: pa.Array,
    category: list[str],
    price: Ints,
    cost: Ints,
    minimum: Ints,
    *,
    min_margin_bps: int,
    assumed_margin_bps: int,
    assumed_margins_bps: Mapping[str, int],
) -> Products:
    """Floors: the higher of unit cost plus minimum margin, rounded up, and the minimum advertised price.

    Where no cost is known it is assumed to be the price less the margin assumed for the product's category, rounded up:
    then that is the floor. Without a price there is no floor of this kind, only what cost and minimum say.
    """
    margins = {name: _finest(name, assumed_margins_bps, assumed_margin_bps) for name in set(category)}
    margin = np.array([margins[name] for name in category], np.int64)
    assumed = np.where(price == UNKNOWN, UNKNOWN, _up(price * (BPS - margin)))
    known = cost != UNKNOWN
    floor = np.where(known, _up(cost * (BPS + min_margin_bps)), assumed)
    return Products(
        skus=skus,
        price=price,
        cost=np.where(known, cost, assumed),
        told=known,
        floor=np.maximum(floor, minimum),
        category=np.array(category, object),
    )


def lineage(category: str) -> Iterable[str]:
    """`A > B > C`, `A > B`, `A`: a category and those above it, the finest first."""
    while category:
        yield category
        category = category.rpartition(LEVEL)[0]


def _finest(category: str, named: Mapping[str, int], otherwise: int) -> int:
    return next((named[name] for name in lineage(category) if name in named), otherwise)


def _up(scaled: Ints) -> Ints:
    """A product with basis points, back in minor units, rounded up: a floor is never a cent too low."""
    return -(-scaled // BPS)


def response(category: NDArray[np.object_], known: Mapping[str, tuple[float, float]]) -> tuple[Floats, Floats]:
    """Each product's elasticity and its error: its category's, or the nearest above it that is known, else the root's.

    Without any, 0 ± 0: nothing is known to answer to a price.
    """
    found = {name: _nearest(name, known) for name in set(category.tolist())}
    values = [found[name] for name in category.tolist()]
    told = np.array(values, np.float64).reshape(len(values), 2)
    return told[:, 0], told[:, 1]


def _nearest(category: str, known: Mapping[str, tuple[float, float]]) -> tuple[float, float]:
    names = [*lineage(category), *([] if category else [""]), "*"]
    return next((known[name] for name in names if name in known), (0.0, 0.0))
