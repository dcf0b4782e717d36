"""Bundles worth offering: sets of 2 to 4, counted exactly, with substitutes, and for each anchor its ranked list.

Workers read the files of sales_lines themselves and send packed orders to one task for each region and one for
everything, which mine the sets of their cells; each window of the shop (a segment of a region, or the region) gets its
lists in a task of its own, from the sets of its segment, its region and everything. What a segment cannot support
comes from its region, then from everywhere; every bundle says which (`matched`). What merchandisers ask for wins over
what the orders say (docs/merchandising.md).

Memory: a task that mines holds its orders (about 75 bytes a line), the catalogue (140 bytes a product) and what is
frequent (16 bytes a pair, 24 a set); the task of a window about 400 bytes for each set that its three levels kept, at
most PAIRS_KEPT + SETS_KEPT for each anchor and level.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Iterable, Iterator

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from spark_jobs import affinity, delta, facts, order_files, segments, substitutes
from spark_jobs.facts import Job
from spark_jobs.kernels import bundling, completion, cut, lines
from spark_jobs.kernels import shop as shops
from spark_jobs.kernels.protocol import Measure
from spark_jobs.kernels.shop import Shop
from tandem import config, merchandising, release
from tandem import rules as rules_file
from tandem.bundle import ID_LENGTH
from tandem.segments import ALL
from warehouse.tables import TABLES

PACKED = "cell_region string, cell_segment string, kind string, packed binary"
"""A value of a cell: orders of it (a pickled `lines.Part`), its sets, its preferred companions or the catalogue (each
in Arrow's stream format)."""
ORDERS, SETS, PREFERRED, SHOP = "orders", "sets", "preferred", "shop"
KNOWN = "kind string, packed binary, findings array<string>"
LISTED = """region string, segment string, anchor string,
bundles array<struct<bundle_id:string,confidence:double,matched:string>>, bundle_id string,
components array<struct<sku:string,quantity:int,floor_cents:bigint,
substitutes:array<struct<sku:string,floor_cents:bigint>>>>, score double,
evidence struct<matched:string,basis:string,orders_together:bigint,customers_together:bigint,lift:double>"""
PREFERRED_FIRST = 20
"""Of the ranker's companions, so many say in which order an anchor's pairs stand."""
SPARE = 3
"""Substitutes that are looked at beyond those kept: they come in where a rule forbids one."""


def bundles_and_lists(job: Job) -> tuple[DataFrame, DataFrame]:
    """The day's `bundles` (still without discount and floors: pricing sets them) and `bundle_sets`.

    Prints which merchandising rules contradict each other or match nothing.
    """
    known = catalogue(job).persist()
    for row in known.select(F.explode("findings").alias("text")).collect():
        print(row.text)  # noqa: T201 - the job's log is where a merchandiser finds it
    windows = [
        *((region, ALL) for region in job.regions.names),
        *((row.region, row.segment) for row in segments.published(job).collect()),
    ]
    sets = mined(job, packed(job), known, windows).persist()
    lists = listed(job, sets, candidates(job), known).persist()
    release_id = release.release_id(job.as_of, job.inputs, config.digest(job.settings.config_folder))
    return _bundles(job, lists, release_id), _bundle_sets(job, lists, release_id)


def catalogue(job: Job) -> DataFrame:
    """One row of KNOWN: the products that may be bundled, with what rules say of them, and findings about the rules."""
    nothing = F.lit(None).cast("string")
    price_cents = F.coalesce("sale_price_cents", "list_price_cents")
    category = F.coalesce("category", F.lit(""))
    near = delta.read_day(job.spark, job.settings, "neighbours", job.as_of)
    agreed = near.where(~F.col("same_category"))
    instead = substitutes.of_day(job)
    alike = instead.where(F.col("rank") <= job.rules.bundling.substitutes + SPARE)
    parts = (
        facts.catalogue(job).select(F.lit("product"), "sku", category, "brand", F.lit(None).cast("long")),
        job.fact("prices").select(F.lit("price"), "sku", "region", nothing, price_cents),
        alike.select(F.lit("alike"), "sku", "substitute", nothing, F.col("rank").cast("long")),
        instead.where("apart").select(F.lit("apart"), "sku", "substitute", nothing, F.col("rank").cast("long")),
        agreed.select(F.lit("agreed"), "sku", "neighbour", nothing, F.col("rank").cast("long")),
    )
    rows = parts[0]
    for part in parts[1:]:
        rows = rows.union(part)
    return rows.toDF(*shops.SCHEMA.names).groupBy(F.lit(SHOP)).applyInArrow(_cataloguer(job), KNOWN)


def _cataloguer(job: Job) -> Callable[[pa.Table], pa.Table]:
    rules, places = job.rules.rule, _rule_lines(job)
    day, regions = job.as_of, job.regions.names

    def gather(rows: pa.Table) -> pa.Table:
        rows = rows.select(shops.SCHEMA.names)
        resolved = merchandising.resolve(rules, places, shops.products(rows), day)
        findings = [str(finding) for finding in merchandising.findings(resolved, regions)]
        packed = shops.to_bytes(shops.with_rules(rows, resolved))
        columns = ([SHOP], pa.array([packed], pa.binary()), pa.array([findings], pa.list_(pa.string())))
        return pa.table(dict(zip(delta.names(KNOWN), columns, strict=True)))

    return gather


def packed(job: Job) -> DataFrame:
    """The window's orders as rows of PACKED, each file's once for its region and once for everything."""
    level = F.explode(F.array("region", F.lit(ALL))).alias("cell_region")
    read = order_files.packed(job, in_segments=True)
    return read.select(level, F.lit(ALL).alias("cell_segment"), F.lit(ORDERS).alias("kind"), "packed")


def mined(job: Job, orders: DataFrame, known: DataFrame, windows: Iterable[tuple[str, str]]) -> DataFrame:
    """The sets of `windows` (region, segment) and of everything, a row of PACKED each; see `kernels.bundling.mined`."""
    places = job.spark.createDataFrame([(name,) for name in (*job.regions.names, ALL)], "cell_region string")
    everywhere = places.crossJoin(known.select(F.lit(ALL).alias("cell_segment"), "kind", "packed"))
    return (
        orders.unionByName(everywhere).groupBy("cell_region").applyInArrow(_miner(job, {*windows, (ALL, ALL)}), PACKED)
    )


def _miner(job: Job, wanted: set[tuple[str, str]]) -> Callable[[tuple[pa.Scalar, ...], pa.Table], pa.Table]:
    k = {name: affinity.smallest_k(job, name) for name in (*job.regions.names, ALL)}
    rules, held = job.rules, _holding(job)
    learning = rules.learning
    decay = lines.decay(job.as_of, learning.window_days, learning.half_life_days)

    def mine(key: tuple[pa.Scalar, ...], rows: pa.Table) -> pa.Table:
        region, values = key[0].as_py(), _values(rows)
        found: list[tuple[str, str, str, bytes]] = []
        if ORDERS in values:
            parts = [pickle.loads(value) for value in values[ORDERS]]  # noqa: S301 - this job's own
            baskets, cells, _ = lines.joined(
                parts, decay=decay, max_basket=learning.max_basket, max_item_orders=learning.max_item_orders
            )
            parts.clear()
            shop = Shop(shops.from_bytes(values[SHOP][0]), held)
            asked = {segment for name, segment in wanted if name == region}
            for segment, cell in cut.levels(baskets, cells, region, asked):
                sets = bundling.mined(cell, shop, rules, region=region, segment=segment, k=k[region])
                found.append((region, segment, SETS, shops.to_bytes(sets)))
        columns = list(zip(*found, strict=True)) or [[] for _ in range(4)]
        types = (pa.string(), pa.string(), pa.string(), pa.binary())
        arrays = [pa.array(column, kind) for column, kind in zip(columns, types, strict=True)]
        return pa.table(arrays, delta.names(PACKED))

    return mine


def _holding(job: Job) -> list[shops.Numbered]:
    """The rules that hold on the day, each with its line, as `merchandising.resolve` has them."""
    return merchandising.holding(job.rules.rule, _rule_lines(job), job.as_of)


def _rule_lines(job: Job) -> list[int]:
    return rules_file.lines(config.path_of(job.settings.config_folder, "rules.toml"))


def _values(rows: pa.Table) -> dict[str, list[pa.Buffer]]:
    """What `rows` hold of each kind."""
    values: dict[str, list[pa.Buffer]] = {}
    for kind, value in zip(rows["kind"].to_pylist(), rows["packed"], strict=True):
        values.setdefault(kind, []).append(value.as_buffer())
    return values


def _by_kind(rows: pa.Table) -> dict[str, list[pa.Table]]:
    return {kind: [shops.from_bytes(value) for value in held] for kind, held in _values(rows).items()}


def bundle_id(skus: Column) -> Column:
    """`tandem.bundle.bundle_id` of sorted SKUs, one of each, as a Spark column."""
    text = F.concat_ws("\n", F.transform(skus, lambda sku: F.concat(sku, F.lit("\t1"))))
    return F.substring(F.sha2(text, 256), 1, ID_LENGTH)


def candidates(job: Job) -> DataFrame:
    """Which companions an anchor's pairs should hold, best first: region, segment, anchor, companion, place from 1."""
    ranked = delta.read_day(job.spark, job.settings, "rankings", job.as_of).where(F.col("rank") <= PREFERRED_FIRST)
    return ranked.select("region", "segment", "anchor", "companion", F.col("rank").cast("long").alias("place"))


def listed(job: Job, sets: DataFrame, preferred: DataFrame, known: DataFrame) -> DataFrame:
    """The lists and the bundles of every window, rows of LISTED; see `kernels.bundling.rows`.

    `sets` as `mined` gives them; a window is a segment that has sets of its own, or a whole region.
    """
    window = (
        sets.where(F.col("cell_region") != ALL)
        .select(F.col("cell_region").alias("region"), F.col("cell_segment").alias("segment"))
        .distinct()
    )
    values = sets.unionByName(_packed_preferences(preferred))
    seen = F.col("cell_region").isin(ALL) | (F.col("cell_region") == F.col("region"))
    seen &= F.col("cell_segment").isin(ALL) | (F.col("cell_segment") == F.col("segment"))
    everywhere = known.select(
        F.lit(ALL).alias("cell_region"), F.lit(ALL).alias("cell_segment"), F.col("kind"), F.col("packed")
    )
    shown = values.unionByName(everywhere).join(F.broadcast(window), seen)
    return shown.groupBy("region", "segment").applyInArrow(_lister(job), LISTED)


def _packed_preferences(preferred: DataFrame) -> DataFrame:
    def pack(key: tuple[pa.Scalar, ...], rows: pa.Table) -> pa.Table:
        packed = shops.to_bytes(rows.select(["anchor", "companion", "place"]))
        columns = ([key[0].as_py()], [key[1].as_py()], [PREFERRED], pa.array([packed], pa.binary()))
        return pa.table(dict(zip(delta.names(PACKED), columns, strict=True)))

    return preferred.groupBy("region", "segment").applyInArrow(pack, PACKED)


def _lister(job: Job) -> Callable[[tuple[pa.Scalar, ...], pa.Table], pa.Table]:
    k = {region.name: region.k for region in job.regions.region}
    rules, held = job.rules, _holding(job)

    def arrange(key: tuple[pa.Scalar, ...], rows: pa.Table) -> pa.Table:
        region, segment = (part.as_py() for part in key)
        window = bundling.Window(region, segment, k[region])
        by_level = {_level(*place): rows.filter(here) for place, here in _places(rows)}
        values = {level: _by_kind(part) for level, part in by_level.items()}
        shop = Shop(values[GLOBAL][SHOP][0], held)
        sets = {level: found[SETS][0] for level, found in sorted(values.items()) if SETS in found}
        wishes = [found[PREFERRED][0] for _, found in sorted(values.items()) if PREFERRED in found]
        offers = bundling.offers(sets, shop, rules, window, wishes[0] if wishes else None)
        return bundling.rows(offers, shop, rules, window)

    return arrange


GLOBAL = bundling.LEVELS.index("global")


def _places(rows: pa.Table) -> Iterator[tuple[tuple[str, str], pa.Array]]:
    """Each cell among `rows`, and which rows are its."""
    region, segment = rows["cell_region"], rows["cell_segment"]
    for place in sorted(set(zip(region.to_pylist(), segment.to_pylist(), strict=True))):
        yield place, pc.and_(pc.equal(region, place[0]), pc.equal(segment, place[1]))


def _level(cell_region: str, cell_segment: str) -> int:
    """Place in LEVELS of a cell."""
    return GLOBAL if cell_region == ALL else GLOBAL - 1 if cell_segment == ALL else 0


def _bundle_sets(job: Job, lists: DataFrame, release_id: str) -> DataFrame:
    return lists.where(F.col("anchor").isNotNull()).select(
        F.lit(job.as_of).alias("as_of"),
        "region",
        "segment",
        "anchor",
        F.lit(release_id).alias("release_id"),
        "bundles",
    )


def _bundles(job: Job, lists: DataFrame, release_id: str) -> DataFrame:
    currency = F.create_map(*[F.lit(part) for region in job.regions.region for part in (region.name, region.currency)])
    return lists.where(F.col("anchor").isNull()).select(
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
        F.lit(None).cast(delta.schema(TABLES["bundles"])["pricing"].dataType).alias("pricing"),
        "evidence",
        F.lit(json.dumps(dict(sorted(job.inputs.items())))).alias("inputs"),
    )


def evaluated(job: Job) -> list[Measure]:
    """What later orders say of bundles learned from the first 80 % of the window's days, by region and for everything;
    see `kernels.completion.measured`.
    """
    day = F.date_diff(F.min(F.col("ordered_at")).cast("date"), F.lit(job.as_of))
    bought = facts.lines(job, window_days=job.rules.learning.window_days)
    orders = (
        bought.where((F.col("quantity") > 0) & (F.col("net_cents") > 0))
        .groupBy("region", "order_id")
        .agg(
            F.min("customer_id").alias("customer"),
            F.array_sort(F.collect_set("sku")).alias("skus"),
            day.cast("int").alias("day"),
        )
        .where(F.size("skus") <= job.rules.learning.max_basket)
        .select("region", F.lit(ALL).alias("segment"), "customer", "skus", "day")
    )
    values = _packed(orders).select(F.explode(F.array("region", F.lit(ALL))).alias("place"), F.lit(ORDERS), "packed")
    everywhere = job.spark.createDataFrame([(name,) for name in (*job.regions.names, ALL)], "place string")
    known = everywhere.crossJoin(F.broadcast(catalogue(job).select("kind", "packed")))
    asked = values.union(known).toDF("place", "kind", "packed").groupBy("place").applyInArrow(_asker(job), MEASURED)
    return [Measure(*row) for row in asked.collect()]


def _before_any_trial(rows: pa.Table) -> pa.Table:
    """Without what factors and substitutes say: they were learned from the orders that are asked, too."""
    return rows.filter(pc.invert(pc.is_in(rows["kind"], pa.array(["agreed", "alike", "apart"]))))


MEASURED = "region string, segment string, metric string, value double, low double, high double, queries long"


def _asker(job: Job) -> Callable[[tuple[pa.Scalar, ...], pa.Table], pa.Table]:
    k = {name: affinity.smallest_k(job, name) for name in (*job.regions.names, ALL)}
    rules, held = job.rules, _holding(job)

    def measure(key: tuple[pa.Scalar, ...], rows: pa.Table) -> pa.Table:
        region, values = key[0].as_py(), _by_kind(rows)
        found: list[Measure] = []
        if ORDERS in values:
            shop = Shop(_before_any_trial(values[SHOP][0]), held)
            found = completion.measured(pa.concat_tables(values[ORDERS]), shop, rules, region=region, k=k[region])
        columns = list(zip(*found, strict=True)) or [[] for _ in Measure._fields]
        types = (*[pa.string()] * 3, *[pa.float64()] * 3, pa.int64())
        return pa.table([pa.array(each, kind) for each, kind in zip(columns, types, strict=True)], Measure._fields)

    return measure


def _packed(placed: DataFrame) -> DataFrame:
    """Rows with a region and a segment as one value for each of these and each task; further columns are kept."""
    return placed.mapInArrow(_pack, "region string, segment string, packed binary")


def _pack(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """One value per region and segment that a task meets, of all other columns."""
    held = list(batches)
    if not held:
        return
    orders = pa.Table.from_batches(held)
    for place in orders.select(["region", "segment"]).group_by(["region", "segment"]).aggregate([]).to_pylist():
        here = pc.and_(pc.equal(orders["region"], place["region"]), pc.equal(orders["segment"], place["segment"]))
        value = shops.to_bytes(orders.filter(here).drop_columns(["region", "segment"]))
        yield pa.record_batch(
            [pa.array([place["region"]]), pa.array([place["segment"]]), pa.array([value], pa.binary())],
            names=["region", "segment", "packed"],
        )
