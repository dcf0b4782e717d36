"""Orders as workers read them: the Parquet files of a table's pinned version, without a row passing through the JVM.

A task that reads holds a million lines (about 60 bytes each) or a row group; what it passes on has about 4 bytes a line
and 40 an order, and a task that is given all orders of a level holds 12 bytes a line and 90 an order of them.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs
import pyarrow.parquet as pq
from pyspark.sql import DataFrame

from spark_jobs import delta
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
    groups = dealt(sales_files(job, found), 2 * max(2, job.settings.shuffle_partitions))
    numbers = job.spark.range(0, len(groups), 1, max(len(groups), 1))
    return numbers.mapInArrow(_reader(found, groups), PACKED)


def _reader(found: Plan, groups: list[list[File]]) -> Batches:
    def read_groups(numbers: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in numbers:
            for number in batch["id"].to_pylist():
                for part in parts(found, groups[number]):
                    yield _packed(part, part.cells[0][0])

    return read_groups


def _packed(part: lines.Part, region: str) -> pa.RecordBatch:
    """A row of PACKED."""
    columns = [
        pa.array([region]),
        pa.array([np.unique(part.at // lines.DAY).astype(np.int32)], pa.list_(pa.int32())),
        pa.array([len(part.at)], pa.int64()),
        pa.array([pickle.dumps(part, protocol=5)], pa.binary()),
    ]
    return pa.record_batch(columns, names=delta.names(PACKED))


def orders(rows: pa.Table, max_basket: int) -> pa.Table:
    """The orders in rows of PACKED, as `lines.orders` gives them."""
    return lines.orders([unpacked(value) for value in rows["packed"]], max_basket)


def drawn(share: float) -> Batches:
    """From rows of PACKED to those with the orders of a share of the customers; see `lines.drawn`."""

    def draw(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for row, value in enumerate(batch["packed"]):
                yield _packed(lines.drawn(unpacked(value), share), batch["region"][row].as_py())

    return draw


def unpacked(value: pa.Scalar) -> lines.Part:
    """The orders in a value of a column `packed`."""
    part: lines.Part = pickle.loads(value.as_buffer())  # noqa: S301 - this job's own
    return part


def of_table(job: Job, table: str, columns: list[str], how: Callable[[pa.Table], pa.Table], schema: str) -> DataFrame:
    """What `how` makes of rows (`columns`) of a table's pinned version, LINES or a row group of a file at once."""
    where = folder(job.settings, table)
    files = sorted(active(job.settings, table, job.inputs.get(table)), key=lambda file: (-file.bytes, file.path))
    groups = dealt(files, 2 * max(2, job.settings.shuffle_partitions))

    def read_groups(numbers: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in numbers:
            for number in batch["id"].to_pylist():
                for file in groups[number]:
                    for rows in read(where, file, columns):
                        yield from how(rows).combine_chunks().to_batches()

    return job.spark.range(0, len(groups), 1, max(len(groups), 1)).mapInArrow(read_groups, schema)


def sales_files(job: Job, found: Plan) -> list[File]:
    """The files of sales_lines that may hold orders of the plan, largest first."""
    months = {f"{found.since:%Y-%m}", f"{found.before:%Y-%m}"}
    held = active(job.settings, "sales_lines", job.inputs.get("sales_lines"))
    inside = [
        file
        for file in held
        if file.values["region"] in found.purposes and min(months) <= file.values["month"] <= max(months)
    ]
    return sorted(inside, key=lambda file: (-file.bytes, file.path))


def dealt(files: Sequence[File], hands: int) -> list[list[File]]:
    """`files` (largest first) in at most `hands` groups of about the same number of bytes."""
    groups: list[list[File]] = [[] for _ in range(min(hands, len(files)))]
    weights = [0] * len(groups)
    for file in files:
        lightest = weights.index(min(weights))
        groups[lightest].append(file)
        weights[lightest] += file.bytes
    return groups


def parts(found: Plan, files: Sequence[File]) -> Iterator[lines.Part]:
    """The orders of each file, a part for so many lines."""
    members: dict[str, dict[str, pa.Array]] = {}
    willing: dict[str, pa.Array] = {}
    for file in files:
        region = file.values["region"]
        if region not in members:
            members[region] = _members(found, region)
        for rows in read(found.sales, file, COLUMNS):
            held = _counted(found, rows)
            if purposes := found.purposes[region]:
                if region not in willing:
                    willing[region] = _willing(found, purposes)
                agreed = pc.is_in(held["customer_id"], willing[region])
                held = held.filter(pc.or_(pc.is_null(held["customer_id"]), agreed))
            if len(held):
                yield lines.packed(held, region, members[region], EVERYONE)


def window(found: Plan, files: Sequence[File], columns: list[str]) -> Iterator[tuple[str, pa.Table]]:
    """Region and lines (`columns`, among them ordered_at) of files, so many at once: all that may be learned from.

    Returns are among them. Of a region that asks for consent `columns` must hold customer_id.
    """
    willing: dict[str, pa.Array] = {}
    for file in files:
        region = file.values["region"]
        purposes = found.purposes[region]
        if purposes and region not in willing:
            willing[region] = _willing(found, purposes)
        for rows in read(found.sales, file, columns):
            at = rows["ordered_at"]
            since, before = (pa.scalar(moment, at.type) for moment in (found.since, found.before))
            keep = pc.and_(pc.greater_equal(at, since), pc.less(at, before))
            if purposes:
                agreed = pc.is_in(rows["customer_id"], willing[region])
                keep = pc.and_(keep, pc.or_(pc.is_null(rows["customer_id"]), agreed))
            held = rows if pc.all(keep).as_py() else rows.filter(keep)
            if len(held):
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


def _counted(found: Plan, rows: pa.Table) -> pa.Table:
    """Lines inside the window of which something was bought."""
    at = rows["ordered_at"]
    since, before = (pa.scalar(moment, at.type) for moment in (found.since, found.before))
    inside = pc.and_(pc.greater_equal(at, since), pc.less(at, before))
    bought = pc.and_(pc.greater(rows["quantity"], 0), pc.greater(rows["net_cents"], 0))
    keep = pc.and_(inside, bought)
    rows = rows.drop_columns(["quantity", "net_cents"])
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
