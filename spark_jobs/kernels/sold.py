"""Sums of lines by product, week and price: what readers give of a file's lines, a part for each top category."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from spark_jobs.kernels import responses
from spark_jobs.kernels.baskets import Longs
from spark_jobs.kernels.cells import Ints, codes
from spark_jobs.kernels.lines import DAY

BELOW_LIST = 0.97
"""A line paid below this share of its list price counts as reduced: less is rounding."""
PARTS = 1000
"""Of a unit: what quantities are exact to."""


@dataclass(frozen=True)
class Sold:
    """Sums of one region and top category; arrays of equal lengths but for the first two."""

    skus: pa.Array
    categories: pa.Array
    """Of each of `skus`: its path, empty where it has none."""
    product: Ints
    """Number in `skus`."""
    week: Ints
    price: Longs
    """Of a unit, minor units."""
    parts: Longs
    """Thousandths of units."""
    lines: Longs
    reduced: Longs
    """Lines below list price."""


def sold(rows: pa.Table, products: pa.Table, end_day: int) -> Iterator[tuple[str, Sold]]:
    """The sums of lines by the first level of their category; those of lines that sold nothing are left out.

    `rows` have ordered_at, sku, quantity, net_cents, unit_price_cents, list_price_cents; `products` sku and category.
    Weeks are whole and counted back to 0 from the last before the day `end_day` (from 1970-01-01).
    """
    positive = [pc.greater(rows[name], 0) for name in ("quantity", "net_cents", "unit_price_cents")]
    rows = rows.filter(pc.and_(pc.and_(*positive[:2]), positive[2])).combine_chunks()
    product, skus = codes(rows["sku"])
    day = rows["ordered_at"].cast(pa.int64()).to_numpy() // DAY
    parts = np.rint(rows["quantity"].cast(pa.float64()).to_numpy() * PARTS).astype(np.int64)
    price = rows["unit_price_cents"].to_numpy()
    list_price = rows["list_price_cents"].cast(pa.float64()).fill_null(0.0).to_numpy()
    week = -((end_day - day - 1) // 7)
    key = {"product": product, "week": week.astype(np.int32), "price": price}
    sums = pa.table(
        key | {"parts": parts, "lines": parts, "reduced": (price < list_price * BELOW_LIST).astype(np.int64)}
    )
    wanted = [("parts", "sum"), ("lines", "count"), ("reduced", "sum")]
    found = sums.group_by(list(key), use_threads=False).aggregate(wanted)
    bought, place = np.unique(found["product"].to_numpy(), return_inverse=True)
    skus = skus.take(pa.array(bought))
    category = products["category"].take(pc.index_in(skus, products["sku"])).fill_null("").combine_chunks()
    top, tops = codes(pc.list_element(pc.split_pattern(category, responses.LEVEL, max_splits=1), 0))
    columns = [found[name].to_numpy() for name in ("week", "price", "parts_sum", "lines_count", "reduced_sum")]
    for number, name in enumerate(tops.to_pylist()):
        own, mine = np.flatnonzero(top == number), top[place] == number
        product = np.searchsorted(own, place[mine]).astype(np.int32)
        chosen = pa.array(own)
        yield name, Sold(skus.take(chosen), category.take(chosen), product, *(column[mine] for column in columns))


def numbered(held: Sequence[Sold]) -> tuple[list[responses.Ints], list[str]]:
    """Each part's products, numbered by the levels of their category, then SKU, and each product's category."""
    code, keys = codes(pa.chunked_array([part.skus for part in held], pa.string()))
    first = np.unique(code, return_index=True)[1]
    path = pa.chunked_array([part.categories for part in held], pa.string()).take(pa.array(first)).to_pylist()
    order = sorted(range(len(keys)), key=lambda number: (responses.levels(path[number]), number))
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    ends = np.cumsum([len(part.skus) for part in held])[:-1]
    products = [own[part.product] for own, part in zip(np.split(place[code], ends), held, strict=True)]
    return products, [path[number] for number in order]


def weeks(held: Sequence[Sold], product: Sequence[responses.Ints]) -> responses.Weeks:
    """Weeks of the products of all parts, which are numbered by `product`."""

    def joined(name: str, kind: type) -> np.ndarray:
        return np.concatenate([getattr(part, name).astype(kind) for part in held] or [np.empty(0, kind)])

    whole = np.concatenate([*product, np.empty(0, np.int64)])
    sums = [joined(name, np.float64) for name in ("price", "parts", "lines", "reduced")]
    found = responses.summed(whole, joined("week", np.int64), *sums)
    return found._replace(units=found.units / PARTS)
