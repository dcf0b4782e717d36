"""What a bundle may cost: floors, and the discount that the strategy of rules.toml gives within them.

A task a region reads what it needs (bundles, lists, prices, costs, responses) from the lake's files as Arrow, prices
with one kernel and writes the region's file; the driver makes these the day's bundles in one commit. A task holds its
region: about 500 bytes a bundle and 300 a product; of the sales it looks up, one file's at once (30 bytes a line).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import functions as F

from spark_jobs import delta, elasticity, in_tasks, order_files, parquet_files
from spark_jobs.facts import Job
from spark_jobs.kernels import days, earnings, pricer
from spark_jobs.kernels.protocol import MEASURED, Measure, first_asked_day
from spark_jobs.order_files import Folder
from spark_jobs.parquet_files import Held, Written
from tandem.errors import ConfigError
from tandem.regions import Region
from tandem.rules import Pricing
from tandem.segments import ALL
from warehouse.tables import BUNDLES

SOLD_DAYS = 28
"""Days that tell how fast a product sells."""
NORMAL_95 = 1.959964
TOLD = pa.schema(
    [
        *((name, pa.string()) for name in ("kind", "sku", "name", "segment")),
        *((name, pa.int64()) for name in ("a", "b")),
        *((name, pa.float64()) for name in ("x", "y")),
    ]
)
"""A row of what is looked up for a region. kind: product (name its category; a cost, b minimum price), price (a),
lowest (a), stock (x on hand), sold (x units a day), elasticity (name; x, y its error; segment `*` where it is of all
regions), offered (name a bundle; x the confidence at anchor sku) or orders (x orders of the segment of region sku)."""


@dataclass(frozen=True)
class Sources:
    """What a task reads and needs to know to price a region."""

    where: Folder
    as_of: date
    pricing: Pricing
    window_days: int
    regions: dict[str, Region]
    bundles: Held
    lists: Held
    products: Held
    prices: Held
    responses: Held
    stock: Held
    sales: Held
    orders: pa.Table
    """Rows of TOLD: orders of the window by segment, of every region; what a level's counts come down to."""


def write(job: Job) -> None:
    """Replace the day's bundles by the same with floors, discount, expected profit and why."""
    found = sources(job)

    def write_files(regions: Iterator[str]) -> Iterator[pa.RecordBatch]:
        for region in regions:
            yield in_tasks.given(_written(found, region))

    files = in_tasks.values(in_tasks.each(job.spark, job.regions.names, write_files, in_tasks.VALUE))
    parquet_files.replace_day(job.settings, BUNDLES.name, job.as_of, files)


def _written(found: Sources, region: str) -> list[Written]:
    """The file of a region's bundles; none where it has none."""
    rows, values = priced(found, region), {"as_of": f"{found.as_of}", "region": region}
    return [parquet_files.write(found.where, BUNDLES, values, rows)] if len(rows) else []


def sources(job: Job) -> Sources:
    """Raises ConfigError where rules.toml gives a budget to a region that is none."""
    for name in job.rules.pricing.daily_budget:
        if name not in job.regions.names:
            raise ConfigError(
                f"rules.toml: pricing.daily_budget names {name!r}, no region of regions.toml; "
                f"known are {', '.join(job.regions.names)}"
            )
    day = f"{job.as_of}"
    return Sources(
        where=order_files.folder(job.settings, BUNDLES.name),
        as_of=job.as_of,
        pricing=job.rules.pricing,
        window_days=job.rules.learning.window_days,
        regions={region.name: region for region in job.regions.region},
        bundles=parquet_files.held(job.settings, BUNDLES.name, as_of=day),
        lists=parquet_files.held(job.settings, "bundle_sets", as_of=day),
        products=_fact(job, "products"),
        prices=_fact(job, "prices"),
        responses=parquet_files.held(job.settings, "elasticities", as_of=day),
        stock=_fact(job, "stock"),
        sales=_fact(job, "sales_lines"),
        orders=_orders(job) if job.rules.pricing.daily_budget else TOLD.empty_table(),
    )


def _fact(job: Job, table: str) -> Held:
    return parquet_files.held(job.settings, table, job.inputs.get(table))


def priced(found: Sources, region: str) -> pa.Table:
    """The day's bundles of a region (the table's columns but as_of and region), priced; by segment and bundle."""
    columns = [name for name in BUNDLES.names if name not in BUNDLES.partitions]
    bundles = found.bundles.rows(columns, region=region)
    if not len(bundles):
        return bundles
    return pricer.priced(bundles, told(found, region), found.regions[region], found.pricing, found.window_days)


def told(found: Sources, name: str) -> pa.Table:
    """Everything that pricing looks up for the region `name`, rows of TOLD."""
    region = found.regions[name]
    kinds = [*catalogue(found.products, found.prices, region), _offered(found, region), found.orders]
    kinds.append(_responses(found.responses.rows(RESPONSE), region))
    if region.lowest_price_days:
        kinds.append(_lowest(found, region))
    if found.pricing.strategy == "clear_stock":
        stock = found.stock.rows(["sku", "on_hand"], region=name)
        kinds += [_told("stock", sku=stock["sku"], x=stock["on_hand"]), _sold(found, region)]
    return pa.concat_tables(kinds)


def _told(kind: str, **columns: Any) -> pa.Table:
    """Rows of TOLD; what is not given is null."""
    rows = len(next(iter(columns.values())))
    given = {"kind": pa.repeat(kind, rows), **columns}
    arrays = [
        given[field.name].cast(field.type) if field.name in given else pa.nulls(rows, field.type) for field in TOLD
    ]
    return pa.table(arrays, schema=TOLD)


def catalogue(products: Held, prices: Held, region: Region) -> Iterator[pa.Table]:
    """What each product costs, and today's prices, as far as they are in the region's own currency."""
    amounts = ["unit_cost_cents", "minimum_advertised_price_cents"]
    rows = products.rows(["sku", "category", "currency", *amounts])
    own = pc.equal(rows["currency"], region.currency)
    cost, minimum = (pc.if_else(own, rows[name], None) for name in amounts)
    yield _told("product", sku=rows["sku"], name=pc.fill_null(rows["category"], ""), a=cost, b=minimum)
    rows = prices.rows(["sku", "currency", "sale_price_cents", "list_price_cents"], region=region.name)
    rows = rows.filter(pc.equal(rows["currency"], region.currency))
    yield _told("price", sku=rows["sku"], a=pc.coalesce(rows["sale_price_cents"], rows["list_price_cents"]))


RESPONSE = ["region", "category", "elasticity", "low", "high"]


def _responses(rows: pa.Table, region: Region) -> pa.Table:
    """How prices are answered: what all regions say (`*`) and the region's own; `rows` have RESPONSE."""
    rows = rows.filter(pc.is_in(rows["region"], pa.array([ALL, region.name])))
    error = pc.divide(pc.subtract(rows["high"], rows["low"]), 2 * NORMAL_95)
    return _told("elasticity", name=rows["category"], segment=rows["region"], x=rows["elasticity"], y=error)


def _offered(found: Sources, region: Region) -> pa.Table:
    rows = found.lists.rows(["segment", "anchor", "bundles"], region=region.name).combine_chunks()
    lists = pa.array([], rows.schema.field("bundles").type) if not len(rows) else rows["bundles"].chunk(0)
    entries, owner = lists.flatten(), pc.list_parent_indices(lists)
    segment, anchor = (rows[name].take(owner) for name in ("segment", "anchor"))
    return _told("offered", segment=segment, sku=anchor, name=entries.field("bundle_id"), x=entries.field("confidence"))


def _lowest(found: Sources, region: Region) -> pa.Table:
    """The lowest price that was paid for each product in the days the region's law names; returns are no sales."""
    least = _of_sales(found, region, region.lowest_price_days, "unit_price_cents", "min")
    return _told("lowest", sku=least["sku"], a=least["unit_price_cents"])


def _sold(found: Sources, region: Region) -> pa.Table:
    units = _of_sales(found, region, SOLD_DAYS, "quantity", "sum")
    return _told("sold", sku=units["sku"], x=pc.divide(units["quantity"].cast(pa.float64()), SOLD_DAYS))


def _of_sales(found: Sources, region: Region, back: int, column: str, how: str) -> pa.Table:
    """By sku what `how` makes of `column` in the lines sold in the last `back` days, nothing of any one customer."""
    end = datetime.combine(found.as_of, time(), UTC)
    since = end - timedelta(days=back)
    recent = replace(
        found.sales, files=[file for file in found.sales.files if file.values["month"] >= f"{since:%Y-%m}"]
    )
    parts = []
    for rows in recent.each(["sku", "ordered_at", "quantity", "unit_price_cents"], region=region.name):
        at = rows["ordered_at"]
        inside = pc.and_(pc.greater_equal(at, pa.scalar(since, at.type)), pc.less(at, pa.scalar(end, at.type)))
        sold = pc.and_(pc.greater(rows["quantity"], 0), pc.greater(rows[column], 0))
        parts.append(_by_sku(rows.filter(pc.and_(inside, sold)), column, how))
    return _by_sku(pa.concat_tables(parts), column, how) if parts else pa.table({"sku": [], column: []})


def _by_sku(rows: pa.Table, column: str, how: str) -> pa.Table:
    return rows.group_by("sku").aggregate([(column, how)]).rename_columns({f"{column}_{how}": column})


def _orders(job: Job) -> pa.Table:
    members = delta.read_day(job.spark, job.settings, "segment_members", job.as_of)
    counted = members.groupBy("region", "segment").agg(F.sum("frequency").alias("orders")).toArrow()
    return _told("orders", sku=counted["region"], segment=counted["segment"], x=counted["orders"])


def evaluated(job: Job) -> list[Measure]:
    """Profit expected with and without discounts, per region and segment, on later orders than were learned from.

    Learned from the first 80 % of the days of the window, asked about the rest. Profits and gains are for
    1,000 later orders, in minor units, of pairs that would be offered: see `kernels/earnings.py`. attach_ratio is how
    often pairs were bought whole over how often it was expected from what was learned: 1 is calibrated.
    """
    orders = order_files.packed(job, in_segments=True).persist()
    known, _ = order_files.known_days(orders)
    if not len(known):
        return []
    first = first_asked_day(known)
    regions = job.spark.createDataFrame([(name,) for name in job.regions.names], "here string")
    learned = elasticity.elasticities(job, before=days.of(first))
    told = learned.join(F.broadcast(regions), F.col("region").isin(ALL) | (F.col("region") == F.col("here")))
    both = orders.groupBy("region").cogroup(told.select("here", *RESPONSE).groupBy("here"))
    return sorted(Measure(*row) for row in in_tasks.collected(both.applyInArrow(_earner(job, first), MEASURED)))


def _earner(job: Job, first_asked: int) -> Callable[[tuple[pa.Scalar, ...], pa.Table, pa.Table], pa.Table]:
    regions, rules = {region.name: region for region in job.regions.region}, job.rules
    products, prices = _fact(job, "products"), _fact(job, "prices")

    def earn(key: tuple[pa.Scalar, ...], packed: pa.Table, responses: pa.Table) -> pa.Table:
        region, orders = regions[key[0].as_py()], order_files.orders(packed, rules.learning.max_basket)
        orders = orders.append_column("later", pc.greater_equal(orders["day"], first_asked))
        known = pa.concat_tables([*catalogue(products, prices, region), _responses(responses, region)])
        found = list(earnings.measured(orders, known, region, rules)) if len(orders) else []
        types = (pa.string(), pa.string(), pa.string(), pa.float64(), pa.float64(), pa.float64(), pa.int64())
        columns = list(zip(*found, strict=True)) or [()] * len(types)
        arrays = [pa.array(column, kind) for column, kind in zip(columns, types, strict=True)]
        return pa.table(arrays, names=list(Measure._fields))

    return earn
