"""Delta tables as DuckDB views: only the files of a snapshot are named, and only what a query needs is read."""

# ruff: noqa: S608 - names in this SQL are ours, values are quoted
from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from urllib.parse import unquote

import duckdb
from deltalake import DeltaTable

from tandem.settings import Settings
from warehouse import lake
from warehouse.tables import TABLES, Array, Struct, Table, Type

SQL_TYPES = {
    "string": "VARCHAR",
    "integer": "INTEGER",
    "long": "BIGINT",
    "double": "DOUBLE",
    "boolean": "BOOLEAN",
    "date": "DATE",
    "timestamp": "TIMESTAMP WITH TIME ZONE",
    "decimal(12,3)": "DECIMAL(12,3)",
}
"""DuckDB's name of each of Delta's types."""


def connect(settings: Settings, names: Iterable[str] = (), *, memory_limit: str = "1500MB") -> Any:
    """A DuckDB connection in UTC with a view for each of the tables `names`.

    What outgrows `memory_limit` goes to a folder in `$TANDEM_HOME`.
    """
    connection = duckdb.connect(config={"memory_limit": memory_limit})
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute(f"SET temp_directory = {quoted(str(settings.home.absolute() / 'tmp'))}")
    for name in names:
        view(connection, settings, TABLES[name])
    return connection


def view(connection: Any, settings: Settings, table: Table, version: int | None = None) -> None:
    """Make `table` (as of `version`) a view of `connection`. Raises InputError where it was never made."""
    opened = lake.open_table(settings, table.name, version)
    columns = ", ".join(f'CAST("{name}" AS {sql_type(kind)}) AS "{name}"' for name, kind in _columns(table))
    none = ", ".join(f'NULL AS "{name}"' for name in table.names)
    nothing = f"SELECT {columns} FROM (SELECT {none}) WHERE false"
    if not opened.file_uris():
        connection.execute(f"CREATE VIEW {table.name} AS {nothing}")
        return
    if opened.table_uri.startswith("s3:"):
        connection.register(f"_{table.name}", opened.to_pyarrow_dataset())
        source = f"_{table.name}"
    else:
        source = _files(opened, table)
    try:
        connection.execute(f"CREATE VIEW {table.name} AS SELECT {columns} FROM {source}")
    except duckdb.BinderException:  # every file is older than one of the columns
        padded = f"SELECT * FROM {source} UNION ALL BY NAME {nothing}"
        connection.execute(f"CREATE VIEW {table.name} AS SELECT {columns} FROM ({padded})")


def sql_type(kind: Type) -> str:
    """DuckDB's name of a column's type."""
    if isinstance(kind, Array):
        return f"{sql_type(kind.of)}[]"
    if isinstance(kind, Struct):
        return "STRUCT(" + ", ".join(f'"{column.name}" {sql_type(column.type)}' for column in kind.columns) + ")"
    return SQL_TYPES[kind]


def first(connection: Any, statement: str) -> tuple[Any, ...]:
    """The first row that `statement` gives."""
    row: tuple[Any, ...] = connection.sql(statement).fetchall()[0]
    return row


def quoted(text: str) -> str:
    """`text` as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def _columns(table: Table) -> list[tuple[str, Type]]:
    return [(column.name, column.type) for column in table.columns]


def _files(opened: DeltaTable, table: Table) -> str:
    """DuckDB's reader over the snapshot's files, partition values taken from their folders."""
    files = ", ".join(quoted(_path(uri)) for uri in sorted(opened.file_uris()))
    types = ", ".join(f"'{name}': {sql_type(dict(_columns(table))[name])}" for name in table.partitions)
    hive = f", hive_partitioning = true, hive_types = {{{types}}}" if types else ", hive_partitioning = false"
    return f"read_parquet([{files}]{hive}, union_by_name = true)"


def _path(uri: str) -> str:
    path = unquote(uri.removeprefix("file://")) if uri.startswith("file://") else uri
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in path)
