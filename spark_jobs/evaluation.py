"""Does it hold on later orders? Each ranking learned before a day is asked what the orders since then hold.

The protocol is that of kernels/protocol.py: the window's first 80 % of days are learned from, the rest is asked about.
Every other part (segments, bundles, prices …) measures itself on later data in a function `evaluated(job)`, and this
job unites their rows.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from spark_jobs import (
    bundles,
    cold,
    delta,
    elasticity,
    embeddings,
    events,
    order_files,
    pricing,
    ranking,
    segments,
    substitutes,
)
from spark_jobs.facts import Job
from spark_jobs.kernels import baselines, days, judged
from spark_jobs.kernels.baselines import Postings
from spark_jobs.kernels.cells import Ints
from spark_jobs.kernels.history import history
from spark_jobs.kernels.nearest import nearest
from spark_jobs.kernels.protocol import MEASURED, NDCG_FIRST, Measure
from spark_jobs.ranking import Learned
from tandem.segments import ALL

RATED_DAYS = 28
"""Outcomes of bundles are counted over so many days."""
NORMAL_95 = 1.959964
"""Quantile of the normal distribution for a 95 % interval."""
FRONTIER = (0.0, 0.2, 0.5, 1.0)
WHOLE_FRONTIER = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0, 1.5)
"""Weights of the tail whose hits, tail and coverage are told: in the nightly build, and by `tandem evaluate`."""
Part = Callable[[Job], list[Measure]]
NIGHTLY: tuple[Part, ...] = (segments.evaluated, elasticity.evaluated)
"""What measures itself on later data in every build, from what other jobs of it have kept."""
PARTS: tuple[Part, ...] = (*NIGHTLY, bundles.evaluated, substitutes.evaluated, cold.evaluated, pricing.evaluated)
"""All that measures itself, as `tandem evaluate` asks."""


def write(job: Job, *, thorough: bool = False) -> list[Measure]:
    """Replace the day's rows of evaluations, after what shoppers did was collected; gives them.

    The ranker and the quick baselines for all regions together, the baselines for each region; `thorough`: the ranker
    in each region too, every textbook ranking, more points of the frontier, and every part's own measures.
    """
    events.collect_all(job.settings, print)
    orders = order_files.packed(job).persist()
    learned = ranking.model(job, orders)
    rates = outcome_rates(job).select(*delta.names(MEASURED))
    rows = ranked(job, orders, learned, thorough=thorough).union(rates).collect()
    found = [measure for part in (PARTS if thorough else NIGHTLY) for measure in part(job)]
    found += [Measure(*row) for row in rows]
    table = _table(found)
    for name, day in (("as_of", job.as_of), ("learned_before", learned.first_asked)):
        table = table.append_column(name, pa.repeat(pa.scalar(day, pa.date32()), len(table)))
    delta.put_day(table, job.settings, "evaluations", job.as_of)
    return found


def ranked(job: Job, orders: DataFrame, learned: Learned, *, thorough: bool) -> DataFrame:
    """MEASURED of the rankings, everywhere and in each region. A task holds its level's orders, see `ranking`."""
    known = ranking.products(job, before=learned.first_asked, listed=False)
    judge = ranking.each_cell(_judge(job, learned, thorough))
    return ranking.in_cells(job, orders, known).mapInArrow(judge, MEASURED)


def _judge(job: Job, learned: Learned, thorough: bool) -> Callable[[str, int, pa.Table, pa.Table], pa.Table]:
    learning, tail_weight = job.rules.learning, job.rules.ranking.weight_of_tail
    day = days.number(learned.first_asked)

    def judge(region: str, block: int, packed: pa.Table, products: pa.Table) -> pa.Table:
        found = judged.judged(
            region,
            history(order_files.orders(packed, learning.max_basket), products),
            day,
            learned.model,
            damping=learning.popularity_damping,
            tail_weight=tail_weight,
            frontier=WHOLE_FRONTIER if thorough else FRONTIER,
            rank=thorough or region == ALL,
            more=baselines.BASELINES | {"als": _als} if thorough else {},
        )
        return _table(list(found))

    return judge


def _als(held: Postings) -> Ints:
    """Shape (products, 10): nearest by item factors of customers × products (Hu, Koren & Volinsky, ICDM 2008)."""
    orders = held.orders
    owner = np.repeat(orders.customer, orders.sizes)
    customers = int(orders.customer.max(initial=0)) + 1
    vectors = embeddings.factors(owner, orders.items, customers, orders.products)
    lists = np.full((orders.products, NDCG_FIRST), -1, np.int32)
    nothing = np.zeros(orders.products, np.int32)
    for item, other, _, _, rank in nearest(vectors, nothing, alike=NDCG_FIRST, others=1):
        lists[item, rank - 1] = other
    return lists


def _table(found: list[Measure]) -> pa.Table:
    text, number = pa.string(), pa.float64()
    kinds = (text, text, text, number, number, number, pa.int64())
    schema = pa.schema(list(zip(Measure._fields, kinds, strict=True)))
    return pa.Table.from_pylist([each._asdict() for each in found], schema)


def told(rows: list[Measure]) -> str:
    """The rankings of all regions together as text: side by side with their intervals, then the frontier."""
    everywhere = {row.metric: row for row in rows if row.region == ALL and row.segment == ALL}
    names = ("hit@5", "tail@5", "ndcg@10", "coverage")
    subjects = sorted(
        (metric.removeprefix("hit@5/") for metric in everywhere if metric.startswith("hit@5/")),
        key=lambda name: -everywhere[f"hit@5/{name}"].value,
    )
    lines = [f"{'ranking':<22}" + "".join(f"{name:>24}" for name in names)]
    lines += [_line(subject, [everywhere.get(f"{name}/{subject}") for name in names]) for subject in subjects]
    points = [metric.removeprefix("frontier_hit@5/") for metric in everywhere if metric.startswith("frontier_hit@5/")]
    points.sort(key=lambda point: float(point.rpartition("=")[2]))
    lines += [_line(point, [everywhere.get(f"frontier_{name}/{point}") for name in names]) for point in points]
    rest = sorted(row for row in rows if row.metric.partition("/")[0].removeprefix("frontier_") not in names)
    lines += ["", *(f"{row.region:<12} {row.segment:<16} {row.metric:<44}{_figure(row)}" for row in rest)]
    return "\n".join(lines)


def _line(name: str, found: list[Measure | None]) -> str:
    return f"{name:<22}" + "".join(f"{_figure(each) if each else '':>24}" for each in found)


def _figure(row: Measure) -> str:
    return f"{row.value:.4f} ({row.low:.4f} {row.high:.4f})" if row.low != row.high else f"{row.value:.4f}"


def outcome_rates(job: Job) -> DataFrame:
    """What became of the bundles shown in the last RATED_DAYS: clicks, carts and purchases per exposure, by region.

    Interval: Wilson 1927, JASA 22. A region in which nothing was shown has no rows.
    """
    cut = job.as_of - timedelta(days=RATED_DAYS)
    recent = (F.col("day") >= F.lit(cut)) & (F.col("day") < F.lit(job.as_of))
    shown = job.fact("exposures").where(recent).groupBy("region").agg(F.count("*").alias("queries"))
    done = job.fact("outcomes").where(recent).groupBy("region", "kind").agg(F.count("*").alias("done"))
    share = F.least(F.col("done") / F.col("queries"), F.lit(1.0))
    asked = F.col("queries")
    z2n = NORMAL_95**2 / asked
    centre, spread = share + z2n / 2, NORMAL_95 * F.sqrt((share * (1 - share) + z2n / 4) / asked)
    return shown.join(done, "region").select(
        "region",
        F.lit(ALL).alias("segment"),
        F.concat("kind", F.lit("_rate")).alias("metric"),
        share.alias("value"),
        F.greatest((centre - spread) / (1 + z2n), F.lit(0.0)).alias("low"),
        F.least((centre + spread) / (1 + z2n), F.lit(1.0)).alias("high"),
        "queries",
    )
