"""The ledger of releases: one row per region, release and transition. It is the record; Redis and the CDN follow it."""

from __future__ import annotations

import getpass
import json
import random
import socket
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from importlib import metadata
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable, write_deltalake
from deltalake.exceptions import CommitFailedError

from tandem.errors import TandemError, Unavailable
from tandem.release import State, step
from tandem.settings import Settings
from warehouse import lake
from warehouse.tables import RELEASES


class Superseded(TandemError):
    """A publisher that a newer one has taken over from wanted to write."""


EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
TRIES = 20
_WRITING = threading.Lock()
"""Threads of this process, each with a region of its own, would only make each other try again."""
FILES = 32
"""Files of a region, one a row, after which they are made one: each that is read costs a rollback a millisecond."""
ORIGINS = {"facts": "inputs", "tables": "outputs"}
"""What a column of versions is called for people."""
SHOWN = ("region", "release_id", "state", "at", "anchors", "bundles", "checksum", "by", "reason")


def record(
    settings: Settings,
    region: str,
    release_id: str,
    state: State,
    *,
    as_of: date,
    reason: str = "",
    by: str | None = None,
    anchors: int | None = None,
    bundles: int | None = None,
    checksum: str | None = None,
    shards: int | None = None,
    inputs: Mapping[str, int] | None = None,
    outputs: Mapping[str, int] | None = None,
    fence: int | None = None,
    stays: bool = False,
) -> None:
    """Write that `release_id` went to `state` in `region`; with `stays`, tell more of one that is there.

    The transition is judged on the version that it is written on: where another writer comes first, it is judged again.
    Raises WrongTransition where the present state does not lead there, Superseded where a publisher with a newer fence
    has written of this region, and Unavailable where the table stays contended.
    """
    row = {
        "region": region,
        "release_id": release_id,
        "state": state,
        "by": by or f"{getpass.getuser()}@{socket.gethostname()}",
        "reason": reason,
        "as_of": as_of,
        "anchors": anchors,
        "bundles": bundles,
        "checksum": checksum,
        "shards": shards,
        "inputs": _json(inputs),
        "code_version": metadata.version("tandem-bundles"),
        "outputs": _json(outputs),
        "fence": fence,
    }
    with _WRITING:
        _write(settings, row, stays=stays)


def _write(settings: Settings, row: dict[str, Any], *, stays: bool) -> None:
    region, release_id, state, fence = row["region"], row["release_id"], row["state"], row["fence"]
    lake.create(settings, [RELEASES])
    for _ in range(TRIES):
        table = lake.open_table(settings, RELEASES.name)
        history = _transitions(settings, table, region)
        _not_superseded(region, fence, history)
        if not (stays and _state(history, release_id) == state):
            step(release_id, _state(history, release_id), state)
        row["at"] = _next_instant(history)
        if _committed(table, _completed(row, history)):
            _compact(settings, region)
            return
        time.sleep(random.uniform(0.01, 0.1))  # noqa: S311 - spreads out contending writers
    raise Unavailable(f"the ledger of {region} is being written by others all the time; run the step again")


def _json(versions: Mapping[str, int] | None) -> str | None:
    return None if versions is None else json.dumps(dict(sorted(versions.items())))


def _not_superseded(region: str, fence: int | None, history: Iterable[Mapping[str, Any]]) -> None:
    newest = max((row["fence"] or 0 for row in history), default=0)
    if fence is not None and fence < newest:
        raise Superseded(
            f"region {region}: a newer publisher has taken over; look with tandem releases, then run the command again"
        )


def history(settings: Settings, release_id: str) -> list[dict[str, Any]]:
    """Every transition of a release, oldest first within a region."""
    return [row for row in _rows(settings) if row["release_id"] == release_id]


def latest(settings: Settings, region: str | None = None) -> list[dict[str, Any]]:
    """The last transition of every release of a region (default: of every region), newest first within a region."""
    last = {(row["region"], row["release_id"]): row for row in _rows(settings, region)}
    return sorted(last.values(), key=lambda row: (row["region"], -row["at"].timestamp()))


def state(settings: Settings, region: str, release_id: str) -> str:
    """The present state of a release in a region; empty where it was never staged there."""
    return _state(_rows(settings, region), release_id)


def first(settings: Settings, region: str, release_id: str, state: State) -> datetime:
    """When a release first went to `state` in a region. Raises TandemError where it never did."""
    for row in _rows(settings, region):
        if (row["release_id"], row["state"]) == (release_id, state):
            at: datetime = row["at"]
            return at
    raise TandemError(f"release {release_id} was never {state} in region {region}; publish it first")


def current(settings: Settings, region: str) -> str | None:
    """The release that shoppers of `region` see, by the ledger."""
    return _holding(settings, region, "current")


def backup(settings: Settings, region: str) -> str | None:
    """The release that a rollback of `region` goes to."""
    return _holding(settings, region, "backup")


def degraded(settings: Settings) -> dict[str, dict[str, Any]]:
    """Region to the newest release that it missed, those left out that were quarantined in some region since."""
    rows = latest(settings)
    bad = {row["release_id"] for row in rows if row["state"] == "quarantined"}
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row["state"] == "degraded" and row["release_id"] not in bad:
            found.setdefault(row["region"], row)
    return found


def kept_elsewhere(settings: Settings, release_id: str, regions: Iterable[str]) -> bool:
    """A release is current (or the backup) in some region, or no region has it on trial or waiting."""
    states = {row["state"] for row in latest(settings) if row["release_id"] == release_id and row["region"] in regions}
    return bool(states & {"current", "backup"}) or not states & {"staged", "sealed", "canary", "held"}


def as_text(rows: Iterable[Mapping[str, Any]]) -> str:
    """Rows of `latest` as a table for a terminal."""
    from warehouse.query import drawn  # brings DuckDB, which a rollback has no time for

    shown = [[row[name] for name in SHOWN] for row in rows]
    return drawn(SHOWN, shown) if shown else "no release yet; run tandem build --as-of YYYY-MM-DD"


def versions(row: Mapping[str, Any]) -> dict[str, int]:
    """The versions of the tables that a release came from, by a row of its."""
    told: dict[str, int] = {}
    for column in ORIGINS.values():
        told |= json.loads(row[column] or "{}")
    return told


def origins(rows: Iterable[Mapping[str, Any]]) -> str:
    """What `rows` came from: versions of tables and of the code, a line for each that differs."""
    lines = []
    for row in rows:
        told = [f"{kind}: {_listed(row[column])}" for kind, column in ORIGINS.items() if row[column]]
        lines.append("; ".join([*told, f"code: {row['code_version']}"]))
    return "\n".join(dict.fromkeys(lines))


def _listed(told: str) -> str:
    return ", ".join(f"{table} {version}" for table, version in json.loads(told).items())


def _holding(settings: Settings, region: str, wanted: State) -> str | None:
    """The newest release of `region` whose last transition went to `wanted`."""
    found = (row["release_id"] for row in latest(settings, region) if row["state"] == wanted)
    return next(found, None)


def _state(history: Iterable[Mapping[str, Any]], release_id: str) -> str:
    """The last state of a release in the history of its region."""
    held = ""
    for row in history:
        if row["release_id"] == release_id:
            held = row["state"]
    return held


def _rows(settings: Settings, region: str | None = None) -> list[dict[str, Any]]:
    """Every transition of a region, or of all; none where nothing was ever written."""
    if not lake.exists(settings, RELEASES.name):
        return []
    return _transitions(settings, lake.open_table(settings, RELEASES.name), region)


def _transitions(settings: Settings, table: DeltaTable, region: str | None) -> list[dict[str, Any]]:
    """Every transition, oldest first within a region: the order of `at` is the order in which they were written.

    The files are read one by one, and times as numbers: a query engine, or pandas, which Arrow's times bring along,
    takes longer to start than a rollback may take.
    """
    system, found = lake.files(settings, RELEASES.name), []
    for name, path in _files(table, region):
        with system.open_input_file(path) as opened:
            rows = pq.ParquetFile(opened).read()
        at = rows.schema.get_field_index("at")
        for row in rows.set_column(at, "at", rows["at"].cast(pa.int64())).to_pylist():
            row |= {"region": name, "at": EPOCH + timedelta(microseconds=row["at"])}
            found.append({column: row.get(column) for column in RELEASES.names})
    return sorted(found, key=lambda row: (row["region"], row["at"]))


def _files(table: DeltaTable, region: str | None) -> list[tuple[str, str]]:
    """(region, path) of each file. From their names: `get_add_actions` would bring pandas along."""
    paths = (f"region={unquote(uri).rpartition('/region=')[2]}" for uri in table.file_uris())
    named = ((path.partition("/")[0].removeprefix("region="), path) for path in paths)
    return [(name, path) for name, path in named if region in (None, name)]


def _compact(settings: Settings, region: str) -> None:
    """Make one file of many. Whoever does so at the same time may come first; the rows stay as they are."""
    table = lake.open_table(settings, RELEASES.name)
    if len(_files(table, region)) > FILES:
        with suppress(CommitFailedError):
            table.optimize.compact(partition_filters=[("region", "=", region)])


def _completed(row: dict[str, Any], history: list[dict[str, Any]]) -> dict[str, Any]:
    """What this transition does not say anew of its release, as the one before said it."""
    before = [each for each in history if each["release_id"] == row["release_id"]]
    kept = before[-1] if before else {}
    return {name: kept.get(name) if row[name] is None and name != "fence" else row[name] for name in row}


def _next_instant(history: list[dict[str, Any]]) -> datetime:
    """Now, or just after the region's last transition where the clock has not passed it."""
    now = datetime.now(UTC)
    return max(now, history[-1]["at"] + timedelta(microseconds=1)) if history else now


def _committed(table: DeltaTable, row: dict[str, Any]) -> bool:
    """Commit `row` as the very next version of `table`; False where another writer took that version."""
    rows = pa.Table.from_pylist([row], schema=lake.arrow_schema(RELEASES))
    try:
        write_deltalake(table, rows, mode="append", commit_properties=CommitProperties(max_commit_retries=0))
    except CommitFailedError:
        return False
    return True
