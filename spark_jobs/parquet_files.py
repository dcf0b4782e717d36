"""Data files of a Delta table: read by workers, written by workers, and the one commit that makes them a day's rows."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any
from urllib.parse import quote

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.parquet as pq
from deltalake import CommitProperties, Schema
from deltalake.transaction import AddAction

from spark_jobs import order_files
from spark_jobs.order_files import File, Folder
from tandem.errors import InputError
from tandem.settings import Settings
from warehouse import lake
from warehouse.tables import TABLES, Table

ROWS = 500_000
"""In a row group."""
READ_ROWS = 50_000
"""Rows of a file that are in memory at once, more only where a row group has more."""


@dataclass(frozen=True)
class Held:
    """Data files of a table at one version, for workers to read."""

    table: Table
    where: Folder
    files: Sequence[File]

    def rows(self, columns: Sequence[str], **values: str) -> pa.Table:
        """`columns` of all files of the partitions that have `values`."""
        kinds = schema(self.table)
        nothing = pa.schema([kinds.field(name) for name in columns]).empty_table()
        return pa.concat_tables([nothing, *self.each(columns, **values)])

    def each(self, columns: Sequence[str], **values: str) -> Iterator[pa.Table]:
        """`rows` file by file; a column that an older file lacks is null."""
        system, prefix = self.where.files()
        for file in self.files:
            if values.items() <= file.values.items():
                path = prefix + file.path
                held = pads.dataset(path, schema(self.table), format="parquet", filesystem=system)
                yield held.to_table(list(columns), use_threads=False)

    def read(self, columns: list[str]) -> Iterator[pa.Table]:
        """`columns` of all files, some rows at once; a column inside a struct is named `struct.column`.

        A column that an older file lacks is null.
        """
        kinds = schema(self.table)
        for file in self._opened():
            lacking = [name for name in columns if name.partition(".")[0] not in file.schema_arrow.names]
            for batch in file.iter_batches(READ_ROWS, columns=columns, use_threads=False):
                rows = pa.Table.from_batches([batch])
                for name in lacking:
                    rows = rows.append_column(name, pa.nulls(len(rows), kinds.field(name).type))
                yield rows

    def values(self, column: str) -> int:
        """How many values a column has, as the files say themselves; one inside arrays is named `arrays.column`."""
        return sum(_values(file.metadata, column) for file in self._opened())

    def dealt(self, hands: int) -> list[Held]:
        """The same files in at most `hands` parts of about the same number of bytes, none of them empty."""
        return [replace(self, files=part) for part in order_files.dealt(self.files, hands)]

    def _opened(self) -> Iterator[pq.ParquetFile]:
        system, prefix = self.where.files()
        for file in self.files:
            with system.open_input_file(prefix + file.path) as opened:
                yield pq.ParquetFile(opened)


def _values(file: pq.FileMetaData, name: str) -> int:
    groups = [file.row_group(number) for number in range(file.num_row_groups)]
    columns = (group.column(at) for group in groups for at in range(group.num_columns))
    return sum(column.num_values for column in columns if column.path_in_schema.replace(".list.element", "") == name)


def schema(table: Table) -> pa.Schema:
    """The columns of the files of `table`: all but its partitions'. Any may be null here; `write` checks."""
    return pa.schema(
        [(field.name, _kind(field.type)) for field in lake.arrow_schema(table) if field.name not in table.partitions]
    )


def _kind(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_list(kind):
        return pa.list_(pa.field("element", _kind(kind.value_type)))
    if pa.types.is_struct(kind):
        return pa.struct([(field.name, _kind(field.type)) for field in kind])
    return kind


def held(settings: Settings, table: str, version: int | None = None, **values: str) -> Held:
    """The files of `table` (default: as it is now) in the partitions that have `values`; see `order_files.active`."""
    files = order_files.active(settings, table, version)
    inside = [file for file in files if values.items() <= file.values.items()]
    return Held(TABLES[table], order_files.folder(settings, table), inside)


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
    coded = [path for field in rows.schema for path in _coded(field.type, field.name)]
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


def _coded(kind: pa.DataType, path: str) -> Iterator[str]:
    """The columns of a file that are worth a dictionary: all but fractions."""
    if pa.types.is_list(kind):
        yield from _coded(kind.value_type, f"{path}.list.element")
    elif pa.types.is_struct(kind):
        for field in kind:
            yield from _coded(field.type, f"{path}.{field.name}")
    elif not pa.types.is_floating(kind):
        yield path


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
