"""The build of a day as one region gets it: its lists with their evidence, and its bundles, as the edge keeps them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from spark_jobs import delta
from tandem.bundle import AnchorList, Bundle, Component, Listed, Substitute
from tandem.regions import Region
from tandem.settings import Settings


@dataclass(frozen=True)
class RegionBuild:
    """The build of a day as one region gets it."""

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

    def lists(self) -> DataFrame:
        """Each list (segment, anchor, bundles), each place with its bundle's evidence and discount in that segment."""
        told = self.of_day("bundles").select(
            "segment", "bundle_id", "evidence.orders_together", "evidence.lift", "discount_bps"
        )
        sets = self.of_day("bundle_sets")
        place = sets.select("segment", "anchor", F.posexplode("bundles").alias("place", "entry"))
        joined = place.select("segment", "anchor", "place", "entry.*").join(told, ["segment", "bundle_id"])
        entry = F.struct("place", "bundle_id", "confidence", "matched", "orders_together", "lift", "discount_bps")
        return joined.groupBy("segment", "anchor").agg(F.array_sort(F.collect_list(entry)).alias("bundles"))

    def bodies(self) -> DataFrame:
        """Each bundle once (bundle_id, components): components and floors are a region's, whatever the segment."""
        return self.of_day("bundles").dropDuplicates(["bundle_id"]).select("bundle_id", "components")


def anchor_list(row: dict[str, object]) -> AnchorList:
    places = tuple(
        Listed(
            bundle_id=place["bundle_id"],
            confidence=round(place["confidence"], 4),
            matched=place["matched"],
            orders_together=place["orders_together"],
            lift=round(place["lift"], 2),
            discount_bps=place["discount_bps"],
        )
        for place in row["bundles"]  # type: ignore[attr-defined]
    )
    return AnchorList(segment=str(row["segment"]), anchor=str(row["anchor"]), bundles=places)


def bundle_of(row: dict[str, object]) -> Bundle:
    return Bundle(
        id=str(row["bundle_id"]),
        components=tuple(
            Component(
                sku=part["sku"],
                quantity=part["quantity"],
                floor=part["floor_cents"],
                substitutes=tuple(Substitute(other["sku"], other["floor_cents"]) for other in part["substitutes"]),
            )
            for part in row["components"]  # type: ignore[attr-defined]
        ),
    )
