"""The build of a day as one region gets it: where its rows lie, and how a worker reads them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import SparkSession

from spark_jobs import order_files
from spark_jobs.order_files import File, Folder
from tandem.errors import TandemError
from tandem.regions import Region
from tandem.settings import Settings
from warehouse import lake
from warehouse.tables import BUILT

ROWS = 50_000
"""Rows of a file that are in memory at once, more only where a row group has more."""


@dataclass(frozen=True)
class Source:
    """Files of one table, as a worker reads them."""

    folder: Folder
    files: Sequence[File]

    def read(self, columns: list[str]) -> Iterator[pa.Table]:
        """Their rows, some `ROWS` at once; a column inside a struct is named `struct.column`."""
        system, prefix = self.folder.files()
        for file in self.files:
            with system.open_input_file(prefix + file.path) as opened:
                held = pq.ParquetFile(opened)
                for batch in held.iter_batches(ROWS, columns=columns, use_threads=False):
                    yield pa.Table.from_batches([batch])

    def values(self, column: str) -> int:
        """How many values a column has, as the files say themselves; one inside arrays is named `arrays.column`."""
        system, prefix = self.folder.files()
        found = 0
        for file in self.files:
            with system.open_input_file(prefix + file.path) as opened:
                found += _values(pq.ParquetFile(opened).metadata, column)
        return found

    def dealt(self, hands: int) -> list[Source]:
        """The same files in at most `hands` parts of about the same number of bytes, none of them empty."""
        return [Source(self.folder, part) for part in order_files.dealt(self.files, hands)]


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

    def fact(self, table: str) -> Source:
        """A fact table at the version that the build read; of one with regions, this region's files."""
        files = order_files.active(self.settings, table, self.inputs.get(table))
        own = [file for file in files if file.values.get("region", self.region.name) == self.region.name]
        return Source(order_files.folder(self.settings, table), own)

    def of_day(self, table: str) -> Source:
        """What a job wrote for the day and the region, at the version that this release is made from."""
        return _of_day(self.settings, table, self.as_of, self.region.name, self.outputs.get(table))


def _values(file: pq.FileMetaData, name: str) -> int:
    groups = [file.row_group(number) for number in range(file.num_row_groups)]
    columns = (group.column(at) for group in groups for at in range(group.num_columns))
    return sum(column.num_values for column in columns if column.path_in_schema.replace(".list.element", "") == name)


def _of_day(settings: Settings, table: str, as_of: date, region: str, version: int | None) -> Source:
    files = [file for file in order_files.of_day(settings, table, as_of, version) if file.values["region"] == region]
    return Source(order_files.folder(settings, table), files)


def found(spark: SparkSession, settings: Settings, as_of: date, region: Region) -> RegionBuild:
    """The build of `as_of` for a region. Raises TandemError where there is none."""
    outputs = lake.versions(settings, BUILT)
    for rows in _of_day(settings, "bundles", as_of, region.name, outputs["bundles"]).read(["release_id", "inputs"]):
        for row in rows.slice(0, 1).to_pylist():
            return RegionBuild(spark, settings, region, as_of, row["release_id"], json.loads(row["inputs"]), outputs)
    raise TandemError(f"there is no build of {as_of} for region {region.name}; run tandem build --as-of {as_of}")
