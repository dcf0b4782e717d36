"""The lake without Spark: where each table lies, and how it is made, read and replaced through delta-rs."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
from deltalake import CommitProperties, DeltaTable, Schema, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError, TableNotFoundError

from tandem.errors import InputError
from tandem.settings import Settings
from warehouse.tables import INPUTS, NAMED, TABLES, Array, Column, Struct, Table, Type

ARROW_TYPES = {
    "string": pa.string(),
    "integer": pa.int32(),
    "long": pa.int64(),
    "double": pa.float64(),
    "boolean": pa.bool_(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us", "UTC"),
    "decimal(12,3)": pa.decimal128(12, 3),
}
"""Arrow's type for each of Delta's."""

KEPT = {"delta.deletedFileRetentionDuration": "interval 365 days", "delta.logRetentionDuration": "interval 365 days"}
"""Of tables whose versions releases name: what a VACUUM that knows of no release leaves, and how far back one reads."""


def uri(settings: Settings, table: str) -> str:
    """Where `table` lies, as delta-rs writes addresses (`s3://`; Spark says `s3a://`)."""
    root = settings.lake_root
    return f"{'s3' + root[3:] if root.startswith('s3a:') else root}/{table}"


def storage_options(settings: Settings) -> dict[str, str]:
    """What delta-rs needs to reach the lake; empty for a folder. One writer at a time is kept by conditional PUT."""
    if not settings.lake_root.startswith("s3"):
        return {}
    options = {
        "AWS_REGION": settings.s3_region,
        "AWS_ACCESS_KEY_ID": settings.s3_access_key,
        "AWS_SECRET_ACCESS_KEY": settings.s3_secret,
        "conditional_put": "etag",
    }
    if settings.s3_endpoint:
        options |= {"AWS_ENDPOINT_URL": settings.s3_endpoint, "AWS_ALLOW_HTTP": "true"}
    return {key: value for key, value in options.items() if value}


def exists(settings: Settings, table: str) -> bool:
    return DeltaTable.is_deltatable(uri(settings, table), storage_options(settings))


def files(settings: Settings, table: str) -> pafs.FileSystem:
    """Where the files of `table` are opened by the paths that its log names."""
    if options := storage_options(settings):
        from deltalake.fs import DeltaStorageHandler

        return pafs.PyFileSystem(DeltaStorageHandler(uri(settings, table), options))
    return pafs.SubTreeFileSystem(uri(settings, table), pafs.LocalFileSystem())


def open_table(settings: Settings, table: str, version: int | None = None) -> DeltaTable:
    """`table` as of `version` (default: newest). Raises InputError where it was never made."""
    try:
        return DeltaTable(uri(settings, table), version=version, storage_options=storage_options(settings))
    except TableNotFoundError as error:
        raise InputError(f"table {table} does not exist in {settings.lake_root}; import data first") from error


def create(settings: Settings, tables: Iterable[Table] = TABLES.values()) -> None:
    """Make the tables that do not exist yet, with their comments, partitions and constraints."""
    for table in tables:
        made = _made(settings, table)
        _widen(made, table)
        held = made.metadata().configuration
        missing = {name: sql for name, sql in table.constraints.items() if f"delta.constraints.{name}" not in held}
        if missing:
            made.alter.add_constraint(missing)
        if not _properties(table).items() <= held.items():
            made.alter.set_table_properties(_properties(table))


def _properties(table: Table) -> dict[str, str]:
    return KEPT if table.name in NAMED else {}


def _made(settings: Settings, table: Table) -> DeltaTable:
    try:
        return DeltaTable.create(
            uri(settings, table.name),
            schema=Schema.from_json(table.schema_json()),
            mode="ignore",
            partition_by=list(table.partitions),
            configuration=_properties(table),
            name=table.name,
            description=f"One row per {table.grain}.",
            storage_options=storage_options(settings),
        )
    except CommitFailedError:  # another process made it at the same moment
        return open_table(settings, table.name)


def _widen(made: DeltaTable, table: Table) -> None:
    """Add the optional columns that a table made by an earlier version lacks; its rows have null there."""
    held = {field.name for field in made.schema().fields}
    declared = Schema.from_json(table.schema_json()).fields
    missing = [field for field in declared if field.name not in held and field.nullable]
    if missing:
        with suppress(CommitFailedError):  # another process does the same
            made.alter.add_columns(missing)


def arrow_schema(table: Table) -> pa.Schema:
    """The table's schema for pyarrow, down to which nested values may be null (delta-rs's `to_arrow` forgets that)."""
    return pa.schema([_arrow_field(column) for column in table.columns])


def _arrow_field(column: Column) -> pa.Field:
    return pa.field(column.name, _arrow_type(column.type), nullable=not column.required)


def _arrow_type(kind: Type) -> pa.DataType:
    if isinstance(kind, Array):
        return pa.list_(pa.field("element", _arrow_type(kind.of), nullable=False))
    if isinstance(kind, Struct):
        return pa.struct([_arrow_field(column) for column in kind.columns])
    return ARROW_TYPES[kind]


def replace(
    settings: Settings, table: Table, rows: pa.Table | pa.RecordBatchReader, predicate: str | None = None
) -> None:
    """Put `rows` in the place of what `predicate` selects (None: of everything), in one commit."""
    write_deltalake(
        open_table(settings, table.name),
        rows,
        mode="overwrite",
        predicate=predicate,
        commit_properties=_by("replace"),
    )


def append(settings: Settings, table: Table, rows: pa.Table | pa.RecordBatchReader) -> None:
    """Add `rows` in one commit."""
    write_deltalake(open_table(settings, table.name), rows, mode="append", commit_properties=_by("append"))


def append_once(settings: Settings, table: Table, rows: pa.Table, writer: str, number: int) -> bool:
    """`append` that which `writer` numbers so, unless this or a later number of it was appended; gives whether it was.

    Rows and number are one commit: a writer that is killed and does its last work again doubles nothing.
    """
    opened = open_table(settings, table.name)
    held = opened.transaction_version(writer)
    if held is not None and held >= number:
        return False
    told = CommitProperties(custom_metadata={"tandem": "append"}, app_transactions=[Transaction(writer, number)])
    write_deltalake(opened, rows, mode="append", commit_properties=told)
    return True


def append_after(opened: DeltaTable, rows: pa.Table, writer: str) -> bool:
    """Add `rows` to the version that was `opened`; False, and nothing is added, where a `writer` did so meanwhile.

    So two that first look at what is there and then add to it never add the same.
    """
    told = CommitProperties(
        custom_metadata={"tandem": "append"}, app_transactions=[Transaction(writer, opened.version())]
    )
    try:
        write_deltalake(opened, rows, mode="append", commit_properties=told)
    except CommitFailedError as error:
        if "Concurrent transaction" not in str(error):
            raise
        return False
    return True


def versions(settings: Settings, names: Iterable[str] = INPUTS) -> dict[str, int]:
    """The newest Delta version of each table."""
    return {name: open_table(settings, name).version() for name in names}


def _by(what: str) -> Any:
    return CommitProperties(custom_metadata={"tandem": what})
