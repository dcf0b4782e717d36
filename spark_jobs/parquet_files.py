"""Data files of a Delta table written by workers, and the one commit that makes them a day's rows."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any
from urllib.parse import quote

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import CommitProperties, Schema
from deltalake.transaction import AddAction

from spark_jobs.order_files import Folder
from tandem.errors import InputError
from tandem.settings import Settings
from warehouse import lake
from warehouse.tables import TABLES, Table

ROWS = 500_000
"""In a row group."""


@dataclass(frozen=True)
class Written:
    """A data file that no commit names yet."""

    path: str
    """Below the table, as its folders and file are called."""
    bytes: int
    values: Mapping[str, str]
    stats: str


def write(where: Folder, table: Table, values: Mapping[str, str], rows: pa.Table) -> Written:
    """Write `rows` (the columns of `table` but for its partitions', whose `values` are given) as one file.

    Raises InputError where a row breaks a constraint of the table or a required value is missing: nothing else checks
    files that are committed by name.
    """
    _check(table, values, rows)
    name = f"part-{uuid.uuid4()}.parquet"
    path = "/".join([*(f"{key}={quote(value, safe='')}" for key, value in values.items()), name])
    system, prefix = where.files()
    if not where.options:
        system.create_dir((prefix + path).rpartition("/")[0])
    coded = [field.name for field in rows.schema if not pa.types.is_floating(field.type)]
    with system.open_output_stream(prefix + path) as file:
        pq.write_table(rows, file, row_group_size=ROWS, use_dictionary=coded, store_schema=False)
        size = file.tell()
    return Written(path, size, dict(values), _stats(rows))


def replace_day(
    settings: Settings, table: str, as_of: date, files: Sequence[Written], told: Mapping[str, Any] | None = None
) -> None:
    """Put the rows of `files` in the place of all rows of `as_of`, in one commit; a killed writer leaves the old ones.

    `told` is kept with the commit, for whoever reads the table's history.
    """
    declared = TABLES[table]
    now = int(time.time() * 1000)
    lake.open_table(settings, table).create_write_transaction(
        [AddAction(file.path, file.bytes, file.values, now, True, file.stats) for file in files],
        mode="overwrite",
        schema=Schema.from_json(declared.schema_json()),
        partition_by=list(declared.partitions),
        partition_filters=[("as_of", "=", f"{as_of}")],
        commit_properties=CommitProperties(custom_metadata={"tandem": "replace_day", **(told or {})}),
    )


def _check(table: Table, values: Mapping[str, str], rows: pa.Table) -> None:
    given = {*values, *rows.column_names}
    if missing := [column.name for column in table.columns if column.name not in given]:
        raise InputError(f"table {table.name}: column {missing[0]} is missing from what was computed")
    for column in table.columns:
        if column.required and column.name not in values and rows[column.name].null_count:
            raise InputError(f"table {table.name}: column {column.name} must not be null")
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.register("rows", rows)
        for name, sql in table.constraints.items():
            broken = connection.execute(f"SELECT count(*) FROM rows WHERE NOT ({sql})").fetchone()  # noqa: S608 - ours
            if broken[0]:
                raise InputError(f"table {table.name}: {broken[0]} rows break the constraint {name}: {sql}")


def _stats(rows: pa.Table) -> str:
    """Delta's statistics of every column that is not nested: `deltalake`'s datasets pass over files that lack some."""
    plain = [name for name in rows.column_names if not pa.types.is_nested(rows[name].type)]
    ends = {name: pc.min_max(_texts(rows[name])).as_py() for name in plain}
    return json.dumps(
        {
            "numRecords": len(rows),
            "minValues": {name: each["min"] for name, each in ends.items()},
            "maxValues": {name: each["max"] for name, each in ends.items()},
            "nullCount": {name: rows[name].null_count for name in plain},
        }
    )


def _texts(column: pa.ChunkedArray) -> pa.Array:
    """The distinct values of a column of texts by dictionary; any other as it is."""
    held = column.combine_chunks()
    return held.dictionary.take(pc.unique(held.indices)) if isinstance(held, pa.DictionaryArray) else held
