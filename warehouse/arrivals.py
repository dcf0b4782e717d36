"""Facts that arrive one by one: each row goes into the lake once, however often it is told and whoever brings it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from tandem.settings import Settings
from warehouse import lake
from warehouse.tables import TABLES, Table

Rows = Sequence[Mapping[str, Any]]


class Key(NamedTuple):
    """What tells a row from all others of its table; told again, a row has the same time."""

    columns: tuple[str, ...]
    at: str


_EVENT = Key(("region", "event_id"), "at")
KEYS = {
    "sales_lines": Key(("region", "order_id", "line"), "ordered_at"),
    "exposures": _EVENT,
    "outcomes": _EVENT,
    "activity": _EVENT,
}


WRITER = "arrivals"
"""Its commits name it: of two that add at once, the second looks again."""


def add(settings: Settings, table: str, rows: Rows) -> int:
    """Append those `rows` that `table` does not hold yet, in one commit; gives how many.

    Safe to repeat, and to do from several processes at once.
    """
    declared, key = TABLES[table], KEYS[table]
    named = {_name(row, key): row for row in reversed(rows)}
    while True:
        opened = lake.open_table(settings, table)
        known = set(_known(opened, declared, key, rows))
        new = [row for name, row in named.items() if name not in known]
        found = pa.Table.from_pylist(new, schema=lake.arrow_schema(declared))
        if not new or lake.append_after(opened, found, WRITER):
            return len(new)


def _name(row: Mapping[str, Any], key: Key) -> tuple[Any, ...]:
    return tuple(row[column] for column in key.columns)


def _known(opened: DeltaTable, table: Table, key: Key, rows: Rows) -> Iterable[tuple[Any, ...]]:
    """The names of rows of these partitions and between these times that the lake holds."""
    if not rows:
        return []
    times = [row[key.at] for row in rows]
    where = (pc.field(key.at) >= _instant(min(times))) & (pc.field(key.at) <= _instant(max(times)))
    for column in table.partitions:
        where &= pc.field(column).isin(sorted({row[column] for row in rows}))
    held = opened.to_pyarrow_dataset().to_table(columns=list(key.columns), filter=where)
    return zip(*(held[column].to_pylist() for column in key.columns), strict=True)


def _instant(at: datetime) -> pa.Scalar:
    return pa.scalar(at, pa.timestamp("us", "UTC"))


def refuse(settings: Settings, rows: Rows) -> int:
    """Put rows of rejected_rows in the place of those of the same file, source and number; gives how many."""
    if rows:
        declared = TABLES["rejected_rows"]
        told = {(row["file"], row["source"], row["row"]): row for row in rows}
        found = pa.Table.from_pylist(list(told.values()), schema=lake.arrow_schema(declared))
        _merge(settings, declared.name, found, ("file", "source", "row")).execute()
    return len(rows)


def tell_customers(settings: Settings, rows: Rows, source: str, since: str) -> int:
    """Bring customers and their consents: those not known yet, and newer consents of those that `source` brought.

    `since` is the attribute that says, as RFC 3339, from when consents hold. Gives how many rows were told.
    """
    newest: dict[str, Mapping[str, Any]] = {}
    for row in sorted(rows, key=lambda row: str(row["attributes"][0]["value"])):
        newest[row["customer_id"]] = row
    if newest:
        declared = TABLES["customers"]
        found = pa.Table.from_pylist(list(newest.values()), schema=lake.arrow_schema(declared))
        known = {row["customer_id"]: row for row in customers(settings, list(newest))}
        fresh = [row for name, row in newest.items() if _newer(row, known.get(name), source, since)]
        found = pa.Table.from_pylist(fresh, schema=lake.arrow_schema(declared))
        if fresh:
            _merge(settings, declared.name, found, ("customer_id",)).when_matched_update_all().execute()
    return len(newest)


def customers(settings: Settings, names: list[str]) -> list[dict[str, Any]]:
    """The rows of these customers. All are looked at: Arrow fails to filter files that a merge wrote."""
    wanted, found = pa.array(names, pa.string()), []
    for batch in lake.open_table(settings, "customers").to_pyarrow_dataset().to_batches():
        found += batch.filter(pc.is_in(batch["customer_id"].cast(pa.string()), wanted)).to_pylist()
    return found


def _newer(row: Mapping[str, Any], held: Mapping[str, Any] | None, source: str, since: str) -> bool:
    """Whether what `row` says of a customer counts: a file that names the customer has the last word."""
    if held is None:
        return True
    return bool(held["source"] == source and _since(held, since) < _since(row, since))


def _since(row: Mapping[str, Any], name: str) -> str:
    return next((str(each["value"]) for each in row["attributes"] if each["name"] == name), "")


def _merge(settings: Settings, table: str, rows: pa.Table, key: Sequence[str]) -> Any:
    opened = lake.open_table(settings, table)
    same = " AND ".join(f"held.{column} = told.{column}" for column in key)
    merger = opened.merge(rows, same, source_alias="told", target_alias="held")
    return merger.when_not_matched_insert_all()


MOST_FILES, MOST_OPEN_FILES = 8, 200
"""In a partition that little more comes to, and in one that much still comes to; more are made one."""


def compact(settings: Settings, table: str, finished: str) -> int:
    """Make few files of the many that streaming left; gives how many went.

    Partitions before `finished`, a value of the table's last partition column such as today's date, are over.
    """
    opened = lake.open_table(settings, table)
    went = 0
    for values in _crowded(opened, TABLES[table].partitions, finished):
        done = opened.optimize.compact(partition_filters=[(name, "=", value) for name, value in values.items()])
        went += int(done["numFilesRemoved"])
    return went


def _crowded(opened: DeltaTable, partitions: Sequence[str], finished: str) -> list[dict[str, str]]:
    files: dict[tuple[str, ...], int] = {}
    for row in pa.table(opened.get_add_actions(flatten=True)).to_pylist():
        values = tuple(str(row[f"partition.{name}"]) for name in partitions)
        files[values] = files.get(values, 0) + 1
    return [
        dict(zip(partitions, values, strict=True))
        for values, count in sorted(files.items())
        if count > (MOST_FILES if values[-1] < finished else MOST_OPEN_FILES)
    ]
