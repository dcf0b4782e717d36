"""The build of a day as one region gets it: its lists with their evidence, and its bundles, as the edge keeps them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import Any

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from spark_jobs import delta
from tandem.bundle import AnchorList, Bundle, Component, Listed, Story, Substitute
from tandem.regions import Region
from tandem.settings import Settings


@dataclass(frozen=True)
class RegionBuild:
    """The build of a day as one region gets it. Its lists and bodies are kept between the steps that read them."""

    spark: SparkSession
    settings: Settings
    region: Region
    as_of: date
    release_id: str
    inputs: dict[str, int]

    def fact(self, table: str) -> DataFrame:
        return delta.read(self.spark, self.settings, table, self.inputs)

    def of_day(self, table: str) -> DataFrame:
        return delta.read_day(self.spark, self.settings, table, self.as_of).where(F.col("region") == self.region.name)

    @cached_property
    def lists(self) -> DataFrame:
        """Each list (segment, anchor, bundles); a place has `own` where its segment tells another story."""
        own = self.of_day("bundles").select("segment", "bundle_id", _story().alias("own"))
        body = self.bodies.select("bundle_id", F.struct(*STORY).alias("told"))
        place = self.of_day("bundle_sets").select("segment", "anchor", F.posexplode("bundles").alias("place", "entry"))
        joined = (
            place.select("segment", "anchor", "place", "entry.*")
            .join(own, ["segment", "bundle_id"])
            .join(body, "bundle_id")
        )
        different = F.when(F.col("own") != F.col("told"), F.col("own")).alias("own")
        entry = F.struct("place", "bundle_id", "confidence", "matched", different)
        return joined.groupBy("segment", "anchor").agg(F.array_sort(F.collect_list(entry)).alias("bundles")).persist()

    @cached_property
    def bodies(self) -> DataFrame:
        """Each bundle once, as most of its lists tell it: the whole region's story, else that of the first segment."""
        told = self.of_day("bundles").select(
            "segment", "bundle_id", F.struct("components", _story().alias("own")).alias("body")
        )
        first = told.groupBy("bundle_id").agg(F.min_by("body", "segment").alias("body"))
        return first.select("bundle_id", "body.components", "body.own.*").persist()


STORY = ("orders_together", "lift", "discount_bps")


def _story() -> Column:
    return F.struct("evidence.orders_together", "evidence.lift", "discount_bps")


def anchor_list(row: dict[str, Any]) -> AnchorList:
    """A row of `lists` as the edge keeps it."""
    places = tuple(
        Listed(place["bundle_id"], round(place["confidence"], 4), place["matched"], _own(place.get("own")))
        for place in row["bundles"]
    )
    return AnchorList(segment=row["segment"], anchor=row["anchor"], bundles=places)


def _own(told: dict[str, Any] | None) -> Story | None:
    return told and Story(told["orders_together"], round(told["lift"], 2), told["discount_bps"])


def bundle_of(row: dict[str, Any]) -> Bundle:
    """A row of `bodies` as the edge keeps it."""
    return Bundle(
        id=row["bundle_id"],
        components=tuple(
            Component(
                sku=part["sku"],
                quantity=part["quantity"],
                floor=part.get("floor_cents"),
                substitutes=tuple(Substitute(other["sku"], other.get("floor_cents")) for other in part["substitutes"]),
            )
            for part in row["components"]
        ),
        discount_bps=row["discount_bps"],
        orders_together=row["orders_together"],
        lift=round(row["lift"], 2),
    )
