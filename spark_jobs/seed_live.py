"""The batch's stock and prices into a region's live state; what the feed has told since then stays."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc

from edge_service.region_store import LiveRow, RegionStore
from spark_jobs.in_tasks import collected
from spark_jobs.region_build import RegionBuild, Source
from tandem.regions import Region

Batches = Iterator[pa.RecordBatch]
LIVE = {
    "stock": ("stock_as_of", {"on_hand": "stock"}),
    "prices": ("prices_as_of", {"list_price_cents": "list_price", "sale_price_cents": "sale_price"}),
}
"""Fact table to its time, and to what a live row calls its columns."""


@dataclass(frozen=True)
class _Part:
    table: str
    rows: Source
    known_at: datetime


def seed(build: RegionBuild) -> int:
    """Bring live stock and prices up to the batch, from as many tasks as there are files; gives how many changed."""
    parts = [part for table in LIVE for part in _parts(build, table)]
    if not parts:
        return 0
    seeder = _seeder(build.region, build.fence, parts)
    rows = build.spark.range(0, len(parts), 1, len(parts)).mapInArrow(seeder, "changed long")
    return sum(part.changed for part in collected(rows))


def _parts(build: RegionBuild, table: str) -> list[_Part]:
    """The files of `table`, each with the newest time of all."""
    at, _ = LIVE[table]
    rows = build.fact(table)
    newest = [found for each in rows.read([at]) if (found := pc.max(each[at]).as_py()) is not None]
    if not newest:
        return []
    known_at = max(newest).replace(tzinfo=UTC)
    return [_Part(table, part, known_at) for part in rows.dealt(build.settings.shuffle_partitions)]


def _seeder(region: Region, fence: int | None, parts: list[_Part]) -> Callable[[Batches], Batches]:
    def seed(batches: Batches) -> Batches:
        with RegionStore(region, fence) as store:
            for batch in batches:
                for number in batch.column(0).to_pylist():
                    yield pa.RecordBatch.from_pydict({"changed": [_seeded(store, parts[number])]})

    return seed


def _seeded(store: RegionStore, part: _Part) -> int:
    _, named = LIVE[part.table]
    changed = 0
    for rows in part.rows.read(["sku", *named]):
        held = rows.rename_columns(["sku", *named.values()]).to_pylist()
        changed += store.seed_live((LiveRow(**row) for row in held), part.known_at)
    return changed
