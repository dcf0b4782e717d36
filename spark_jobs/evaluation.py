"""Does it hold on later orders? Each ranking learned before a day is asked what the baskets after it hold.

Query: an anchor in a later basket; relevant: the basket's other products. hit@5: share of queries with a relevant
product among the ranking's first five. Intervals: bootstrap by customer (Efron & Tibshirani 1993, percentile).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from spark_jobs import facts
from spark_jobs.facts import Job
from spark_jobs.kernels import cells, pairs
from tandem.segments import ALL

HOLDOUT_DAYS = 28
FIRST = 5
LARGEST, SMALLEST = 100, 2
RESAMPLES = 400
SEED = 11
NORMAL_95 = 1.959964
"""Quantile of the normal distribution for a 95 % interval."""
RANKINGS = {"popularity": None, "confidence": 0.0, "score": None, "lift": 1.0}
"""Ranking to the damping that its score has; popularity has none, `score` has the rules'."""
MEASURED = "region string, metric string, value double, low double, high double, queries long"


def evaluations(job: Job) -> DataFrame:
    """The evaluations table of the day: learned until HOLDOUT_DAYS before it, asked about the days since."""
    cut = job.as_of - timedelta(days=HOLDOUT_DAYS)
    learning = job.rules.learning
    before = facts.baskets(facts.lines(job, window_days=learning.window_days, before=cut), learning.max_basket)
    after = facts.baskets(facts.lines(job, window_days=HOLDOUT_DAYS), LARGEST)
    both = before.withColumn("later", F.lit(False)).unionByName(after.withColumn("later", F.lit(True)))
    placed = both.select(
        F.explode(F.array("region", F.lit(ALL))).alias("cell"), F.col("customer_id").alias("customer"), "skus", "later"
    )
    asked = placed.groupBy("cell").applyInArrow(_measurer(job), MEASURED)
    return asked.unionByName(outcome_rates(job)).select(
        F.lit(job.as_of).alias("as_of"),
        "region",
        F.lit(ALL).alias("segment"),
        "metric",
        "value",
        "low",
        "high",
        "queries",
        F.lit(cut).alias("learned_before"),
    )


def outcome_rates(job: Job) -> DataFrame:
    """What became of the bundles shown in the last HOLDOUT_DAYS: clicks, carts and purchases per exposure, by region.

    Interval: Wilson 1927, JASA 22. A region in which nothing was shown has no rows.
    """
    cut = job.as_of - timedelta(days=HOLDOUT_DAYS)
    recent = (F.col("day") >= F.lit(cut)) & (F.col("day") < F.lit(job.as_of))
    shown = job.fact("exposures").where(recent).groupBy("region").agg(F.count("*").alias("queries"))
    done = job.fact("outcomes").where(recent).groupBy("region", "kind").agg(F.count("*").alias("done"))
    share = F.least(F.col("done") / F.col("queries"), F.lit(1.0))
    asked = F.col("queries")
    z2n = NORMAL_95**2 / asked
    centre, spread = share + z2n / 2, NORMAL_95 * F.sqrt((share * (1 - share) + z2n / 4) / asked)
    return shown.join(done, "region").select(
        "region",
        F.concat("kind", F.lit("_rate")).alias("metric"),
        share.alias("value"),
        F.greatest((centre - spread) / (1 + z2n), F.lit(0.0)).alias("low"),
        F.least((centre + spread) / (1 + z2n), F.lit(1.0)).alias("high"),
        "queries",
    )


def _measurer(job: Job) -> Callable[[tuple[pa.Scalar, ...], pa.Table], pa.Table]:
    damping, top = job.rules.learning.popularity_damping, job.rules.learning.top

    def measure(key: tuple[pa.Scalar, ...], rows: pa.Table) -> pa.Table:
        later = rows["later"].combine_chunks()
        learned, asked = rows.filter(pc.invert(later)), rows.filter(later)
        found = list(measured(learned, asked, damping, top)) if len(learned) and len(asked) else []
        names = ("metric", "value", "low", "high", "queries")
        columns = list(zip(*found, strict=True)) or [[] for _ in names]
        types = (pa.string(), pa.float64(), pa.float64(), pa.float64(), pa.int64())
        arrays = [pa.array(column, kind) for column, kind in zip(columns, types, strict=True)]
        region = pa.array([key[0].as_py()] * len(found), pa.string())
        return pa.table([region, *arrays], names=["region", *names])

    return measure


def measured(
    learned: pa.Table, asked: pa.Table, damping: float, top: int
) -> Iterator[tuple[str, float, float, float, int]]:
    """Each ranking's measures; rows are (customer, skus) of both periods."""
    cell = cells.cell(learned["customer"], learned["skus"])
    queries = _queries(cell, asked)
    for name, own in RANKINGS.items():
        wanted = damping if name == "score" else own
        lists = _popular(cell) if wanted is None else _listed(cell, wanted, top)
        hit = _hits(queries, lists, len(cell.skus))
        low, high = _interval(hit, queries.customer)
        yield f"hit@{FIRST}/{name}", float(hit.mean()) if len(hit) else 0.0, low, high, len(hit)
    listed = _listed(cell, damping, top)
    served = (listed[:, 0] >= 0)[queries.anchor]
    low, high = _interval(served, queries.customer)
    yield "coverage/score", float(served.mean()) if len(served) else 0.0, low, high, len(served)


class _Queries:
    """Later baskets as pairs of an anchor and its basket, in products known before."""

    def __init__(self, anchor: cells.Ints, order: cells.Ints, customer: cells.Ints, held: NDArray[np.int64]) -> None:
        self.anchor, self.order, self.customer = anchor, order, customer
        self.held = held
        """Sorted order · items + item of every line."""


def _queries(cell: cells.Cell, asked: pa.Table) -> _Queries:
    later = cells.cell(asked["customer"], asked["skus"])
    number = pc.index_in(later.skus, cell.skus).fill_null(-1).to_numpy()
    sizes = np.diff(later.order_starts)
    order = np.repeat(np.arange(later.orders, dtype=np.int32), sizes)
    item = number[later.order_items].astype(np.int32)
    usable = (item >= 0) & (sizes[order] >= SMALLEST)
    order, item = order[usable], item[usable]
    held = np.sort(order.astype(np.int64) * len(cell.skus) + item)
    return _Queries(item, order, later.order_customer[order], held)


def _listed(cell: cells.Cell, damping: float, top: int) -> cells.Ints:
    """Shape (items, FIRST): each anchor's best companions, -1 where there are fewer."""
    anchor, companion, *_ = pairs.best_companions(cell, min_customers=2, top=min(top, FIRST), damping=damping)
    firsts = np.flatnonzero(np.diff(anchor, prepend=-1))
    place = np.arange(len(anchor)) - np.repeat(firsts, np.diff(np.append(firsts, len(anchor))))
    lists = np.full((len(cell.skus), FIRST), -1, np.int32)
    lists[anchor, place] = companion
    return lists


def _popular(cell: cells.Cell) -> cells.Ints:
    """Shape (items, FIRST): the most popular products, the anchor itself left out."""
    best = np.argsort(-cell.item_counts, kind="stable")[: FIRST + 1].astype(np.int32)
    lists = np.tile(best[:FIRST], (len(cell.skus), 1))
    for place, item in enumerate(best[:FIRST]):
        lists[item] = np.delete(best, place)
    return lists


def _hits(queries: _Queries, lists: cells.Ints, items: int) -> NDArray[np.bool_]:
    hit = np.zeros(len(queries.anchor), bool)
    for place in range(lists.shape[1]):
        shown = lists[queries.anchor, place]
        wanted = queries.order.astype(np.int64) * items + shown
        spot = np.minimum(np.searchsorted(queries.held, wanted), max(len(queries.held) - 1, 0))
        hit |= (shown >= 0) & (queries.held[spot] == wanted)
    return hit


def _interval(hit: NDArray[np.bool_], customer: cells.Ints) -> tuple[float, float]:
    """95 % interval of the mean, customers drawn with replacement."""
    if not len(hit):
        return 0.0, 0.0
    _, owner = np.unique(customer, return_inverse=True)
    hits, asked = np.bincount(owner, hit), np.bincount(owner)
    draws = np.random.default_rng(SEED).integers(0, len(asked), (RESAMPLES, len(asked)))
    low, high = np.quantile(hits[draws].sum(1) / asked[draws].sum(1), (0.025, 0.975))
    return float(low), float(high)
