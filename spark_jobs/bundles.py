"""Bundles worth offering: sets of 2 to 4, counted exactly, with substitutes, and for each anchor its ranked list.

What a segment cannot support comes from its region, then from everywhere; every bundle says which (`matched`).
"""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pyarrow as pa
from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from spark_jobs import affinity, delta, facts, segments, substitutes
from spark_jobs.facts import Job
from spark_jobs.kernels import cells
from spark_jobs.kernels import sets as set_kernel
from tandem import config, release
from tandem.bundle import ID_LENGTH
from tandem.rules import Rules
from tandem.segments import ALL

CANDIDATES = 10
"""Companions of an anchor that sets are made of."""
LEVELS = ("segment", "region", "global")
COUNTED = """cell_region string, cell_segment string, anchor string, skus array<string>, orders_each array<long>,
orders_together long, customers_together long, lift double"""


def bundles_and_lists(job: Job) -> tuple[DataFrame, DataFrame]:
    """The day's `bundles` (still without discount and floors: pricing sets them) and `bundle_sets`."""
    members = delta.read_day(job.spark, job.settings, "segment_members", job.as_of)
    rows = affinity.in_cells(affinity.baskets(job), members)
    companions = candidates(job, delta.read_day(job.spark, job.settings, "affinity", job.as_of))
    counted = sets(job, rows, companions).persist()
    lists = ranked(job, with_evidence(job, targets(job, counted))).persist()
    release_id = release.release_id(job.as_of, job.inputs, config.digest(job.settings.config_folder))
    return _bundles(job, lists, release_id), _bundle_sets(job, lists, release_id)


def candidates(job: Job, pairs: DataFrame) -> DataFrame:
    """Pairs of `pairs` (affinity) that sets may be made of, the best CANDIDATES an anchor, with their categories.

    Both may be bundled, serve different needs (another category, no substitutes), go together more often than chance
    has it, and rest on enough orders; where orders are fewer, the factors must agree that their buyers are alike.
    """
    product = facts.catalogue(job).select("sku", F.coalesce("category", F.lit("")).alias("category"))
    alike = delta.read_day(job.spark, job.settings, "neighbours", job.as_of).where(~F.col("same_category"))
    agreed = alike.select(
        F.col("sku").alias("anchor"), F.col("neighbour").alias("companion"), F.lit(True).alias("agreed")
    )
    known = (
        substitutes.without(pairs, substitutes.of_day(job))
        .where(F.col("lift") > job.rules.pricing.min_lift)
        .join(product.toDF("anchor", "anchor_category"), "anchor")
        .join(product.toDF("companion", "category"), "companion")
        .where((F.col("anchor_category") != F.col("category")) | (F.col("category") == ""))
        .join(agreed, ["anchor", "companion"], "left")
        .where((F.col("orders_both") >= job.rules.learning.min_orders_together) | F.col("agreed"))
    )
    best = Window.partitionBy("region", "segment", "anchor").orderBy("rank")
    return (
        known.withColumn("place", F.row_number().over(best))
        .where(F.col("place") <= CANDIDATES)
        .select(
            F.col("region").alias("cell_region"),
            F.col("segment").alias("cell_segment"),
            "anchor",
            "companion",
            "category",
            "place",
        )
    )


def sets(job: Job, rows: DataFrame, companions: DataFrame) -> DataFrame:
    """Sets of every anchor with its candidates in every cell: columns of COUNTED, and bundle_id.

    Pairs as the candidates have them; larger sets need `min_orders_together` orders of the whole set. All rest on k
    distinct customers of the whole set, and no two components share a category.
    """
    cell = ["cell_region", "cell_segment"]
    found = rows.groupBy(cell).cogroup(companions.groupBy(cell)).applyInArrow(_counter(job), COUNTED)
    return found.withColumn("bundle_id", bundle_id(F.col("skus")))


def bundle_id(skus: Column) -> Column:
    """`tandem.bundle.bundle_id` of sorted SKUs, one of each, as a Spark column."""
    text = F.concat_ws("\n", F.transform(skus, lambda sku: F.concat(sku, F.lit("\t1"))))
    return F.substring(F.sha2(text, 256), 1, ID_LENGTH)


def _counter(job: Job) -> Callable[[tuple[pa.Scalar, ...], pa.Table, pa.Table], pa.Table]:
    k = {name: affinity.smallest_k(job, name) for name in (*job.regions.names, ALL)}
    rules = job.rules

    def count(key: tuple[pa.Scalar, ...], rows: pa.Table, companions: pa.Table) -> pa.Table:
        region, segment = (part.as_py() for part in key)
        return _count(region, segment, rows, companions, rules, k[region])

    return count


def _count(region: str, segment: str, rows: pa.Table, companions: pa.Table, rules: Rules, k: int) -> pa.Table:
    text, number = pa.string(), pa.int64()
    kinds = (text, text, text, pa.list_(text), pa.list_(number), number, number, pa.float64())
    schema = pa.schema(list(zip(delta.names(COUNTED), kinds, strict=True)))
    if not len(rows) or not len(companions):
        return schema.empty_table()
    cell = cells.cell(rows["customer"], rows["skus"])
    companions = companions.sort_by([("anchor", "ascending"), ("place", "ascending")])
    anchor, companion = (_number(cell, companions[name]) for name in ("anchor", "companion"))
    category = np.full(len(cell.skus), -1, np.int32)
    category[companion] = cells.codes(companions["category"])[0]
    anchors, starts = np.unique(anchor, return_index=True)
    found = set_kernel.count_sets(
        cell,
        anchors.astype(np.int32),
        np.append(starts, len(anchor)).astype(np.int64),
        companion,
        max_components=rules.bundling.max_components,
        min_customers=k,
    )
    size = (found.items >= 0).sum(1)
    keep = (size == 2) | (found.orders >= rules.learning.min_orders_together)
    keep &= _diverse(found.items, category, companions["category"])
    items, orders, customers, size = found.items[keep], found.orders[keep], found.customers[keep], size[keep]
    score = _scores(cell, items, orders, size, rules.learning.popularity_damping)
    best = _best(items[:, 0], score, 2 * rules.bundling.per_anchor)
    items, orders, customers, size = (values[best] for values in (items, orders, customers, size))
    arranged = np.sort(items, axis=1)
    held = arranged[arranged >= 0]
    ends = pa.array(np.concatenate(([0], np.cumsum(size))).astype(np.int32))
    return pa.table(
        [
            pa.array([region] * len(items), pa.string()),
            pa.array([segment] * len(items), pa.string()),
            cell.skus.take(pa.array(items[:, 0])),
            pa.ListArray.from_arrays(ends, cell.skus.take(pa.array(held))),
            pa.ListArray.from_arrays(ends, pa.array(cell.item_counts[held].astype(np.int64))),
            orders.astype(np.int64),
            customers.astype(np.int64),
            _lift(cell, arranged, orders),
        ],
        schema=schema,
    )


def _number(cell: cells.Cell, skus: pa.ChunkedArray) -> cells.Ints:
    import pyarrow.compute as pc

    return pc.index_in(skus.combine_chunks(), cell.skus).to_numpy().astype(np.int32)


def _diverse(items: cells.Ints, category: cells.Ints, names: pa.ChunkedArray) -> np.ndarray:
    """Which sets have no two companions of one category (products without a category differ from all)."""
    _, keys = cells.codes(names)
    unknown = np.flatnonzero(np.asarray([name == "" for name in keys.to_pylist()]))
    held = np.where(items[:, 1:] >= 0, category[items[:, 1:]], -1)
    held[np.isin(held, unknown)] = -1
    good = np.ones(len(items), bool)
    for x, y in ((0, 1), (0, 2), (1, 2)):
        good &= (held[:, x] != held[:, y]) | (held[:, x] < 0)
    return good


def _scores(cell: cells.Cell, items: cells.Ints, orders: cells.Ints, size: np.ndarray, damping: float) -> np.ndarray:
    """Companions expected, popular ones damped: (size - 1) · orders / (n_anchor · mean(n_companion^damping))."""
    counts = cell.item_counts.astype(np.float64)
    damped = np.where(items[:, 1:] >= 0, counts[items[:, 1:]] ** damping, 0.0).sum(1) / (size - 1)
    return (size - 1) * orders / (counts[items[:, 0]] * damped)


def _lift(cell: cells.Cell, arranged: cells.Ints, orders: cells.Ints) -> np.ndarray:
    """Orders together over what independent purchase would give: c · n^(size-1) / Π n_i."""
    counts = cell.item_counts.astype(np.float64)
    expected = np.where(arranged >= 0, counts[arranged] / cell.orders, 1.0).prod(1)
    return orders / cell.orders / expected


def _best(anchor: cells.Ints, score: np.ndarray, keep: int) -> np.ndarray:
    """Places of the `keep` best scores of each anchor; ties go to the set counted first."""
    order = np.lexsort((np.arange(len(score)), -score, anchor))
    firsts = np.flatnonzero(np.diff(anchor[order], prepend=-1))
    lengths = np.diff(np.append(firsts, len(order)))
    place = np.arange(len(order)) - np.repeat(firsts, lengths)
    return order[place < keep]


def targets(job: Job, counted: DataFrame) -> DataFrame:
    """Which sets may be listed where: region × segment × anchor × set with its level (0 segment, 1 region, 2 global).

    A region's own list (`*`) holds what the region and everything support. A published segment has a list of its own
    for the anchors that it supports at least one set of; elsewhere the region's list stands for it.
    """
    careful = job.spark.createDataFrame(
        [(region.name, region.k) for region in job.regions.region], "region string, k int"
    )
    here = (F.col("cell_region") == F.col("region")) | (F.col("cell_region") == ALL)
    level = F.when(F.col("cell_region") == ALL, 2).when(F.col("cell_segment") == ALL, 1).otherwise(0)
    usable = (
        counted.join(F.broadcast(careful), here)
        .where(F.col("customers_together") >= F.col("k"))
        .withColumn("level", level)
        .drop("k", "cell_region")
    )
    mine = usable.where(F.col("level") == 0).withColumnRenamed("cell_segment", "segment")
    own = mine.join(F.broadcast(segments.published(job)), ["region", "segment"], "left_semi")
    upper = usable.where(F.col("level") > 0).drop("cell_segment")
    supported = own.select("region", "segment", "anchor").distinct()
    return own.unionByName(upper.withColumn("segment", F.lit(ALL))).unionByName(
        upper.join(supported, ["region", "anchor"])
    )


def with_evidence(job: Job, targets: DataFrame) -> DataFrame:
    """Each listed set with the evidence of the finest level that supports it in its region and segment.

    One bundle tells one story in all lists of a segment: its orders, customers and lift are of that level, and each
    anchor's confidence and score are taken there too.
    """
    told = F.struct("skus", "orders_each", "orders_together", "customers_together", "lift")
    one = targets.groupBy("region", "segment", "bundle_id").agg(
        F.min("level").alias("level"), F.min_by(told, "level").alias("told"), F.collect_set("anchor").alias("anchors")
    )
    each = one.select("region", "segment", "bundle_id", "level", "told.*", F.explode("anchors").alias("anchor"))
    orders_anchor = F.element_at("orders_each", F.array_position("skus", F.col("anchor")).cast("int"))
    known = each.withColumn("confidence", F.col("orders_together") / orders_anchor)
    return known.withColumn("score", _score(job.rules.learning.popularity_damping, orders_anchor)).drop("orders_each")


def _score(damping: float, orders_anchor: Column) -> Column:
    """As `_scores`, of a set that is already chosen."""
    damped = F.aggregate("orders_each", F.lit(0.0), lambda total, orders: total + F.pow(orders, F.lit(damping)))
    others = F.size("skus") - 1
    mean = (damped - F.pow(orders_anchor, F.lit(damping))) / others
    return others * F.col("confidence") / mean


def ranked(job: Job, entries: DataFrame) -> DataFrame:
    """The `per_anchor` best entries of each list: finest evidence first, then score; `place` from 1."""
    best = Window.partitionBy("region", "segment", "anchor").orderBy("level", F.desc("score"), "bundle_id")
    return entries.withColumn("place", F.row_number().over(best)).where(F.col("place") <= job.rules.bundling.per_anchor)


def _matched() -> Column:
    return F.array(*[F.lit(name) for name in LEVELS])[F.col("level")]


def _bundle_sets(job: Job, lists: DataFrame, release_id: str) -> DataFrame:
    place = F.struct("place", "bundle_id", "confidence", _matched().alias("matched"))
    placed = lists.groupBy("region", "segment", "anchor").agg(F.array_sort(F.collect_list(place)).alias("placed"))
    return placed.select(
        F.lit(job.as_of).alias("as_of"),
        "region",
        "segment",
        "anchor",
        F.lit(release_id).alias("release_id"),
        F.transform("placed", lambda entry: F.struct(entry["bundle_id"], entry["confidence"], entry["matched"])).alias(
            "bundles"
        ),
    )


def _bundles(job: Job, lists: DataFrame, release_id: str) -> DataFrame:
    key = ["region", "segment", "bundle_id"]
    best = lists.groupBy(key).agg(F.max("score").alias("score"))
    listed = lists.drop("score", "anchor", "confidence", "place").dropDuplicates(key).join(best, key)
    parts = _parts(job, listed)
    currency = F.create_map(*[F.lit(part) for region in job.regions.region for part in (region.name, region.currency)])
    thin = F.col("orders_together") < job.rules.learning.min_orders_together
    evidence = F.struct(
        _matched().alias("matched"),
        F.when(thin, "factors").otherwise("counts").alias("basis"),
        "orders_together",
        "customers_together",
        "lift",
    )
    return listed.join(parts, "bundle_id").select(
        F.lit(job.as_of).alias("as_of"),
        "region",
        "segment",
        "bundle_id",
        F.lit(release_id).alias("release_id"),
        currency[F.col("region")].alias("currency"),
        "components",
        F.lit(0).alias("discount_bps"),
        "score",
        F.lit(None).cast("double").alias("expected_profit_cents"),
        evidence.alias("evidence"),
        F.lit(json.dumps(dict(sorted(job.inputs.items())))).alias("inputs"),
    )


def _parts(job: Job, listed: DataFrame) -> DataFrame:
    """The components of each bundle, by SKU, each with its substitutes."""
    sku = (
        listed.select("bundle_id", "skus")
        .dropDuplicates(["bundle_id"])
        .select("bundle_id", F.explode("skus").alias("sku"))
    )
    empty = F.array().cast("array<struct<sku:string,floor_cents:bigint>>")
    component = F.struct(
        "sku",
        F.lit(1).alias("quantity"),
        F.lit(None).cast("long").alias("floor_cents"),
        F.coalesce("substitutes", empty).alias("substitutes"),
    )
    return (
        sku.join(substitutes.repairs(job), "sku", "left")
        .groupBy("bundle_id")
        .agg(F.array_sort(F.collect_list(component), _by_sku).alias("components"))
    )


def _by_sku(left: Column, right: Column) -> Column:
    return F.when(left["sku"] < right["sku"], -1).when(left["sku"] > right["sku"], 1).otherwise(0)
