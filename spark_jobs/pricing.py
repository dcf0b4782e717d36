"""What a bundle may cost: floors, and the discount that the strategy of rules.toml gives within them.

One Arrow kernel a region does it all: everything it looks up (prices, costs, responses, who offers the bundle) comes
to it by one shuffle, as rows of one kind or another, and no join is made. A task holds its region: about 500 bytes a
bundle and 300 a product.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta
from functools import reduce

import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from spark_jobs import delta, elasticity, facts
from spark_jobs.facts import Job
from spark_jobs.kernels import earnings, pricer
from spark_jobs.kernels.protocol import LEARNED_SHARE, Measure
from tandem.errors import ConfigError
from tandem.regions import Region
from tandem.segments import ALL, EVERYONE
from warehouse.tables import TABLES

MEASURED = "region string, segment string, metric string, value double, low double, high double, queries long"
SOLD_DAYS = 28
"""Days that tell how fast a product sells."""
NORMAL_95 = 1.959964
TOLD = "region string, kind string, sku string, name string, segment string, a long, b long, x double, y double"
"""A row of what is looked up. kind: product (name its category; a cost, b minimum price), price (a), lowest (a), stock
(x on hand), sold (x units a day), elasticity (name; x, y its error; segment `*` where it is of all regions), offered
(name a bundle; x the confidence at anchor sku) or orders (x orders of the segment)."""


def priced(job: Job) -> DataFrame:
    """The day's bundles with floors, discount, expected profit and why."""
    _check_budget(job)
    bundles = delta.read_day(job.spark, job.settings, "bundles", job.as_of)
    known = bundles.where(F.col("region").isin(job.regions.names)).groupBy("region")
    return known.cogroup(told(job).groupBy("region")).applyInArrow(_pricer(job), delta.schema(TABLES["bundles"]))


def _check_budget(job: Job) -> None:
    for name in job.rules.pricing.daily_budget:
        if name not in job.regions.names:
            raise ConfigError(
                f"rules.toml: pricing.daily_budget names {name!r}, no region of regions.toml; "
                f"known are {', '.join(job.regions.names)}"
            )


def told(job: Job) -> DataFrame:
    """Everything that pricing looks up, columns of TOLD."""
    kinds = [_products(job), _prices(job), _elasticities(job), _offered(job)]
    asking = [region for region in job.regions.region if region.lowest_price_days]
    kinds += [lowest_prices(job, region) for region in asking]
    if job.rules.pricing.strategy == "clear_stock":
        kinds += [_stock(job), _sold(job)]
    if job.rules.pricing.daily_budget:
        kinds.append(_orders(job))
    return reduce(DataFrame.unionByName, kinds)


def _row(kind: str, **columns: Column) -> list[Column]:
    """A select list of TOLD; what is not given is null."""
    types = dict(part.split() for part in TOLD.replace("\n", " ").split(", "))
    given = columns | {"kind": F.lit(kind)}
    return [given.get(name, F.lit(None)).cast(kind).alias(name) for name, kind in types.items()]


def _everywhere(job: Job, rows: DataFrame) -> DataFrame:
    """`rows` once for each region, with its name and currency."""
    regions = job.spark.createDataFrame(
        [(region.name, region.currency) for region in job.regions.region], "here string, region_currency string"
    )
    return rows.crossJoin(F.broadcast(regions))


def _products(job: Job) -> DataFrame:
    own = F.col("currency") == F.col("region_currency")
    cost, minimum = F.when(own, F.col("unit_cost_cents")), F.when(own, F.col("minimum_advertised_price_cents"))
    category = F.coalesce("category", F.lit(""))
    return _everywhere(job, job.fact("products")).select(
        _row("product", region=F.col("here"), sku=F.col("sku"), name=category, a=cost, b=minimum)
    )


def _prices(job: Job) -> DataFrame:
    """Today's price of what is priced in the region's own currency."""
    found = _everywhere(job, job.fact("prices"))
    own = found.where((F.col("region") == F.col("here")) & (F.col("currency") == F.col("region_currency")))
    price = F.coalesce("sale_price_cents", "list_price_cents")
    return own.select(_row("price", region=F.col("region"), sku=F.col("sku"), a=price))


def _elasticities(job: Job) -> DataFrame:
    return _told_elasticities(job, delta.read_day(job.spark, job.settings, "elasticities", job.as_of))


def _told_elasticities(job: Job, learned: DataFrame) -> DataFrame:
    found = _everywhere(job, learned).where(F.col("region").isin(ALL) | (F.col("region") == F.col("here")))
    error = (F.col("high") - F.col("low")) / (2 * NORMAL_95)
    return found.select(
        _row(
            "elasticity",
            region=F.col("here"),
            name=F.col("category"),
            segment=F.col("region"),
            x=F.col("elasticity"),
            y=error,
        )
    )


def _offered(job: Job) -> DataFrame:
    lists = delta.read_day(job.spark, job.settings, "bundle_sets", job.as_of)
    each = lists.select("region", "segment", "anchor", F.explode("bundles").alias("entry"))
    return each.select(
        _row(
            "offered",
            region=F.col("region"),
            segment=F.col("segment"),
            sku=F.col("anchor"),
            name=F.col("entry.bundle_id"),
            x=F.col("entry.confidence"),
        )
    )


def lowest_prices(job: Job, region: Region) -> DataFrame:
    """The lowest price that was paid for each product in the days the region's law names; returns are no sales."""
    since = job.as_of - timedelta(days=region.lowest_price_days)
    paid = _lines(job, since).where((F.col("region") == region.name) & (F.col("unit_price_cents") > 0))
    lowest = paid.groupBy("sku").agg(F.min("unit_price_cents").alias("lowest"))
    return lowest.select(_row("lowest", region=F.lit(region.name), sku=F.col("sku"), a=F.col("lowest")))


def _lines(job: Job, since: object) -> DataFrame:
    """Sales from a day on, before as_of. Prices and sums over all customers: nothing of any one of them."""
    at = F.col("ordered_at")
    return job.fact("sales_lines").where(
        (at >= F.lit(since).cast("timestamp"))
        & (at < F.lit(job.as_of).cast("timestamp"))
        & (F.col("quantity") > 0)
        & F.col("region").isin(job.regions.names)
    )


def _stock(job: Job) -> DataFrame:
    found = job.fact("stock").where(F.col("region").isin(job.regions.names))
    return found.select(_row("stock", region=F.col("region"), sku=F.col("sku"), x=F.col("on_hand")))


def _sold(job: Job) -> DataFrame:
    recent = _lines(job, job.as_of - timedelta(days=SOLD_DAYS)).groupBy("region", "sku")
    daily = recent.agg((F.sum("quantity") / SOLD_DAYS).alias("daily"))
    return daily.select(_row("sold", region=F.col("region"), sku=F.col("sku"), x=F.col("daily")))


def _orders(job: Job) -> DataFrame:
    """Orders of the window by segment, of every region to every region: what a level's counts come down to."""
    members = delta.read_day(job.spark, job.settings, "segment_members", job.as_of)
    counted = members.groupBy("region", "segment").agg(F.sum("frequency").alias("orders"))
    return _everywhere(job, counted).select(
        _row("orders", region=F.col("here"), sku=F.col("region"), segment=F.col("segment"), x=F.col("orders"))
    )


def evaluated(job: Job) -> list[Measure]:
    """Profit expected with and without discounts, per region and segment, on later orders than were learned from.

    Learned from the first LEARNED_SHARE of the days of the window, asked about the rest. Profits and gains are for
    1,000 later orders, in minor units, of pairs that would be offered: see `kernels/earnings.py`. attach_ratio is how
    often pairs were bought whole over how often it was expected from what was learned: 1 is calibrated.
    """
    cut = _first_later_day(job)
    found = _earned(job, cut).collect() if cut else []
    return sorted(Measure(*row) for row in found)


def _first_later_day(job: Job) -> date | None:
    """The first day after LEARNED_SHARE of the window's days with orders; None without any."""
    sold = facts.lines(job, window_days=job.rules.learning.window_days)
    days = sorted(row[0] for row in sold.select(F.col("ordered_at").cast("date")).distinct().collect())
    return days[min(int(len(days) * LEARNED_SHARE), len(days) - 1)] if days else None


def _earned(job: Job, cut: date) -> DataFrame:
    """Measures of every region: its orders, before and from `cut` on, with what is told about its products."""
    learning, later = job.rules.learning, (job.as_of - cut).days
    before = facts.lines(job, window_days=max(learning.window_days - later, 1), before=cut)
    since = facts.lines(job, window_days=later)
    baskets = facts.baskets(before, learning.max_basket).withColumn("later", F.lit(False))
    baskets = baskets.unionByName(facts.baskets(since, learning.max_basket).withColumn("later", F.lit(True)))
    members = delta.read_day(job.spark, job.settings, "segment_members", job.as_of)
    placed = baskets.join(members.select("region", "customer_id", "segment"), ["region", "customer_id"], "left").select(
        "region",
        F.coalesce("segment", F.lit(EVERYONE)).alias("segment"),
        F.col("customer_id").alias("customer"),
        "skus",
        "later",
    )
    responses = _told_elasticities(job, elasticity.elasticities(job, before=cut))
    known = _products(job).unionByName(_prices(job)).unionByName(responses)
    return placed.groupBy("region").cogroup(known.groupBy("region")).applyInArrow(_earner(job), MEASURED)


def _earner(job: Job) -> Callable[[tuple[pa.Scalar, ...], pa.Table, pa.Table], pa.Table]:
    regions, rules = {region.name: region for region in job.regions.region}, job.rules

    def earn(key: tuple[pa.Scalar, ...], orders: pa.Table, told: pa.Table) -> pa.Table:
        found = list(earnings.measured(orders, told, regions[key[0].as_py()], rules)) if len(orders) else []
        types = (pa.string(), pa.string(), pa.string(), pa.float64(), pa.float64(), pa.float64(), pa.int64())
        columns = list(zip(*found, strict=True)) or [()] * len(types)
        arrays = [pa.array(column, kind) for column, kind in zip(columns, types, strict=True)]
        return pa.table(arrays, names=list(Measure._fields))

    return earn


def _pricer(job: Job) -> Callable[[tuple[pa.Scalar, ...], pa.Table, pa.Table], pa.Table]:
    regions = {region.name: region for region in job.regions.region}
    pricing, days = job.rules.pricing, job.rules.learning.window_days

    def price(key: tuple[pa.Scalar, ...], bundles: pa.Table, known: pa.Table) -> pa.Table:
        return pricer.priced(bundles, known, regions[key[0].as_py()], pricing, days) if len(bundles) else bundles

    return price
