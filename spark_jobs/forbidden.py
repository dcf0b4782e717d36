"""Which pairs merchandising rules forbid, in Spark: for answers that are not made from counted sets."""

from __future__ import annotations

from functools import reduce

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from spark_jobs import facts
from spark_jobs.facts import Job
from tandem.merchandising import FORBIDS, LEVEL
from tandem.rules import Rule, Selector
from tandem.segments import ALL


def possible(job: Job, pairs: DataFrame) -> DataFrame:
    """Those of `pairs` (region, anchor, companion, further columns) that may stand in a region's own lists.

    As `merchandising.possible` has it of bundles of the two; both are in the catalogue of what may be bundled.
    """
    held = [rule for rule in job.rules.rule if rule.holds_on(job.as_of) and rule.action in (*FORBIDS, "always_with")]
    here = [rule for rule in held if ALL in (rule.segments or [ALL])]
    if not here:
        return pairs
    product = facts.catalogue(job).select("sku", "brand", F.split(F.coalesce("category", F.lit("")), LEVEL))
    known = pairs.join(product.toDF("anchor", "_brand", "_levels"), "anchor").join(
        product.toDF("companion", "_other_brand", "_other_levels"), "companion"
    )
    wrong = reduce(Column.__or__, [_inside(rule) & _forbids(rule) for rule in here])
    return known.where(~wrong).select(*pairs.columns)


def _inside(rule: Rule) -> Column:
    return F.col("region").isin(rule.regions) if rule.regions else F.lit(True)


def _forbids(rule: Rule) -> Column:
    anchor, other = _names(rule.products, "anchor", "_"), _names(rule.products, "companion", "_other_")
    if rule.companions is None:
        return anchor | other
    with_anchor, with_other = _names(rule.companions, "anchor", "_"), _names(rule.companions, "companion", "_other_")
    if rule.action == "always_with":
        return (anchor & ~with_other) | (other & ~with_anchor)
    return (anchor & with_other) | (other & with_anchor)


def _names(selector: Selector, sku: str, prefix: str) -> Column:
    wanted = F.array(*[F.lit(name) for name in selector.category]).cast("array<string>")
    named = F.col(sku).isin(selector.sku) | F.arrays_overlap(F.col(f"{prefix}levels"), wanted)
    return named | F.coalesce(F.col(f"{prefix}brand").isin(selector.brand), F.lit(False))
