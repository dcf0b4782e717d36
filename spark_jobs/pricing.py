"""What a bundle may cost: floors from cost and minimum advertised price, and a discount that leaves a profit."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from spark_jobs import delta
from spark_jobs.facts import Job
from tandem.money import BPS

STEP_BPS = 50
"""Discounts are multiples of half a percent."""
HALF_AT_LIFT = 10
"""At this lift half of the highest discount is wanted."""


def priced(job: Job) -> DataFrame:
    """The day's bundles with floors, discount and expected profit."""
    bundles = delta.read_day(job.spark, job.settings, "bundles", job.as_of)
    key = ["region", "segment", "bundle_id"]
    exploded = bundles.select(*key, F.posexplode("components").alias("place", "component"))
    parts = exploded.select("*", "component.sku").join(_parts(job, exploded), ["region", "sku"])
    placed = F.collect_list(F.struct("place", "part"))
    totals = parts.groupBy(key).agg(
        F.transform(F.array_sort(placed), lambda entry: entry["part"]).alias("parts"),
        F.sum("price_cents").alias("price_cents"),
        F.sum(F.least(F.col("part.floor_cents"), "price_cents")).alias("floor_cents"),
        F.sum("cost_cents").alias("cost_cents"),
        F.count("price_cents").alias("known"),
    )
    return _discounted(job, bundles.join(totals, key))


def unit_floors(job: Job) -> DataFrame:
    """region, sku, price_cents, cost_cents, floor_cents of one unit, for every product with a price in the region.

    floor = the higher of unit cost plus minimum margin, and the minimum advertised price. Where no cost is known
    (or it is in another currency), cost is assumed to be today's price less `assumed_margin_bps`: that is the floor.
    Without a price there is no floor of this kind, only what cost and minimum say.
    """
    pricing = job.rules.pricing
    currency = {region.name: region.currency for region in job.regions.region}
    regions = job.spark.createDataFrame(list(currency.items()), "region string, region_currency string")
    own = F.col("products.currency") == F.col("region_currency")
    cost, minimum = F.when(own, F.col("unit_cost_cents")), F.when(own, F.col("minimum_advertised_price_cents"))
    price = F.coalesce("sale_price_cents", "list_price_cents")
    assumed = _up(price * (BPS - pricing.assumed_margin_bps))
    prices = job.fact("prices").select(
        "region", "sku", "list_price_cents", "sale_price_cents", F.col("currency").alias("price_currency")
    )
    known = (
        job.fact("products")
        .alias("products")
        .crossJoin(F.broadcast(regions))
        .join(prices, ["region", "sku"], "left")
        .where(F.col("price_currency").isNull() | (F.col("price_currency") == F.col("region_currency")))
    )
    floor = F.greatest(F.coalesce(_up(cost * (BPS + pricing.min_margin_bps)), assumed), minimum)
    return known.select(
        "region",
        "sku",
        price.cast("long").alias("price_cents"),
        F.coalesce(cost, assumed).cast("long").alias("cost_cents"),
        floor.cast("long").alias("floor_cents"),
    )


def _up(scaled: Column) -> Column:
    """A product with basis points, brought back to minor units, rounded up: a floor is never a cent too low."""
    return F.ceil(scaled / BPS).cast("long")


def _parts(job: Job, exploded: DataFrame) -> DataFrame:
    """Each region's components (region, sku) as they will stand in a bundle, with their floors, price and cost."""
    floors = unit_floors(job).persist()
    needed = exploded.select("region", "component.*").dropDuplicates(["region", "sku"])
    of_substitute = floors.select(
        "region", F.col("sku").alias("substitute"), F.col("floor_cents").alias("substitute_floor")
    )
    repaired = (
        needed.select("region", "sku", F.posexplode("substitutes").alias("place", "other"))
        .select("region", "sku", "place", F.col("other.sku").alias("substitute"))
        .join(of_substitute, ["region", "substitute"], "left")
        .groupBy("region", "sku")
        .agg(F.array_sort(F.collect_list(F.struct("place", "substitute", "substitute_floor"))).alias("others"))
    )
    stands_in = F.transform(
        F.coalesce("others", F.array().cast("array<struct<place:int,substitute:string,substitute_floor:bigint>>")),
        lambda other: F.struct(other["substitute"].alias("sku"), other["substitute_floor"].alias("floor_cents")),
    )
    own_floor = F.col("floors.floor_cents").alias("floor_cents")
    return (
        needed.alias("needed")
        .join(repaired, ["region", "sku"], "left")
        .join(floors.alias("floors"), ["region", "sku"], "left")
        .select(
            "region",
            "sku",
            F.struct("sku", "needed.quantity", own_floor, stands_in.alias("substitutes")).alias("part"),
            (F.col("floors.price_cents") * F.col("needed.quantity")).alias("price_cents"),
            (F.col("floors.cost_cents") * F.col("needed.quantity")).alias("cost_cents"),
        )
    )


def _discounted(job: Job, known: DataFrame) -> DataFrame:
    """discount = what is wanted, cut to what the floors leave, in steps, where every component has a price.

    Nothing is taken off where no orders speak for the set itself (`spark_jobs.cold`).

    Wanted is `max_discount_bps` · HALF_AT_LIFT / (HALF_AT_LIFT + lift): what sells together anyway is recommended, not
    discounted.
    """
    wanted = job.rules.pricing.max_discount_bps * HALF_AT_LIFT / (HALF_AT_LIFT + F.col("evidence.lift"))
    room = F.try_divide((F.col("price_cents") - F.col("floor_cents")) * BPS, F.col("price_cents"))
    whole = F.col("known") == F.size("components")
    discount = (F.floor(F.greatest(F.least(wanted, room), F.lit(0)) / STEP_BPS) * STEP_BPS).cast("int")
    counted = F.col("evidence.orders_together") > 0
    discount_bps = F.when(whole & counted, F.coalesce(discount, F.lit(0))).otherwise(0)
    offered = F.col("price_cents") * (BPS - F.col("discount_bps")) / BPS
    return (
        known.withColumn("discount_bps", discount_bps)
        .withColumn("expected_profit_cents", F.when(whole, F.round(offered - F.col("cost_cents"), 2)))
        .withColumn("components", F.col("parts"))
    )
