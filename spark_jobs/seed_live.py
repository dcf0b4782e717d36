"""The batch's stock and prices into a region's live state; what the feed has told since then stays."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc

from edge_service.region_store import LiveRow, RegionStore
from spark_jobs import in_tasks
from spark_jobs.parquet_files import Held
from spark_jobs.region_build import RegionBuild
from tandem.regions import Region

LIVE = {
    "stock": ("stock_as_of", {"on_hand": "stock"}),
    "prices": ("prices_as_of", {"list_price_cents": "list_price", "sale_price_cents": "sale_price"}),
}
"""Fact table to its time, and to what a live row calls its columns."""


@dataclass(frozen=True)
class _Part:
    table: str
    rows: Held
    known_at: datetime


def seed(build: RegionBuild) -> int:
    """Bring live stock and prices up to the batch, from as many tasks as there are files; gives how many changed."""
    parts = [part for table in LIVE for part in _parts(build, table)]
    if not parts:
        return 0
    seeder = _seeder(build.region, build.fence)
    changed = sum(in_tasks.values(in_tasks.each(build.spark, parts, seeder, in_tasks.VALUE)))
    with RegionStore(build.region, build.fence) as store:
        store.note_snapshot({part.table: part.known_at for part in parts})
    return changed


def _parts(build: RegionBuild, table: str) -> list[_Part]:
    """The files of `table`, each with the newest time of all."""
    at, _ = LIVE[table]
    rows = build.fact(table)
    newest = [found for each in rows.read([at]) if (found := pc.max(each[at]).as_py()) is not None]
    if not newest:
        return []
    known_at = max(newest).replace(tzinfo=UTC)
    return [_Part(table, part, known_at) for part in rows.dealt(build.settings.shuffle_partitions)]


def _seeder(region: Region, fence: int | None) -> Callable[[Iterator[_Part]], Iterator[pa.RecordBatch]]:
    def seed(parts: Iterator[_Part]) -> Iterator[pa.RecordBatch]:
        with RegionStore(region, fence) as store:
            yield in_tasks.given(_seeded(store, part) for part in parts)

    return seed


def _seeded(store: RegionStore, part: _Part) -> int:
    _, named = LIVE[part.table]
    changed = 0
    for rows in part.rows.read(["sku", *named]):
        held = rows.rename_columns(["sku", *named.values()]).to_pylist()
        changed += store.seed_live((LiveRow(**row) for row in held), part.known_at)
    return changed
