"""Which customer is in which segment, learned or by a predicate of segments.toml, and which segments are published."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import pyarrow as pa
from pyspark.errors import AnalysisException, ParseException
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from spark_jobs import cohorts, delta, trial
from spark_jobs.facts import Job
from spark_jobs.kernels import placebo
from spark_jobs.kernels.protocol import Measure
from tandem import config
from tandem.errors import ConfigError
from tandem.money import EXPONENTS
from tandem.segments import ALL, EVERYONE, Segment

BEHAVIOUR = ("recency_days", "frequency", "spend")


@dataclass(frozen=True)
class Made:
    """The rows of one day of segment_members, segment_models and segment_decisions."""

    members: DataFrame
    models: pa.Table
    decisions: DataFrame


def made(job: Job) -> Made:
    """All that is known of segments on the day: who is in which, what they are, which of them help.

    Raises ConfigError naming the segment whose predicate is no SQL or names what is not there.
    """
    orders = cohorts.orders(job).persist()
    baskets = cohorts.baskets(job, orders)
    attributes = _attributes(job).persist()
    matched = predicates(job, behaviour(job, orders), attributes)
    cut = cohorts.cuts(baskets)
    earlier = _matched_before(job, orders, attributes, cut)
    learned, assigned = _learned(job, baskets, cut)
    labels = matched.join(assigned, "customer_id", "left").persist()
    decided = trial.decisions(job, baskets, labels, earlier, cut, learned)
    return Made(_members(job, labels), cohorts.rows(job, learned), decided)


def members(job: Job) -> DataFrame:
    """One row per region and customer with an order in the window: segment_members."""
    return made(job).members


def published(job: Job) -> DataFrame:
    """The segments that have lists of their own on the day: region, segment, tilt. All others are served by `*`.

    tilt: how far the segment's own popularity goes into a ranking, see `tilted`.
    """
    decided = delta.read_day(job.spark, job.settings, "segment_decisions", job.as_of)
    return decided.where(F.col("published") & (F.col("region") != ALL)).select("region", "segment", "tilt")


def tilted(job: Job, ranked: DataFrame) -> DataFrame:
    """What `ranked` says of whole regions, as each published segment would have it: the same columns, other scores.

    `ranked` has region, segment, anchor, companion and score, a probability or in proportion to one; rows of `*` are
    taken. score · r^g, where r is how much more the segment buys the companion than its region does, see
    `kernels/placebo`; g was learned with the decision to publish.
    """
    shown = published(job)
    members = delta.read_day(job.spark, job.settings, "segment_members", job.as_of)
    belongs = members.join(F.broadcast(shown), ["region", "segment"], "left_semi")
    orders = cohorts.baskets(job, cohorts.orders(job)).persist()
    mine = orders.join(F.broadcast(belongs.select("region", "customer_id", "segment")), ["region", "customer_id"])
    size = mine.groupBy("region", "segment").agg(F.count("*").alias("orders_segment"))
    whole = orders.groupBy("region").agg(F.count("*").alias("orders_region"))
    sold = orders.select("region", F.explode("skus").alias("companion")).groupBy("region", "companion")
    held = mine.select("region", "segment", F.explode("skus").alias("companion"))
    known = (
        ranked.where(F.col("segment") == ALL)
        .drop("segment")
        .join(F.broadcast(shown.join(size, ["region", "segment"])), "region")
        .join(F.broadcast(whole), "region")
        .join(sold.agg(F.count("*").alias("orders_companion")), ["region", "companion"])
        .join(
            held.groupBy("region", "segment", "companion").agg(F.count("*").alias("orders_held")),
            ["region", "segment", "companion"],
            "left",
        )
    )
    share = F.col("orders_companion") / F.col("orders_region")
    holding = F.coalesce("orders_held", F.lit(0)) + placebo.TILT_PRIOR * share
    more = holding / (F.col("orders_segment") + placebo.TILT_PRIOR) / share
    return known.withColumn("score", F.col("score") * F.pow(more, "tilt")).select(*ranked.columns)


def evaluated(job: Job) -> list[Measure]:
    """What segment_decisions of the day say, as rows of evaluations: see `trial.measures`."""
    return trial.measures(delta.read_day(job.spark, job.settings, "segment_decisions", job.as_of).collect())


def _learned(job: Job, baskets: DataFrame, cut: tuple[int, int] | None) -> tuple[cohorts.Learned, DataFrame]:
    """The learned segments, and the learned segment of each customer by slice."""
    if not job.segments.learned.count:
        return cohorts.nothing(), job.spark.createDataFrame([], cohorts.ASSIGNED)
    bought = cohorts.bought(job, baskets, cut).persist()
    learned = cohorts.learn(job, bought)
    return learned, cohorts.assigned(job, bought, learned)


def _matched_before(job: Job, orders: DataFrame, attributes: DataFrame, cut: tuple[int, int] | None) -> list[DataFrame]:
    """The predicates' segments as they were known on each day of `cut`: region, customer_id, segment."""
    if cut is None or not job.segments.segment:
        return []
    found = [predicates(job, behaviour(job, orders, day), attributes) for day in cut]
    return [known.select("region", "customer_id", "segment") for known in found]


def _members(job: Job, labels: DataFrame) -> DataFrame:
    matched = F.when(F.col("segment") != EVERYONE, F.col("segment"))
    order = (F.col("whole"), matched) if job.segments.first == "learned" else (matched, F.col("whole"))
    return labels.select(
        F.lit(job.as_of).alias("as_of"),
        "region",
        F.coalesce(*order, F.lit(EVERYONE)).alias("segment"),
        "customer_id",
        "recency_days",
        "frequency",
        "spend_cents",
    )


def predicates(job: Job, behaviour: DataFrame, attributes: DataFrame) -> DataFrame:
    """`behaviour` with the `segment` whose predicate over it and `attributes` matches first.

    Raises ConfigError naming the segment whose predicate is no SQL or names what is not there.
    """
    known = behaviour.join(attributes, "customer_id", "left")
    segment = F.lit(EVERYONE)
    for wanted in reversed(job.segments.segment):
        if not set(wanted.requires) <= set(known.columns):
            continue
        segment = F.when(_predicate(job, wanted, known), F.lit(wanted.name)).otherwise(segment)
    return known.select(*behaviour.columns, segment.alias("segment"))


def behaviour(job: Job, orders: DataFrame, before: int | None = None) -> DataFrame:
    """Recency, frequency and spend per region and customer before the day `before` (from 1970; default: as_of).

    Of `cohorts.orders`; `spend` is in major units.
    """
    end = (job.as_of - date(1970, 1, 1)).days if before is None else before
    units = [F.lit(part) for region in job.regions.region for part in (region.name, 10 ** EXPONENTS[region.currency])]
    scale = F.create_map(*units)
    known = orders.where(F.col("customer_id").isNotNull() & (F.col("day") < end))
    return known.groupBy("region", "customer_id").agg(
        (F.lit(end) - F.max("day")).alias("recency_days"),
        F.count_if("bought").alias("frequency"),
        F.sum("net_cents").alias("spend_cents"),
        (F.sum("net_cents") / F.first(scale[F.col("region")])).alias("spend"),
    )


def _attributes(job: Job) -> DataFrame:
    """One column per attribute of the customers file."""
    pairs = job.fact("customers").select("customer_id", F.explode("attributes").alias("pair"))
    names = [row.name for row in pairs.select("pair.name").distinct().orderBy("name").collect()]
    return (
        pairs.select("customer_id", "pair.name", "pair.value")
        .groupBy("customer_id")
        .pivot("name", [name for name in names if name not in (*BEHAVIOUR, "customer_id")])
        .agg(F.first("value"))
    )


def _predicate(job: Job, segment: Segment, known: DataFrame) -> Column:
    predicate = F.expr(segment.where)
    try:
        kind = known.select(predicate.alias("holds")).schema["holds"].dataType.simpleString()
    except (AnalysisException, ParseException) as error:
        wrong = next(line for line in str(error).splitlines() if line.strip())
        raise ConfigError(_mend(job, segment, known, wrong)) from error
    if kind != "boolean":
        raise ConfigError(_mend(job, segment, known, f"gives {kind}, not true or false"))
    return F.coalesce(predicate, F.lit(False))


def _mend(job: Job, segment: Segment, known: DataFrame, wrong: str) -> str:
    path = config.path_of(job.settings.config_folder, "segments.toml")
    usable = ", ".join(sorted(set(known.columns) - {"customer_id", "region", "spend_cents"}))
    return f"{path}: key segment {segment.name!r} where: {wrong}; columns it may use: {usable}"
