"""Bundles worth offering: sets of 2 to 4, counted exactly, with substitutes, and for each anchor its ranked list.

Workers read the files of sales_lines themselves and send packed orders to one task for each region and one for
everything, which mine the sets of their cells. A task for each region then lists each window of the shop (a segment of
the region, or the region) in turn, from the sets of its segment, its region and everything, and writes the region's
files of `bundles` and `bundle_sets`; the driver commits them, with those of `cold`. What a segment cannot support comes
from its region, then from everywhere; every bundle says which (`matched`). What merchandisers ask for wins over what
the orders say (docs/merchandising.md).

Memory: a task that mines holds its orders (about 75 bytes a line), the catalogue (140 bytes a product) and what is
frequent (16 bytes a pair, 24 a set); a task that lists holds the catalogue, about 400 bytes for each set that the three
levels of one window kept, at most PAIRS_KEPT + SETS_KEPT for each anchor and level, 60 a preferred companion, and its
rows: 100 a place in a list and 400 a bundle.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame, GroupedData
from pyspark.sql import functions as F

from spark_jobs import affinity, delta, facts, in_tasks, order_files, parquet_files, segments
from spark_jobs.facts import Job
from spark_jobs.kernels import bundle_rows, completion, cut, lines, mining, offering, tilt
from spark_jobs.kernels import shop as shops
from spark_jobs.kernels.protocol import MEASURED, Measure
from spark_jobs.kernels.shop import Shop
from spark_jobs.order_files import Folder
from spark_jobs.parquet_files import Written
from tandem import config, merchandising, release
from tandem import rules as rules_file
from tandem.segments import ALL
from warehouse.tables import BUNDLE_SETS, BUNDLES, TABLES, Table

PACKED = "cell_region string, cell_segment string, kind string, packed binary"
"""A value of a cell: orders of it (a pickled `lines.Part`), its sets, what was bought in it (`tilt.bought`) or the
catalogue (in Arrow's stream format)."""
ORDERS, SETS, BOUGHT, SHOP = "orders", "sets", "bought", "shop"
KNOWN = "kind string, packed binary, findings array<string>"
LISTED = "region string, written binary, own binary"
"""What a task wrote for a region: the files (a pickled dict of table to Written), and of its rows those of the region's
own window (anchor, bundle_id and evidence, in Arrow's stream format)."""
PREFERRED_FIRST = 20
"""Of the ranker's companions, so many say in which order an anchor's pairs stand."""
SPARE = 3
"""Substitutes that are looked at beyond those kept: they come in where a rule forbids one."""


def write(job: Job) -> None:
    """Replace the day's rows of bundles and bundle_sets; products without a set of their own get answers of `cold`."""
    from spark_jobs import cold  # which writes its answers as these are written

    lists, known = arranged(job)
    replace_day(job, lists.unionByName(cold.completed(job, lists, known)))


def arranged(job: Job) -> tuple[DataFrame, DataFrame]:
    """What every region lists, rows of LISTED, and the `catalogue` it was chosen from; both are kept.

    Pricing sets discounts and floors. Prints which merchandising rules contradict each other or match nothing.
    """
    known = catalogue(job).persist()
    for row in known.select(F.explode("findings").alias("text")).collect():
        print(row.text)  # noqa: T201 - the job's log is where a merchandiser finds it
    tilts = {(row.region, row.segment): float(row.tilt) for row in segments.published(job).collect()}
    windows = [*((region, ALL) for region in job.regions.names), *tilts]
    sets = mined(job, packed(job), known, windows).persist()
    return listed(job, sets, known, tilts).persist(), known


def catalogue(job: Job) -> DataFrame:
    """One row of KNOWN: the products that may be bundled, with what rules say of them, and findings about the rules."""
    products = facts.catalogue(job).select("sku", F.coalesce("category", F.lit("")).alias("category"), "brand")
    return products.groupBy(F.lit(SHOP)).applyInArrow(_cataloguer(job), KNOWN)


def _cataloguer(job: Job) -> Callable[[pa.Table], pa.Table]:
    rules, places = job.rules.rule, _rule_lines(job)
    day, regions = job.as_of, job.regions.names
    prices = parquet_files.held(job.settings, "prices", job.inputs.get("prices"))
    instead, near = (parquet_files.held(job.settings, name, as_of=f"{day}") for name in ("substitutes", "neighbours"))
    looked_at = job.rules.bundling.substitutes + SPARE

    def further() -> Iterator[pa.Table]:
        for region in regions:
            found = prices.rows(["sku", "sale_price_cents", "list_price_cents"], region=region)
            price = pc.coalesce(found["sale_price_cents"], found["list_price_cents"])
            yield shops.rows("price", found["sku"], pa.repeat(region, len(found)), number=price)
        found = instead.rows(["sku", "substitute", "rank", "apart"])
        alike, apart = found.filter(pc.less_equal(found["rank"], looked_at)), found.filter(found["apart"])
        yield shops.rows("alike", alike["sku"], alike["substitute"], number=alike["rank"])
        yield shops.rows("apart", apart["sku"], apart["substitute"], number=apart["rank"])
        found = near.rows(["sku", "neighbour", "rank", "same_category"])
        agreed = found.filter(pc.invert(found["same_category"]))
        yield shops.rows("agreed", agreed["sku"], agreed["neighbour"], number=agreed["rank"])

    def gather(products: pa.Table) -> pa.Table:
        named = shops.rows("product", products["sku"], products["category"], products["brand"])
        rows = pa.concat_tables([named, *further()])
        resolved = merchandising.resolve(rules, places, shops.products(rows), day)
        findings = [str(finding) for finding in merchandising.findings(resolved, regions)]
        packed = shops.to_bytes(shops.with_rules(rows, resolved))
        columns = ([SHOP], pa.array([packed], pa.binary()), pa.array([findings], pa.list_(pa.string())))
        return pa.table(dict(zip(delta.names(KNOWN), columns, strict=True)))

    return gather


def packed(job: Job, *, in_segments: bool = True) -> DataFrame:
    """The window's orders as rows of PACKED, each file's once for its region and once for everything."""
    level = F.explode(F.array("region", F.lit(ALL))).alias("cell_region")
    read = order_files.packed(job, in_segments=in_segments)
    return read.select(level, F.lit(ALL).alias("cell_segment"), F.lit(ORDERS).alias("kind"), "packed")


def mined(job: Job, orders: DataFrame, known: DataFrame, windows: Iterable[tuple[str, str]]) -> DataFrame:
    """The sets of `windows` (region, segment) and of everything, a row of PACKED each; see `kernels.mining.mined`."""
    return with_catalogue(job, orders, known).applyInArrow(_miner(job, {*windows, (ALL, ALL)}), PACKED)


def with_catalogue(job: Job, orders: DataFrame, known: DataFrame) -> GroupedData:
    """By region, and of everything: its rows of PACKED and the catalogue."""
    places = job.spark.createDataFrame([(name,) for name in (*job.regions.names, ALL)], "cell_region string")
    everywhere = places.crossJoin(known.select(F.lit(ALL).alias("cell_segment"), "kind", "packed"))
    return orders.unionByName(everywhere).groupBy("cell_region")


def _miner(job: Job, wanted: set[tuple[str, str]]) -> Callable[[tuple[pa.Scalar, ...], pa.Table], pa.Table]:
    k = {name: affinity.smallest_k(job, name) for name in (*job.regions.names, ALL)}
    rules, held = job.rules, holding(job)
    learning = rules.learning
    decay = lines.decay(job.as_of, learning.window_days, learning.half_life_days)

    def mine(key: tuple[pa.Scalar, ...], rows: pa.Table) -> pa.Table:
        region, values = key[0].as_py(), _values(rows)
        found: list[tuple[str, str, str, bytes]] = []
        if ORDERS in values:
            parts = in_tasks.unpacked(values[ORDERS])
            baskets, cells, _ = lines.joined(
                parts, decay=decay, max_basket=learning.max_basket, max_item_orders=learning.max_item_orders
            )
            parts.clear()
            shop = Shop(shops.from_bytes(values[SHOP][0].as_buffer()), held)
            asked = {segment for name, segment in wanted if name == region}
            for segment, cell in cut.levels(baskets, cells, region, asked):
                sets = mining.mined(cell, shop, rules, region=region, segment=segment, k=k[region])
                found.append((region, segment, SETS, shops.to_bytes(sets)))
                found.append((region, segment, BOUGHT, shops.to_bytes(tilt.bought(cell))))
        columns = list(zip(*found, strict=True)) or [[] for _ in range(4)]
        types = (pa.string(), pa.string(), pa.string(), pa.binary())
        arrays = [pa.array(column, kind) for column, kind in zip(columns, types, strict=True)]
        return pa.table(arrays, delta.names(PACKED))

    return mine


def holding(job: Job) -> list[shops.Numbered]:
    """The rules that hold on the day, each with its line, as `merchandising.resolve` has them."""
    return merchandising.holding(job.rules.rule, _rule_lines(job), job.as_of)


def _rule_lines(job: Job) -> list[int]:
    return rules_file.lines(config.path_of(job.settings.config_folder, "rules.toml"))


def _values(rows: pa.Table) -> dict[str, list[pa.Scalar]]:
    """What `rows` hold of each kind."""
    values: dict[str, list[pa.Scalar]] = {}
    for kind, value in zip(rows["kind"].to_pylist(), rows["packed"], strict=True):
        values.setdefault(kind, []).append(value)
    return values


def listed(job: Job, sets: DataFrame, known: DataFrame, tilts: Mapping[tuple[str, str], float]) -> DataFrame:
    """The lists and the bundles of every window, written by a task a region; see `kernels.bundle_rows.rows`.

    `sets` as `mined` gives them; a window is a segment that has sets of its own, or a whole region. `tilts`: of each
    published (region, segment), how far its own popularity goes into the order of pairs.
    """
    shop = known.select(F.lit(ALL).alias("cell_region"), F.lit(ALL).alias("cell_segment"), "kind", "packed")
    return by_region(job, sets.unionByName(shop)).mapInArrow(_lister(job, tilts), LISTED)


def by_region(job: Job, rows: DataFrame) -> DataFrame:
    """Rows of PACKED in a partition for each region: its own, and those of everything."""
    places = job.spark.createDataFrame(list(enumerate(job.regions.names)), "number int, name string")
    own = F.col("cell_region").isin(ALL) | (F.col("cell_region") == F.col("name"))
    shown = rows.join(F.broadcast(places), own)
    return shown.repartitionById(len(job.regions.names), "number").select(*delta.names(PACKED))


def _lister(
    job: Job, tilts: Mapping[tuple[str, str], float]
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    k = {region.name: region.k for region in job.regions.region}
    rules, held, files = job.rules, holding(job), Files.of_day(job)
    rankings = parquet_files.held(job.settings, "rankings", as_of=f"{job.as_of}")

    def arrange(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        values = by_place(batches)
        sets = {place: found[SETS] for place, found in values.items() if SETS in found}
        for region in {region for region, _ in sets} - {ALL}:
            shop, wishes = Shop(values[ALL, ALL][SHOP], held), _wishes(rankings, region)
            rows = []
            for segment in sorted(segment for name, segment in sets if name == region):
                window = offering.Window(region, segment, k[region])
                places = ((region, segment), (region, ALL), (ALL, ALL))
                levels = {_level(*place): sets[place] for place in places if place in sets}
                wished = next((wishes[place] for place in places if place in wishes), None)
                if wished is not None and (region, segment) in tilts:
                    mine, whole = (values[region, name][BOUGHT] for name in (segment, ALL))
                    wished = tilt.tilted(wished, mine, whole, tilts[region, segment])
                offers = offering.offers(levels, shop, rules, window, wished)
                rows.append(bundle_rows.rows(offers, shop, rules, window))
            yield files.write(region, pa.concat_tables(rows))

    return arrange


def by_place(batches: Iterator[pa.RecordBatch]) -> dict[tuple[str, str], dict[str, pa.Table]]:
    """What rows of PACKED hold, by region and segment and then by kind."""
    values: dict[tuple[str, str], dict[str, pa.Table]] = {}
    for batch in batches:
        places = zip(*(batch[name].to_pylist() for name in ("cell_region", "cell_segment", "kind")), strict=True)
        for (region, segment, kind), value in zip(places, batch["packed"], strict=True):
            values.setdefault((region, segment), {})[kind] = shops.from_bytes(value.as_buffer())
    return values


def _wishes(rankings: parquet_files.Held, region: str) -> dict[tuple[str, str], pa.Table]:
    """By region (also `*`) and segment: the companions that an anchor's pairs should hold, with their place from 1."""
    found = {}
    for place in (region, ALL):
        rows = rankings.rows(["segment", "anchor", "companion", "rank", "score"], region=place)
        best = rows.filter(pc.less_equal(rows["rank"], PREFERRED_FIRST)).rename_columns({"rank": "place"})
        for segment in pc.unique(best["segment"]).to_pylist():
            found[place, segment] = best.filter(pc.equal(best["segment"], segment))
    return found


GLOBAL = offering.LEVELS.index("global")


def _level(cell_region: str, cell_segment: str) -> int:
    """Place in LEVELS of a cell."""
    return GLOBAL if cell_region == ALL else GLOBAL - 1 if cell_segment == ALL else 0


@dataclass(frozen=True)
class Files:
    """Where rows of `kernels.bundle_rows.ROWS` become files of `bundle_sets` and `bundles`, and what they all hold."""

    bundle_sets: Folder
    bundles: Folder
    as_of: str
    release_id: str
    inputs: str
    currencies: Mapping[str, str]

    @classmethod
    def of_day(cls, job: Job) -> Files:
        return cls(
            bundle_sets=order_files.folder(job.settings, "bundle_sets"),
            bundles=order_files.folder(job.settings, "bundles"),
            as_of=f"{job.as_of}",
            release_id=release.release_id(job.as_of, job.inputs, config.digest(job.settings.config_folder)),
            inputs=json.dumps(dict(sorted(job.inputs.items()))),
            currencies={region.name: region.currency for region in job.regions.region},
        )

    def write(self, region: str, rows: pa.Table) -> pa.RecordBatch:
        """A row of LISTED: `rows` in files that no commit names yet."""
        of_list = pc.is_valid(rows["anchor"])
        parts = {BUNDLE_SETS.name: rows.filter(of_list), BUNDLES.name: rows.filter(pc.invert(of_list))}
        written = {name: self._file(TABLES[name], region, part) for name, part in parts.items() if len(part)}
        own = rows.filter(pc.equal(rows["segment"], ALL)).select(["anchor", "bundle_id", "evidence"])
        columns = [pa.array([region]), in_tasks.packed([written]), pa.array([shops.to_bytes(own)], pa.binary())]
        return pa.record_batch(columns, delta.names(LISTED))

    def _file(self, table: Table, region: str, rows: pa.Table) -> Written:
        schema = parquet_files.schema(table)
        same = {"release_id": self.release_id, "inputs": self.inputs, "currency": self.currencies[region]}
        same |= {"discount_bps": 0, "expected_profit_cents": None, "pricing": None}
        columns = [
            pa.repeat(pa.scalar(same[name], kind), len(rows)) if name in same else rows[name]
            for name, kind in zip(schema.names, schema.types, strict=True)
        ]
        named = pa.table(columns, schema.names)
        where = self.bundles if table is BUNDLES else self.bundle_sets
        return parquet_files.write(where, table, {"as_of": self.as_of, "region": region}, named)


def replace_day(job: Job, listed: DataFrame) -> None:
    """Make the files that rows of LISTED name the day's `bundles` and `bundle_sets`."""
    written = in_tasks.values(listed.select(F.col("written").alias("value")))
    for table in (BUNDLES.name, BUNDLE_SETS.name):
        files = [found[table] for found in written if table in found]
        parquet_files.replace_day(job.settings, table, job.as_of, files)


def evaluated(job: Job) -> list[Measure]:
    """What later orders say of bundles learned from the first 80 % of the window's days, by region and for everything;
    see `kernels.completion.measured`.
    """
    asked = with_catalogue(job, packed(job, in_segments=False), catalogue(job)).applyInArrow(_asker(job), MEASURED)
    return [Measure(*row) for row in in_tasks.collected(asked)]


def _before_any_trial(rows: pa.Table) -> pa.Table:
    """Without what factors and substitutes say: they were learned from the orders that are asked, too."""
    return rows.filter(pc.invert(pc.is_in(rows["kind"], pa.array(["agreed", "alike", "apart"]))))


def _asker(job: Job) -> Callable[[tuple[pa.Scalar, ...], pa.Table], pa.Table]:
    k = {name: affinity.smallest_k(job, name) for name in (*job.regions.names, ALL)}
    rules, held = job.rules, holding(job)

    def measure(key: tuple[pa.Scalar, ...], rows: pa.Table) -> pa.Table:
        region, values = key[0].as_py(), _values(rows)
        found: list[Measure] = []
        if ORDERS in values:
            shop = Shop(_before_any_trial(shops.from_bytes(values[SHOP][0].as_buffer())), held)
            orders = lines.orders(in_tasks.unpacked(values[ORDERS]), rules.learning.max_basket)
            found = completion.measured(orders, shop, rules, region=region, k=k[region])
        columns = list(zip(*found, strict=True)) or [[] for _ in Measure._fields]
        types = (*[pa.string()] * 3, *[pa.float64()] * 3, pa.int64())
        return pa.table([pa.array(each, kind) for each, kind in zip(columns, types, strict=True)], Measure._fields)

    return measure
