"""Orders as workers read them: the Parquet files of a table's pinned version, without a row passing through the JVM.

A task that reads holds a million lines (about 60 bytes each) or a row group; what it passes on has about 4 bytes a line
and 40 an order, and a task that is given all orders of a level holds 12 bytes a line and 90 an order of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from itertools import chain
from typing import Any
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pyspark.sql import DataFrame

from spark_jobs import delta, in_tasks
from spark_jobs.facts import Job
from spark_jobs.kernels import lines
from tandem.errors import InputError
from tandem.segments import EVERYONE
from tandem.settings import Settings
from warehouse import lake

COLUMNS = ["order_id", "ordered_at", "sku", "quantity", "net_cents", "customer_id"]
CODED = ("sku", "customer_id", "segment")
"""Columns that repeat: read as numbers and the texts they stand for."""
LINES = 1_000_000
"""Lines that a worker reads and packs at once (about 60 and 10 bytes each), more only where a row group has more."""
Batches = Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]
Files = Iterator[list["File"]]
"""Files of each task."""
TEXTS = pa.schema({"segment": pa.string(), "customer_id": pa.string()})
PACKED = "region string, days array<int>, orders long, packed binary"
"""Orders of a file of one region: their days (from 1970-01-01) and number, and themselves, see `orders`."""
PLAIN = {"timestampNtz", "v2Checkpoint", "appendOnly", "invariants", "checkConstraints"}
"""Reader features of Delta that leave the Parquet files as they are."""


@dataclass(frozen=True)
class File:
    """A data file of a table: its path below the table, and its partition's values."""

    path: str
    bytes: int
    values: Mapping[str, str]


@dataclass(frozen=True)
class Folder:
    """Where a table's files lie, as a worker reaches them."""

    uri: str
    options: Mapping[str, str]

    def files(self) -> tuple[pafs.FileSystem, str]:
        """The file system, and what to put before a file's path."""
        if self.options:
            from deltalake.fs import DeltaStorageHandler

            return pafs.PyFileSystem(DeltaStorageHandler(self.uri, dict(self.options))), ""
        return pafs.LocalFileSystem(), f"{self.uri}/"


@dataclass(frozen=True)
class Plan:
    """What a worker needs to read orders: of whom, since when, before when, and in which segment each customer is."""

    sales: Folder
    customers: Folder
    customer_files: Sequence[File]
    members: Folder
    member_files: Sequence[File]
    since: datetime
    before: datetime
    purposes: Mapping[str, Sequence[str]]
    """Region to the purposes that its customers must have agreed to."""


def folder(settings: Settings, table: str) -> Folder:
    return Folder(lake.uri(settings, table), lake.storage_options(settings))


def active(settings: Settings, table: str, version: int | None = None) -> list[File]:
    """The files of `table` at `version`, with what its log says of them.

    Raises InputError where files alone do not say what the table holds (deletion vectors, renamed columns).
    """
    opened = lake.open_table(settings, table, version)
    if further := set(opened.protocol().reader_features or []) - PLAIN:
        raise InputError(
            f"table {table}: its Delta feature {', '.join(sorted(further))} keeps workers from reading its files as "
            "they are; drop the feature (ALTER TABLE … DROP FEATURE), or import the table anew"
        )
    actions = pa.table(opened.get_add_actions(flatten=True))
    found = []
    for row in actions.to_pylist():
        values = {name.partition(".")[2]: value for name, value in row.items() if name.startswith("partition.")}
        found.append(
            File(unquote(row["path"]), row["size_bytes"], {name: str(value) for name, value in values.items()})
        )
    return found


def of_day(settings: Settings, table: str, as_of: date, version: int | None = None) -> list[File]:
    """The files of `table` at `version` (default: the newest) that hold rows of the day."""
    return [file for file in active(settings, table, version) if file.values["as_of"] == f"{as_of}"]


def plan(job: Job, window_days: int, *, in_segments: bool = True) -> Plan:
    """How to read the orders of the `window_days` before as_of; not `in_segments`: all are of everyone."""
    members = of_day(job.settings, "segment_members", job.as_of) if in_segments else []
    return Plan(
        sales=folder(job.settings, "sales_lines"),
        customers=folder(job.settings, "customers"),
        customer_files=active(job.settings, "customers", job.inputs.get("customers")),
        members=folder(job.settings, "segment_members"),
        member_files=members,
        since=_midnight(job.as_of - timedelta(days=window_days)),
        before=_midnight(job.as_of),
        purposes={region.name: region.consent_purposes for region in job.regions.region},
    )


def packed(job: Job, *, in_segments: bool = False) -> DataFrame:
    """Orders of the learning window as rows of PACKED; with their segments where `in_segments`, else without."""
    found = plan(job, job.rules.learning.window_days, in_segments=in_segments)

    def read_files(tasks: Files) -> Iterator[pa.RecordBatch]:
        for files in tasks:
            for part in parts(found, files):
                yield _packed(part, part.cells[0][0])

    return in_tasks.each(job.spark, for_tasks(job, sales_files(job, found)), read_files, PACKED)


def _packed(part: lines.Part, region: str) -> pa.RecordBatch:
    """A row of PACKED."""
    columns = [
        pa.array([region]),
        pa.array([np.unique(part.at // lines.DAY).astype(np.int32)], pa.list_(pa.int32())),
        pa.array([len(part.at)], pa.int64()),
        in_tasks.packed([part]),
    ]
    return pa.record_batch(columns, names=delta.names(PACKED))


def orders(rows: pa.Table, max_basket: int) -> pa.Table:
    """The orders in rows of PACKED, as `lines.orders` gives them."""
    return lines.orders(in_tasks.unpacked(rows["packed"]), max_basket)


def known_days(packed: DataFrame) -> tuple[NDArray[np.int32], int]:
    """The days with orders, ascending, and about how many orders rows of PACKED hold."""
    rows = packed.select("days", "orders").collect()
    known = sorted({day for row in rows for day in row.days})
    return np.array(known, np.int32), sum(row.orders for row in rows)


def drawn(share: float) -> Batches:
    """From rows of PACKED to those with the orders of a share of the customers; see `lines.drawn`."""

    def draw(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for region, part in zip(batch["region"].to_pylist(), in_tasks.unpacked(batch["packed"]), strict=True):
                yield _packed(lines.drawn(part, share), region)

    return draw


def of_table(job: Job, table: str, columns: list[str], how: Callable[[pa.Table], pa.Table], schema: str) -> DataFrame:
    """What `how` makes of rows (`columns`) of a table's pinned version, LINES or a row group of a file at once."""
    where = folder(job.settings, table)
    held = active(job.settings, table, job.inputs.get(table))

    def read_files(tasks: Files) -> Iterator[pa.RecordBatch]:
        for file in chain.from_iterable(tasks):
            for rows in read(where, file, columns):
                yield from how(rows).combine_chunks().to_batches()

    return in_tasks.each(job.spark, for_tasks(job, held), read_files, schema)


def sales_files(job: Job, found: Plan) -> list[File]:
    """The files of sales_lines that may hold orders of the plan."""
    months = {f"{found.since:%Y-%m}", f"{found.before:%Y-%m}"}
    held = active(job.settings, "sales_lines", job.inputs.get("sales_lines"))
    return [
        file
        for file in held
        if file.values["region"] in found.purposes and min(months) <= file.values["month"] <= max(months)
    ]


def for_tasks(job: Job, files: Sequence[File]) -> list[list[File]]:
    """`files` for two rounds of tasks."""
    return dealt(files, 2 * tasks_at_once(job))


def tasks_at_once(job: Job) -> int:
    return max(2, job.settings.shuffle_partitions)


def dealt(files: Sequence[File], hands: int) -> list[list[File]]:
    """`files` in at most `hands` groups of about the same number of bytes, none of them empty."""
    groups: list[list[File]] = [[] for _ in range(min(hands, len(files)))]
    weights = [0] * len(groups)
    for file in sorted(files, key=lambda file: (-file.bytes, file.path)):
        lightest = weights.index(min(weights))
        groups[lightest].append(file)
        weights[lightest] += file.bytes
    return groups


def parts(found: Plan, files: Sequence[File], *, customers: bool = True) -> Iterator[lines.Part]:
    """The orders of each file, a part for so many lines; without `customers` they are nobody's."""
    members: dict[str, dict[str, pa.Array]] = {}
    for region, rows in window(found, files, COLUMNS if customers else COLUMNS[:-1]):
        if region not in members:
            members[region] = _members(found, region)
        if len(held := _bought(rows)):
            yield lines.packed(held, region, members[region], EVERYONE)


def window(found: Plan, files: Sequence[File], columns: list[str]) -> Iterator[tuple[str, pa.Table]]:
    """Region and lines (`columns`, among them ordered_at) of files, so many at once: all that may be learned from.

    Returns are among them.
    """
    willing: dict[str, pa.Array] = {}
    for file in files:
        region = file.values["region"]
        purposes = found.purposes[region]
        if purposes and region not in willing:
            willing[region] = _willing(found, purposes)
        for rows in read(found.sales, file, list({*columns, "customer_id"}) if purposes else columns):
            at = rows["ordered_at"]
            since, before = (pa.scalar(moment, at.type) for moment in (found.since, found.before))
            keep = pc.and_(pc.greater_equal(at, since), pc.less(at, before))
            if purposes:
                agreed = pc.is_in(rows["customer_id"], willing[region])
                keep = pc.and_(keep, pc.or_(pc.is_null(rows["customer_id"]), agreed))
            if len(held := _where(rows.select(columns), keep)):
                yield region, held


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)


def read(where: Folder, file: File, columns: list[str]) -> Iterator[pa.Table]:
    """The rows of a file, LINES or a row group at once."""
    system, prefix = where.files()
    with system.open_input_file(prefix + file.path) as source:
        held = pq.ParquetFile(source, read_dictionary=[name for name in CODED if name in columns])
        waiting, rows = [], 0
        for group in range(held.num_row_groups):
            waiting.append(group)
            rows += held.metadata.row_group(group).num_rows
            if rows >= LINES or group == held.num_row_groups - 1:
                yield held.read_row_groups(waiting, columns=columns, use_threads=False)
                waiting, rows = [], 0


def _bought(rows: pa.Table) -> pa.Table:
    """The lines of which something was bought."""
    bought = pc.and_(pc.greater(rows["quantity"], 0), pc.greater(rows["net_cents"], 0))
    return _where(rows.drop_columns(["quantity", "net_cents"]), bought)


def _where(rows: pa.Table, keep: pa.ChunkedArray) -> pa.Table:
    return rows if pc.all(keep).as_py() else rows.filter(keep)


def _members(found: Plan, region: str) -> dict[str, pa.Array]:
    """Each segment's customers in a region."""
    own = [file for file in found.member_files if file.values["region"] == region]
    if not own:
        return {}
    tables = [rows for file in own for rows in read(found.members, file, ["segment", "customer_id"])]
    if not tables:
        return {}
    held = pa.concat_tables([table.cast(TEXTS) for table in tables])
    names = pc.unique(held["segment"]).to_pylist()
    return {
        name: held.filter(pc.equal(held["segment"], name))["customer_id"].cast(pa.string()).combine_chunks()
        for name in sorted(names)
    }


def _willing(found: Plan, purposes: Sequence[str]) -> pa.Array:
    """Customers who agreed to all of `purposes`."""
    columns = ["customer_id", "consents"]
    tables = [table for file in found.customer_files for table in read(found.customers, file, columns)]
    rows: list[dict[str, Any]] = [row for table in tables for row in table.to_pylist()]
    return pa.array([row["customer_id"] for row in rows if set(purposes) <= set(row["consents"] or [])], pa.string())
