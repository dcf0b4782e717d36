"""How units sold answer to their own price, per category: table `elasticities`.

Workers read the files of sales_lines themselves and add up each product's weeks (kernels/sold.py), a task per top
category fits every category below it, in each region and in all together (kernels/poisson.py), and one more draws what
is thin to what it is part of (kernels/hierarchy.py).
The root's prior is what 1,851 published elasticities say: mean -2.62, standard deviation 2.21 (Bijmolt, van Heerde &
Pieters, Journal of Marketing Research 42, 2005).

Memory: a task that reads holds a million lines (about 150 bytes each) or a row group, and 100 bytes a product; one that
fits holds a top category: about 150 bytes for each price that a product had in a week and region, and 8 MB.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from spark_jobs import delta, in_tasks, order_files, parquet_files
from spark_jobs.facts import Job
from spark_jobs.kernels import days, hierarchy, responses, sold
from spark_jobs.kernels.protocol import RESAMPLES, SEED, Measure
from spark_jobs.kernels.sold import Sold
from spark_jobs.order_files import Files
from tandem.segments import ALL

PRIOR = (-2.62, 2.21)
LITERATURE = "literature"
NORMAL_95 = 1.959964
PLAUSIBLE = (-10.0, 0.0)
"""Elasticities outside are called unreasonable: a price that sells more of what it makes dearer, or a slip in data."""
ROOT = "*"
ENOUGH_PRODUCTS = 10
"""Categories with fewer products whose price changed are left out where elasticities are judged."""
NAMED = 12
"""Categories that are told by name: those that sell most."""
LINES = ["ordered_at", "sku", "quantity", "net_cents", "unit_price_cents", "list_price_cents", "customer_id"]
PACKED = "top string, region string, packed binary"
"""A top category's part of what a region sold, see `sold.Sold`."""
FITTED = "region string, category string, own double, error double, products long, weeks long, units double"
SHRUNK = """region string, category string, elasticity double, low double, high double, own_elasticity double,
own_error double, products long, weeks long, units double, shrunk_from string, reasonable boolean"""


def write(job: Job) -> None:
    """Replace the day's rows of elasticities."""
    delta.put_day(elasticities(job).toArrow(), job.settings, "elasticities", job.as_of)


def elasticities(job: Job, *, before: date | None = None) -> DataFrame:
    """The elasticities table of the day, learned from the window before `before` (default: as_of).

    Empty where nothing was sold. Weeks are whole, counted back from `before`; what is older than the last one is left.
    """
    as_of, job = job.as_of, replace(job, as_of=before or job.as_of)
    whole = job.rules.learning.window_days // 7
    found = order_files.plan(job, max(whole, 1) * 7, in_segments=False)
    files = order_files.for_tasks(job, order_files.sales_files(job, found))
    read = in_tasks.each(job.spark, files, _reader(job, found), PACKED)
    sums = read.repartition(2 * order_files.tasks_at_once(job), "top")
    fits = sums.groupBy("top").applyInArrow(_fitter(job.regions.names), FITTED)
    shrunk = fits.groupBy().applyInArrow(_shrunk, SHRUNK)
    return shrunk.select(F.lit(as_of).alias("as_of"), *delta.names(SHRUNK))


def _reader(job: Job, found: order_files.Plan) -> Callable[[Files], Iterator[pa.RecordBatch]]:
    held = parquet_files.held(job.settings, "products", job.inputs.get("products"))
    end_day = days.number(job.as_of)

    def read_files(tasks: Files) -> Iterator[pa.RecordBatch]:
        products = held.rows(["sku", "category"])
        for files in tasks:
            for region, rows in order_files.window(found, files, LINES):
                for top, part in sold.sold(rows, products, end_day):
                    row = [pa.array([top]), pa.array([region]), in_tasks.packed([part])]
                    yield pa.record_batch(row, names=delta.names(PACKED))

    return read_files


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
        return _table(FITTED, _fits(in_tasks.unpacked(rows["packed"]), rows["region"].to_pylist(), regions))

    return fit


def _fits(held: list[Sold], of: list[str], regions: list[str]) -> Iterator[tuple[object, ...]]:
    """Every category's own fit, in all regions together and in each; all of one top category. `of`: parts' regions."""
    product, categories = sold.numbered(held)
    nodes = responses.nodes(categories) or [("", 0, len(categories))]
    for region in (ALL, *regions):
        here = [number for number, name in enumerate(of) if region in (ALL, name)]
        panel = responses.panel(sold.weeks([held[number] for number in here], [product[number] for number in here]))
        for name, first, last in nodes:
            found = responses.fitted(panel, first, last)
            if found is None:
                yield region, name, None, None, 0, 0, 0.0
            else:
                beta, error = float(found.beta[0]), float(found.error[0])
                yield region, name, beta, error, found.products, found.rows, found.units


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
