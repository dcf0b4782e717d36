"""What sells together: exact counts and measures per region × segment × anchor × companion, at every level."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from spark_jobs import delta, facts
from spark_jobs.facts import Job
from spark_jobs.kernels import cells, measures, pairs
from tandem.segments import ALL, EVERYONE

COUNTED = """cell_region string, cell_segment string, anchor string, companion string, orders_total long,
orders_anchor long, orders_companion long, orders_both long, customers_both long, support double, confidence double,
lift double, npmi double, llr double, score double, rank int"""


def affinity(job: Job) -> DataFrame:
    """The affinity table of the day: the `top` companions of every anchor in every cell that has k customers."""
    rows = in_cells(baskets(job), delta.read_day(job.spark, job.settings, "segment_members", job.as_of))
    return counted(job, rows).select(
        F.lit(job.as_of).alias("as_of"),
        F.col("cell_region").alias("region"),
        F.col("cell_segment").alias("segment"),
        *[name for name in delta.names(COUNTED) if not name.startswith("cell_")],
    )


def baskets(job: Job) -> DataFrame:
    """What each order of the learning window holds."""
    learning = job.rules.learning
    return facts.baskets(facts.lines(job, window_days=learning.window_days), learning.max_basket)


def in_cells(baskets: DataFrame, members: DataFrame) -> DataFrame:
    """Each row of `baskets` once per level: its segment in its region, its region, and everything.

    Gives cell_region, cell_segment, customer, skus. Orders without a customer are in the segment of everyone.
    """
    segment_of = members.select("region", "customer_id", "segment")
    levels = F.array(
        F.struct(F.col("region").alias("cell_region"), F.coalesce("segment", F.lit(EVERYONE)).alias("cell_segment")),
        F.struct(F.col("region").alias("cell_region"), F.lit(ALL).alias("cell_segment")),
        F.struct(F.lit(ALL).alias("cell_region"), F.lit(ALL).alias("cell_segment")),
    )
    placed = baskets.join(F.broadcast(segment_of), ["region", "customer_id"], "left")
    return placed.select(F.inline(levels), F.col("customer_id").alias("customer"), "skus")


def counted(job: Job, rows: DataFrame) -> DataFrame:
    """Pairs of every cell in `rows` (see `in_cells`): columns of COUNTED.

    Each cell is one task; a task holds its cell: about 60 bytes a line of an order, and 16 bytes an item to count with.
    """
    return rows.groupBy("cell_region", "cell_segment").applyInArrow(_counter(job), COUNTED)


def smallest_k(job: Job, region: str) -> int:
    """Customers a pair needs in a cell of `region`; at the level of everything, the k of the least careful region.

    Publishing to a region checks that region's own k again.
    """
    return job.regions.get(region).k if region != ALL else min(region.k for region in job.regions.region)


def _counter(job: Job) -> Callable[[tuple[pa.Scalar, ...], pa.Table], pa.Table]:
    k = {name: smallest_k(job, name) for name in (*job.regions.names, ALL)}
    top, damping = job.rules.learning.top, job.rules.learning.popularity_damping

    def count(key: tuple[pa.Scalar, ...], rows: pa.Table) -> pa.Table:
        region, segment = (part.as_py() for part in key)
        cell = cells.cell(rows["customer"], rows["skus"])
        found = pairs.best_companions(cell, min_customers=k[region], top=top, damping=damping)
        return pa.table(dict(zip(delta.names(COUNTED), _columns(region, segment, cell, found), strict=True)))

    return count


def _columns(region: str, segment: str, cell: cells.Cell, found: pairs.Pairs) -> Iterator[object]:
    anchor, companion, both, customers, score = found
    n, a, b = np.full(len(anchor), cell.orders), cell.item_counts[anchor], cell.item_counts[companion]
    yield pa.array([region] * len(anchor), pa.string())
    yield pa.array([segment] * len(anchor), pa.string())
    yield cell.skus.take(pa.array(anchor))
    yield cell.skus.take(pa.array(companion))
    yield from (values.astype(np.int64) for values in (n, a, b, both, customers))
    yield measures.support(both, n)
    yield measures.confidence(both, a)
    yield measures.lift(both, a, b, n)
    yield measures.npmi(both, a, b, n)
    yield measures.llr(both, a, b, n)
    yield score
    yield _ranks(anchor)


def _ranks(anchors: cells.Ints) -> cells.Ints:
    """1, 2, 3 … within each run of the same anchor."""
    firsts = np.flatnonzero(np.diff(anchors, prepend=-1))
    lengths = np.diff(np.append(firsts, len(anchors)))
    return (np.arange(len(anchors)) - np.repeat(firsts, lengths) + 1).astype(np.int32)
