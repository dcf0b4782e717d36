"""Thin and cold products: every product that may be bundled gets an answer, and the answer says what it rests on.

Counts come first (segment, region, global: `bundles`). Where no set of a product has k customers, the products most
like it answer: `category` where these are of its own finest category, else `content`. Where nothing is known of it
either, what is popular in the region does (`popular`).

Rule 7 for these: a pair says that the companion was bought by at least k distinct customers together with products of
the kind, or at all; the product's own few orders have no say, so no basket shows through. `orders_together` is 0, as
nothing is claimed of the two together; `customers_together` are the customers of that level. There is no discount.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from spark_jobs import delta, facts, forbidden, order_files, substitutes
from spark_jobs.facts import Job
from spark_jobs.kernels import content, later, protocol, votes
from spark_jobs.kernels import shelf as shelves
from spark_jobs.kernels.cells import Cell, Ints
from spark_jobs.kernels.protocol import Measure
from spark_jobs.kernels.shelf import Shelf
from tandem import config, release
from tandem.bundle import LEVELS
from tandem.rules import Cold, Rules
from tandem.segments import ALL

ANSWERS = """region string, anchor string, companion string, level int, confidence double, customers long,
lift double, place int"""


def completed(job: Job, made: DataFrame, lists: DataFrame) -> tuple[DataFrame, DataFrame]:
    """`made` (rows of `bundles`) and `lists` (of `bundle_sets`) with answers for the products that have no list."""
    made, lists = made.persist(), lists.persist()
    found = _told_once(forbidden.possible(job, answers(job, missing(job, lists))), made).persist()
    return made.unionByName(_bundles(job, found, made)), lists.unionByName(_lists(job, found))


def missing(job: Job, lists: DataFrame) -> DataFrame:
    """region, sku of the products that may be bundled and have no list for the whole region."""
    regions = job.spark.createDataFrame([(name,) for name in job.regions.names], "region string")
    listed = lists.where((F.col("segment") == ALL) & (F.size("bundles") > 0))
    every = facts.catalogue(job).select("sku").crossJoin(F.broadcast(regions))
    return every.join(listed.select("region", F.col("anchor").alias("sku")), ["region", "sku"], "left_anti")


def answers(job: Job, asked: DataFrame) -> DataFrame:
    """ANSWERS for `asked` (region, sku). One task: about 120 bytes a line of an order, 300 a product."""
    every = job.spark.createDataFrame([(name,) for name in job.regions.names], "region string")
    priced = job.fact("prices").join(every, "region").groupBy("sku").agg(F.collect_set("region").alias("priced"))
    wanted = asked.groupBy("sku").agg(F.collect_set("region").alias("asked"))
    none = F.array().cast("array<string>")
    products = (
        substitutes.described(job)
        .join(priced, "sku", "left")
        .join(wanted, "sku", "left")
        .withColumns({name: F.coalesce(name, none) for name in ("priced", "asked")})
    )
    bought = substitutes.in_one(order_files.packed(job))
    return bought.cogroup(substitutes.in_one(products)).applyInArrow(_answerer(job), ANSWERS)


def _answerer(job: Job) -> Callable[[pa.Table, pa.Table], pa.Table]:
    k = {region.name: region.k for region in job.regions.region}
    rules = job.rules

    def answer(packed: pa.Table, products: pa.Table) -> pa.Table:
        bought = order_files.orders(packed, rules.learning.max_basket)
        held = shelves.shelf(bought, products)
        return pa.concat_tables(list(_answers(held, bought, products, k, rules)) or [_table([], held)])

    return answer


def _answers(held: Shelf, bought: pa.Table, products: pa.Table, k: dict[str, int], rules: Rules) -> Iterator[pa.Table]:
    row = pc.index_in(products["sku"], held.cell.skus).to_numpy()
    asked = {region: _marked(held, row, products["asked"], region) for region in k}
    anchors = np.flatnonzero(np.any(list(asked.values()), axis=0)).astype(np.int32)
    if not len(anchors) or not len(bought):
        return
    found, level = by_likeness(held, read(held, anchors), anchors, min(k.values()), rules)
    for region, careful in k.items():
        priced = _marked(held, row, products["priced"], region)
        here = asked[region][anchors]
        fine = (found.companion >= 0) & (found.customers >= careful) & priced[np.maximum(found.companion, 0)]
        best = _first(votes.Votes(*(part[here] for part in found)), fine[here], rules.cold.per_anchor)
        kept = level[here]
        nothing = best.companion[:, 0] < 0
        if nothing.any():
            common = by_popularity(held, anchors[here][nothing], bought["region"], region, priced, careful, rules)
            for part, instead in zip(best, common, strict=True):
                part[nothing] = instead
            kept[nothing] = votes.POPULAR
        yield _table([(region, anchors[here], kept, best)], held)


def _marked(held: Shelf, row: NDArray[np.int64], regions: pa.ChunkedArray, region: str) -> NDArray[np.bool_]:
    """Which items of the shelf have `region` among their `regions`; row: number of each product."""
    lists = regions.combine_chunks()
    owner = pc.list_parent_indices(lists).to_numpy()
    marked = np.zeros(len(held.usable), bool)
    marked[row[owner[pc.equal(pc.list_flatten(lists), region).to_numpy(zero_copy_only=False)]]] = True
    return marked


def read(held: Shelf, anchors: Ints) -> content.Vectors:
    """What is written of `anchors` and of those who may vote."""
    wanted = held.usable & (held.cell.item_counts >= votes.MIN_ORDERS)
    wanted[anchors] = True
    return content.vectors(held.facts, wanted)


def by_likeness(
    held: Shelf, written: content.Vectors, anchors: Ints, min_customers: int, rules: Rules
) -> tuple[votes.Votes, Ints]:
    """What the products most like each of `anchors` are bought with, and each anchor's level; see `kernels.votes`."""
    orders = np.where(held.usable, held.cell.item_counts, 0).astype(np.int32)
    near, likeness = content.similar(written, orders, votes.MIN_ORDERS, votes.VOTERS, anchors)
    voters, level = votes.voters(anchors, near, likeness, held.category)
    found = votes.votes(
        held.cell,
        anchors,
        voters,
        likeness,
        usable=held.usable,
        category=held.category,
        min_customers=min_customers,
        min_lift=rules.pricing.min_lift,
        top=rules.cold.per_anchor + votes.SPARE,
    )
    return found, level


def by_popularity(
    held: Shelf,
    anchors: Ints,
    order_region: pa.ChunkedArray,
    region: str,
    priced: NDArray[np.bool_],
    min_customers: int,
    rules: Rules,
) -> votes.Votes:
    """What is most bought in `region`, or everywhere where the region has nothing that enough customers bought."""
    sellable = held.usable & priced
    for orders in (_of_region(held, order_region, region), held.cell):
        counts = np.where(sellable, orders.item_counts, 0)
        found = votes.popular(
            anchors,
            counts,
            votes.buyers(orders),
            orders.orders,
            category=held.category,
            min_customers=min_customers,
            top=rules.cold.per_anchor,
        )
        if (found.companion[:, 0] >= 0).any():
            break
    return found


def _of_region(held: Shelf, order_region: pa.ChunkedArray, region: str) -> Cell:
    here = pc.equal(order_region, region).to_numpy(zero_copy_only=False)
    return shelves.part(held.cell, here[held.given])


def _first(found: votes.Votes, fine: NDArray[np.bool_], top: int) -> votes.Votes:
    """The first `top` of each row that are `fine`."""
    place = np.where(fine, np.cumsum(fine, axis=1) - 1, top)
    kept = votes.Votes(
        np.full((len(fine), top), -1, np.int32), np.zeros((len(fine), top)), np.zeros((len(fine), top), np.int32)
    )
    row, column = np.nonzero(place < top)
    for part, source in zip(kept, found, strict=True):
        part[row, place[row, column]] = source[row, column]
    return kept


def _table(answered: list[tuple[str, Ints, Ints, votes.Votes]], held: Shelf) -> pa.Table:
    """Rows of ANSWERS."""
    skus = held.cell.skus.cast(pa.string())
    kinds = (pa.string(), pa.string(), pa.string(), pa.int32(), pa.float64(), pa.int64(), pa.float64(), pa.int32())
    schema = pa.schema(list(zip(delta.names(ANSWERS), kinds, strict=True)))
    tables = [schema.empty_table()]
    popularity = held.cell.item_counts / max(held.cell.orders, 1)
    for region, anchors, level, found in answered:
        row, place = np.nonzero(found.companion >= 0)
        companion, share = found.companion[row, place], found.share[row, place]
        lift = np.where(level[row] == votes.POPULAR, 1.0, share / np.maximum(popularity[companion], 1e-12))
        columns = (
            pa.array([region] * len(row), pa.string()),
            skus.take(pa.array(anchors[row])),
            skus.take(pa.array(companion)),
            level[row],
            share,
            found.customers[row, place].astype(np.int64),
            lift,
            (place + 1).astype(np.int32),
        )
        tables.append(pa.table(list(columns), schema=schema))
    return pa.concat_tables(tables)


def _told_once(found: DataFrame, made: DataFrame) -> DataFrame:
    """`found` with one story for each bundle of a region, whoever lists it: its own counts where there are any.

    Adds bundle_id, matched, basis, orders_together, customers_together and score; `counted` where the bundle is made.
    """
    from spark_jobs.bundles import bundle_id

    pair = F.array_sort(F.array("anchor", "companion"))
    level = F.array(*[F.lit(name) for name in LEVELS])[F.col("level")]
    told = F.struct(
        level.alias("matched"),
        level.alias("basis"),
        F.lit(0).cast("long").alias("orders_together"),
        F.col("customers").alias("customers_together"),
        "lift",
    )
    rows = found.withColumn("bundle_id", bundle_id(pair)).withColumn("skus", pair).withColumn("told", told)
    same = Window.partitionBy("region", "bundle_id").orderBy("level", "anchor")
    counted = made.where(F.col("segment") == ALL).select("region", "bundle_id", F.col("evidence").alias("counted"))
    joined = rows.withColumn("told", F.first("told").over(same)).join(counted, ["region", "bundle_id"], "left")
    return joined.withColumn("evidence", F.coalesce("counted", "told"))


def _bundles(job: Job, found: DataFrame, made: DataFrame) -> DataFrame:
    """Rows of `bundles` for what is not made yet."""
    new = found.where(F.col("counted").isNull())
    best = new.groupBy("region", "bundle_id").agg(
        F.first("skus").alias("skus"), F.first("evidence").alias("evidence"), F.max("confidence").alias("score")
    )
    currency = F.create_map(*[F.lit(part) for region in job.regions.region for part in (region.name, region.currency)])
    return best.join(_components(job, best), "bundle_id").select(
        F.lit(job.as_of).alias("as_of"),
        "region",
        F.lit(ALL).alias("segment"),
        "bundle_id",
        F.lit(_release_id(job)).alias("release_id"),
        currency[F.col("region")].alias("currency"),
        F.col("components").cast(made.schema["components"].dataType).alias("components"),
        F.lit(0).alias("discount_bps"),
        "score",
        F.lit(None).cast("double").alias("expected_profit_cents"),
        F.lit(None).cast(made.schema["pricing"].dataType).alias("pricing"),
        "evidence",
        F.lit(json.dumps(dict(sorted(job.inputs.items())))).alias("inputs"),
    )


def _components(job: Job, bundles: DataFrame) -> DataFrame:
    """bundle_id, components: by SKU, each with its substitutes."""
    sku = bundles.dropDuplicates(["bundle_id"]).select("bundle_id", F.posexplode("skus").alias("place", "sku"))
    empty = F.array().cast("array<struct<sku:string,floor_cents:bigint>>")
    component = F.struct(
        "place",
        "sku",
        F.lit(1).alias("quantity"),
        F.lit(None).cast("long").alias("floor_cents"),
        F.coalesce("substitutes", empty).alias("substitutes"),
    )
    placed = F.array_sort(F.collect_list(component))
    parts = F.transform(
        placed, lambda part: F.struct(part["sku"], part["quantity"], part["floor_cents"], part["substitutes"])
    )
    return sku.join(substitutes.repairs(job), "sku", "left").groupBy("bundle_id").agg(parts.alias("components"))


def _lists(job: Job, found: DataFrame) -> DataFrame:
    """Rows of `bundle_sets`."""
    place = F.struct("place", "bundle_id", "confidence", F.col("evidence.matched").alias("matched"))
    placed = F.array_sort(F.collect_list(place))
    return (
        found.groupBy("region", "anchor")
        .agg(placed.alias("placed"))
        .select(
            F.lit(job.as_of).alias("as_of"),
            "region",
            F.lit(ALL).alias("segment"),
            "anchor",
            F.lit(_release_id(job)).alias("release_id"),
            F.transform("placed", lambda each: F.struct(each["bundle_id"], each["confidence"], each["matched"])).alias(
                "bundles"
            ),
        )
    )


def _release_id(job: Job) -> str:
    return release.release_id(job.as_of, job.inputs, config.digest(job.settings.config_folder))


def evaluated(job: Job) -> list[Measure]:
    """Rows of `evaluations`: a tenth of the known products lose their history; do later orders hold what is answered?

    hit@5 and tail@5 as `kernels.protocol` has them, of those products as anchors: `cold` by share alone, as rankings
    are judged; `cold_content` with their categories hidden too; `cold_bundles` as published (other needs only, no less
    than chance); against what is popular (`cold_popularity`), also in their own category (`cold_category_popularity`).
    `answered/cold`: share of them that get an answer.
    """
    rules, k = job.rules, max(region.k for region in job.regions.region)
    return substitutes.asked_later(job, lambda found: judged(found, rules, k))


def judged(split: later.Split, rules: Rules, min_customers: int) -> Iterator[tuple[str, protocol.Estimate]]:
    """Each measure of `evaluated` with its estimate."""
    trial = protocol.trial_of(split.before, split.after)
    known = trial.known[split.held.usable[trial.known]]
    if not len(known) or not len(trial.asked.anchor):
        return
    hidden = later.hidden(known)
    held = split.held._replace(cell=later.without_items(split.held.cell, hidden))
    told = msgspec.structs.replace(rules, cold=Cold(per_anchor=protocol.NDCG_FIRST))
    freely = msgspec.structs.replace(told, pricing=msgspec.structs.replace(rules.pricing, min_lift=0.0))
    untold = held._replace(facts=held.facts._replace(categories=[""] * len(held.usable)))
    anything = held._replace(category=np.full(len(held.usable), -1, np.int32))
    counts = np.where(held.usable, held.cell.item_counts, 0).astype(np.int32)
    top, written = protocol.NDCG_FIRST, read(held, hidden)
    rankings = {
        "cold": everything(anything, written, hidden, min_customers, freely),
        "cold_content": everything(anything, read(untold, hidden), hidden, min_customers, freely),
        "cold_bundles": everything(held, written, hidden, min_customers, told),
        "cold_popularity": np.tile(protocol.popular(counts, top), (len(hidden), 1)),
        "cold_category_popularity": later.popular_of_category(counts, held.category, held.usable, top)[hidden],
    }
    hits = {name: _asked(trial, hidden, lists) for name, lists in rankings.items()}
    mask = np.isin(trial.known[trial.asked.anchor], hidden)
    measures = {f"{name}/{subject}": each[mask] for subject, part in hits.items() for name, each in part.items()}
    measures["hit@5/cold_over_popularity"] = measures["hit@5/cold"] - measures["hit@5/cold_popularity"]
    yield from protocol.estimates(measures, trial.asked.customer[mask]).items()
    share = float((rankings["cold_bundles"][:, 0] >= 0).mean())
    yield "answered/cold", protocol.Estimate(share, share, share, len(hidden))


def everything(held: Shelf, written: content.Vectors, anchors: Ints, min_customers: int, rules: Rules) -> Ints:
    """Shape (anchors, per_anchor): companions of each as `answers` gives them, all regions as one; -1 none."""
    found, _ = by_likeness(held, written, anchors, min_customers, rules)
    common = votes.popular(
        anchors,
        np.where(held.usable, held.cell.item_counts, 0),
        votes.buyers(held.cell),
        held.cell.orders,
        category=held.category,
        min_customers=min_customers,
        top=rules.cold.per_anchor,
    )
    own = found.companion[:, : rules.cold.per_anchor]
    return np.where(own[:, :1] >= 0, own, common.companion)


def _asked(trial: protocol.Trial, anchors: Ints, companions: Ints) -> dict[str, NDArray[np.float64]]:
    """Hits and hits in the tail of every query; only those of `anchors` mean anything."""
    lists = np.full((len(trial.known), companions.shape[1]), -1, np.int32)
    numbers = np.where(companions >= 0, trial.number[np.maximum(companions, 0)], -1)
    lists[trial.number[anchors]] = _packed(numbers)
    answers = protocol.ask(trial.asked, lists)
    return {"hit@5": answers.hit, "tail@5": answers.tail}


def _packed(lists: Ints) -> Ints:
    """The same rows with what is missing (-1) at their ends."""
    return np.take_along_axis(lists, np.argsort(lists < 0, axis=1, kind="stable"), axis=1)
