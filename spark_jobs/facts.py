"""What jobs learn from: the facts before a day, as pinned, with what must not be learned from left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from spark_jobs.delta import read
from tandem.regions import Regions
from tandem.rules import Rules
from tandem.segments import Segments
from tandem.settings import Settings


@dataclass(frozen=True)
class Job:
    """What every job is given."""

    spark: SparkSession
    settings: Settings
    as_of: date
    inputs: Mapping[str, int]
    regions: Regions
    segments: Segments
    rules: Rules

    def fact(self, table: str) -> DataFrame:
        return read(self.spark, self.settings, table, self.inputs)


def lines(job: Job, *, window_days: int, before: date | None = None) -> DataFrame:
    """Lines of orders in the `window_days` before `before` (default: as_of), of regions.toml's regions.

    In a region that asks for consent, orders of customers who did not give it to every purpose named are left out;
    orders without a customer are nobody's and stay.
    """
    end = before or job.as_of
    found = job.fact("sales_lines").where(
        (F.col("ordered_at") < F.lit(end).cast("timestamp"))
        & (F.col("ordered_at") >= F.lit(end - timedelta(days=window_days)).cast("timestamp"))
        & F.col("region").isin(job.regions.names)
    )
    for region in job.regions.region:
        if region.consent_purposes:
            asked = F.array(*[F.lit(purpose) for purpose in region.consent_purposes])
            willing = job.fact("customers").where(F.size(F.array_except(asked, "consents")) == 0).select("customer_id")
            elsewhere = found.where((F.col("region") != region.name) | F.col("customer_id").isNull())
            here = found.where(F.col("region") == region.name).join(willing, "customer_id", "left_semi")
            found = elsewhere.unionByName(here)
    return found


def catalogue(job: Job) -> DataFrame:
    """Products that may be bundled: sku, category, brand, title, and cost and minimum price with their currency."""
    bundling = job.rules.bundling
    levels = F.split(F.coalesce("category", F.lit("")), " > ")
    excluded = F.arrays_overlap(levels, F.array(*[F.lit(name) for name in bundling.exclude_categories or [""]]))
    keep = F.col("active") & ~F.col("sku").isin(bundling.exclude_skus)
    if bundling.exclude_categories:
        keep &= ~excluded
    return job.fact("products").where(keep)
