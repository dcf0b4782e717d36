"""Delta tables from Spark: read a pinned version, replace exactly one day."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import StructType

from tandem.settings import Settings
from warehouse import lake
from warehouse.tables import TABLES, Table


def uri(settings: Settings, table: str) -> str:
    return f"{settings.lake_root}/{table}"


def names(ddl: str) -> list[str]:
    """The columns of a schema that is written `name type, name type`."""
    return [part.split()[0] for part in ddl.replace("\n", " ").split(", ")]


def schema(table: Table) -> StructType:
    return StructType.fromJson(table.schema())


def read(spark: SparkSession, settings: Settings, table: str, inputs: Mapping[str, int] | None = None) -> DataFrame:
    """`table` at the version that `inputs` pins, else the newest."""
    reader = spark.read.format("delta")
    if inputs and table in inputs:
        reader = reader.option("versionAsOf", inputs[table])
    return reader.load(uri(settings, table))


def read_day(spark: SparkSession, settings: Settings, table: str, as_of: date) -> DataFrame:
    return read(spark, settings, table).where(F.col("as_of") == F.lit(as_of))


def put_day(rows: pa.Table, settings: Settings, table: str, as_of: date) -> None:
    """`replace_day` of rows that are here already, as they grow with neither orders nor customers."""
    declared = TABLES[table]
    typed = rows.select(declared.names).cast(lake.arrow_schema(declared))
    lake.replace(settings, declared, typed, f"as_of = '{as_of}'")


def replace_day(rows: DataFrame, settings: Settings, table: str, as_of: date) -> None:
    """Put `rows` in the place of all rows of `as_of`, in one commit; a killed writer leaves the old ones.

    A table made by an older Tandem gains the columns that it lacks.
    """
    declared = TABLES[table]
    (
        rows.select(declared.names)
        .write.format("delta")
        .mode("overwrite")
        .option("mergeSchema", "true")
        .option("replaceWhere", f"as_of = DATE'{as_of:%Y-%m-%d}'")
        .save(uri(settings, table))
    )
