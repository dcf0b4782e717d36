"""How units sold answer to their own price, per category: table `elasticities`.

Spark adds up each product's weeks, an Arrow kernel per top category fits every category below it, in each region and
in all together (kernels/poisson.py), and one more draws what is thin to what it is part of (kernels/hierarchy.py).
The root's prior is what 1,851 published elasticities say: mean -2.62, standard deviation 2.21 (Bijmolt, van Heerde &
Pieters, Journal of Marketing Research 42, 2005).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from spark_jobs import delta, facts
from spark_jobs.facts import Job
from spark_jobs.kernels import hierarchy, responses
from spark_jobs.kernels.cells import codes
from spark_jobs.kernels.protocol import RESAMPLES, SEED, Measure
from tandem.segments import ALL

PRIOR = (-2.62, 2.21)
LITERATURE = "literature"
NORMAL_95 = 1.959964
PLAUSIBLE = (-10.0, 0.0)
"""Elasticities outside are called unreasonable: a price that sells more of what it makes dearer, or a slip in data."""
BELOW_LIST = 0.97
"""A line paid below this share of its list price counts as reduced: less is rounding."""
ROOT = "*"
ENOUGH_PRODUCTS = 10
"""Categories with fewer products whose price changed are left out where elasticities are judged."""
NAMED = 12
"""Categories that are told by name: those that sell most."""
FITTED = "region string, category string, own double, error double, products long, weeks long, units double"
WEEKLY = ("week", "price", "units", "lines", "reduced")
SHRUNK = """region string, category string, elasticity double, low double, high double, own_elasticity double,
own_error double, products long, weeks long, units double, shrunk_from string, reasonable boolean"""


def elasticities(job: Job, *, before: date | None = None) -> DataFrame:
    """The elasticities table of the day, learned from the window before `before` (default: as_of).

    Empty where nothing was sold. A task holds one top category: about 60 bytes a product and week, and 8 MB.
    """
    fits = weeks(job, before or job.as_of).groupBy("top").applyInArrow(_fitter(job.regions.names), FITTED)
    shrunk = fits.groupBy().applyInArrow(_shrunk, SHRUNK)
    return shrunk.select(F.lit(job.as_of).alias("as_of"), *delta.names(SHRUNK))


def weeks(job: Job, before: date) -> DataFrame:
    """Sums by product, week and price paid before `before`: region, sku, category, top (its first level), week and the
    columns of `responses.summed`. Weeks are whole, counted back from `before`; what is older than the last one is left.
    """
    whole = job.rules.learning.window_days // 7
    bought = facts.lines(job, window_days=max(whole, 1) * 7, before=before).where(
        (F.col("quantity") > 0) & (F.col("net_cents") > 0) & (F.col("unit_price_cents") > 0)
    )
    days = F.datediff(F.lit(before), F.col("ordered_at").cast("date")) - 1
    reduced = F.col("unit_price_cents") < F.col("list_price_cents") * BELOW_LIST
    category = F.coalesce("category", F.lit(""))
    week = (-F.floor(days / 7)).cast("long").alias("week")
    sums = bought.groupBy("region", "sku", week, F.col("unit_price_cents").cast("double").alias("price")).agg(
        F.sum("quantity").cast("double").alias("units"),
        F.count("*").cast("double").alias("lines"),
        F.sum(F.coalesce(reduced, F.lit(False)).cast("double")).alias("reduced"),
    )
    known = job.fact("products").select("sku", category.alias("category"))
    return sums.join(known, "sku", "left").select(
        "region",
        "sku",
        F.coalesce("category", F.lit("")).alias("category"),
        F.split_part(F.coalesce("category", F.lit("")), F.lit(responses.LEVEL), F.lit(1)).alias("top"),
        *WEEKLY,
    )


def evaluated(job: Job) -> list[Measure]:
    """How reasonable the day's elasticities are: of second-level categories with ENOUGH_PRODUCTS products, the share of
    own estimates that is negative and their median (intervals: categories drawn with replacement), and those of the
    categories that sell most, each with its interval. `queries` is the number of categories, or of products.
    """
    day = delta.read_day(job.spark, job.settings, "elasticities", job.as_of)
    deep = F.size(F.split("category", responses.LEVEL)) == 2
    judged = day.where((F.col("region") == ALL) & (F.col("products") >= ENOUGH_PRODUCTS))
    told = judged.select(
        "category", "own_elasticity", "elasticity", "low", "high", "products", "units", deep.alias("deep")
    )
    rows = sorted((tuple(row) for row in told.collect()), key=lambda row: (-row[6], row[0]))
    rows = [row for row in rows if row[7]] or rows
    return _judged(np.array([row[1] for row in rows])) + [
        Measure(ALL, ALL, f"elasticity/prices@{category}", value, low, high, products)
        for category, _, value, low, high, products, *_ in rows[:NAMED]
    ]


def _judged(own: responses.Floats) -> list[Measure]:
    if not len(own):
        return []
    draws = own[np.random.default_rng(SEED).integers(0, len(own), (RESAMPLES, len(own)))]
    found = {"elasticity_negative_share/prices": (own < 0, draws < 0), "elasticity_median/prices": (own, draws)}
    measures = []
    for metric, (values, drawn) in found.items():
        middle = np.mean if metric.startswith("elasticity_negative") else np.median
        low, high = np.quantile(middle(drawn, axis=1), (0.025, 0.975))
        measures.append(Measure(ALL, ALL, metric, float(middle(values)), float(low), float(high), len(own)))
    return measures


def _fitter(regions: list[str]) -> Callable[[tuple[pa.Scalar, ...], pa.Table], pa.Table]:
    def fit(key: tuple[pa.Scalar, ...], rows: pa.Table) -> pa.Table:
        return _table(FITTED, _fits(rows.combine_chunks(), regions))

    return fit


def _fits(rows: pa.Table, regions: list[str]) -> Iterator[tuple[object, ...]]:
    """Every category's own fit, in all regions together and in each; all of one top category."""
    product, categories = _numbered(rows["sku"], rows["category"])
    nodes = responses.nodes(categories) or [("", 0, len(categories))]
    columns = [product, *(rows[name].to_numpy() for name in WEEKLY)]
    for region in (ALL, *regions):
        here = columns
        if region != ALL:
            chosen = pc.equal(rows["region"], region).to_numpy(zero_copy_only=False)
            here = [values[chosen] for values in columns]
        panel = responses.panel(responses.summed(*here))
        for name, first, last in nodes:
            found = responses.fitted(panel, first, last)
            if found is None:
                yield region, name, None, None, 0, 0, 0.0
            else:
                beta, error = float(found.beta[0]), float(found.error[0])
                yield region, name, beta, error, found.products, found.rows, found.units


def _numbered(skus: pa.ChunkedArray, categories: pa.ChunkedArray) -> tuple[responses.Ints, list[str]]:
    """Each row's product, numbered by the levels of its category, then SKU, and each product's category."""
    code, keys = codes(skus)
    first = np.unique(code, return_index=True)[1]
    path = categories.take(pa.array(first)).to_pylist()
    order = sorted(range(len(keys)), key=lambda number: (responses.levels(path[number]), number))
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    return place[code], [path[number] for number in order]


def _shrunk(key: tuple[pa.Scalar, ...], fits: pa.Table) -> pa.Table:
    fits = fits.sort_by([("region", "ascending"), ("category", "ascending")])
    whole = fits.filter(pc.equal(fits["region"], ALL))
    names = [ROOT, *whole["category"].to_pylist()]
    drawn = _drawn_in_tree(names, whole)
    parts = fits.filter(pc.not_equal(fits["region"], ALL))
    group = pc.index_in(parts["category"], pa.array(names)).to_numpy(zero_copy_only=False)
    own, error = _floats(parts["own"]), _floats(parts["error"])
    region = hierarchy.toward(own, error, drawn.value[group], drawn.error[group], group.astype(np.int64))
    return _table(SHRUNK, _rows(names, whole, drawn, parts, region))


def _drawn_in_tree(names: list[str], whole: pa.Table) -> hierarchy.Shrunk:
    """Posterior of the root and of every category in all regions together."""
    place = {name: number for number, name in enumerate(names)}
    parent = np.array([-1, *(place[_above(name)] for name in names[1:])], np.int64)
    level = np.array([0, *(max(len(responses.levels(name)), 1) for name in names[1:])], np.int64)
    own, error = (np.append(np.nan, _floats(whole[name])) for name in ("own", "error"))
    tops = np.flatnonzero((level == 1) & np.isfinite(own))
    own[0], error[0] = hierarchy.mean(own[tops], error[tops])
    return hierarchy.shrink(own, error, parent, level, PRIOR)


def _above(name: str) -> str:
    """The category that `name` is part of."""
    return name.rpartition(responses.LEVEL)[0] or ROOT


def _rows(
    names: list[str], whole: pa.Table, drawn: hierarchy.Shrunk, parts: pa.Table, region: hierarchy.Shrunk
) -> Iterator[tuple[object, ...]]:
    nothing = (None, None, 0, 0, 0.0)
    told = zip(*(whole[name].to_pylist() for name in FITTED_COUNTS), strict=True)
    for number, (name, own) in enumerate(zip(names, (nothing, *told), strict=True)):
        above = LITERATURE if name == ROOT else _above(name)
        yield _row(ALL, name, drawn.value[number], drawn.error[number], own, above)
    told = zip(*(parts[name].to_pylist() for name in ("region", "category", *FITTED_COUNTS)), strict=True)
    for number, (place, name, *own) in enumerate(told):
        yield _row(place, name, region.value[number], region.error[number], tuple(own), name)


FITTED_COUNTS = ("own", "error", "products", "weeks", "units")


def _row(
    region: str, category: str, value: float, error: float, own: tuple[object, ...], above: str
) -> tuple[object, ...]:
    low, high = value - NORMAL_95 * error, value + NORMAL_95 * error
    reasonable = PLAUSIBLE[0] <= value < PLAUSIBLE[1]
    return region, category, float(value), float(low), float(high), *own, above, bool(reasonable)


def _floats(values: pa.ChunkedArray) -> responses.Floats:
    return values.cast(pa.float64()).fill_null(np.nan).to_numpy()


ARROW = {
    "string": pa.string(),
    "double": pa.float64(),
    "long": pa.int64(),
    "boolean": pa.bool_(),
}


def _table(ddl: str, rows: Iterator[tuple[object, ...]]) -> pa.Table:
    """Rows as an Arrow table of the schema `name type, name type`."""
    fields = [part.split() for part in ddl.replace("\n", " ").split(", ")]
    columns = list(zip(*rows, strict=True)) or [()] * len(fields)
    arrays = [pa.array(column, ARROW[kind]) for column, (_, kind) in zip(columns, fields, strict=True)]
    return pa.table(arrays, names=[name for name, _ in fields])
