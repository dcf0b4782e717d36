"""The build of a day as one region gets it: where its rows lie."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

from pyspark.sql import SparkSession

from spark_jobs import parquet_files
from spark_jobs.parquet_files import Held
from tandem.errors import TandemError
from tandem.regions import Region
from tandem.settings import Settings
from warehouse import lake
from warehouse.tables import BUILT, TABLES


@dataclass(frozen=True)
class RegionBuild:
    """The build of a day as one region gets it."""

    spark: SparkSession
    settings: Settings
    region: Region
    as_of: date
    release_id: str
    inputs: Mapping[str, int]
    outputs: Mapping[str, int]
    """Delta version of each table that a build writes."""
    fence: int | None = None
    """Of the publisher's lease on the region; every write carries it."""

    def fact(self, table: str) -> Held:
        """A fact table at the version that the build read; of one with regions, this region's files."""
        here = {"region": self.region.name} if "region" in TABLES[table].partitions else {}
        return parquet_files.held(self.settings, table, self.inputs.get(table), **here)

    def of_day(self, table: str) -> Held:
        """What a job wrote for the day and the region, at the version that this release is made from."""
        return _of_day(self.settings, table, self.as_of, self.region.name, self.outputs.get(table))


def _of_day(settings: Settings, table: str, as_of: date, region: str, version: int | None) -> Held:
    return parquet_files.held(settings, table, version, as_of=f"{as_of}", region=region)


def found(spark: SparkSession, settings: Settings, as_of: date, region: Region) -> RegionBuild:
    """The build of `as_of` for a region. Raises TandemError where there is none."""
    outputs = lake.versions(settings, BUILT)
    for rows in _of_day(settings, "bundles", as_of, region.name, outputs["bundles"]).read(["release_id", "inputs"]):
        for row in rows.slice(0, 1).to_pylist():
            return RegionBuild(spark, settings, region, as_of, row["release_id"], json.loads(row["inputs"]), outputs)
    raise TandemError(f"there is no build of {as_of} for region {region.name}; run tandem build --as-of {as_of}")
