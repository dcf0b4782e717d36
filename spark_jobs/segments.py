"""Which customer is in which segment: predicates of segments.toml over attributes and behaviour, first match wins."""

from __future__ import annotations

from pyspark.errors import AnalysisException, ParseException
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from spark_jobs import facts
from spark_jobs.facts import Job
from tandem import config
from tandem.errors import ConfigError
from tandem.money import EXPONENTS
from tandem.segments import EVERYONE, Segment

BEHAVIOUR = ("recency_days", "frequency", "spend")


def members(job: Job) -> DataFrame:
    """One row per region and customer with an order in the window: segment_members.

    Raises ConfigError naming the segment whose predicate is no SQL or names what is not there.
    """
    known = behaviour(job).join(_attributes(job), "customer_id", "left")
    segment = F.lit(EVERYONE)
    for wanted in reversed(job.segments.segment):
        if not set(wanted.requires) <= set(known.columns):
            continue
        segment = F.when(_predicate(job, wanted, known), F.lit(wanted.name)).otherwise(segment)
    return known.select(
        F.lit(job.as_of).alias("as_of"),
        "region",
        segment.alias("segment"),
        "customer_id",
        "recency_days",
        "frequency",
        "spend_cents",
    )


def behaviour(job: Job) -> DataFrame:
    """Recency, frequency and spend per region and customer over the window; `spend` is in major units."""
    bought = facts.lines(job, window_days=job.segments.window_days).where(F.col("customer_id").isNotNull())
    units = [F.lit(part) for region in job.regions.region for part in (region.name, 10 ** EXPONENTS[region.currency])]
    scale = F.create_map(*units)
    return bought.groupBy("region", "customer_id").agg(
        F.date_diff(F.lit(job.as_of), F.max(F.col("ordered_at")).cast("date")).alias("recency_days"),
        F.count_distinct(F.when(F.col("quantity") > 0, F.col("order_id"))).alias("frequency"),
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
