"""What shoppers saw and did: from each region's Redis into the lake, each event once.

Events leave Redis only after they lie in Delta, and the lake takes an event's id once: killed anywhere between, the
next run brings the rest and doubles nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from datetime import date, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from edge_service.region_store import RegionStore
from tandem import regions as regions_file
from tandem.errors import Unavailable
from tandem.regions import Region
from tandem.settings import Settings
from warehouse import lake
from warehouse.tables import EXPOSURES, OUTCOMES, Table

BATCH = 10_000

Say = Callable[[str], object]


def collect_all(settings: Settings, say: Say) -> None:
    """Bring every region's events. A region out of reach keeps its own until the next time, and is named."""
    for region in regions_file.load(settings.config_folder).region:
        try:
            say(f"{region.name}: {collect(settings, region)} events brought into the lake")
        except Unavailable as error:
            say(f"{region.name}: its events stay there until the next time: {error}")


def collect(settings: Settings, region: Region) -> int:
    """Bring one region's events; gives how many were not in the lake yet."""
    lake.create(settings, [EXPOSURES, OUTCOMES])
    new = 0
    with RegionStore(region) as store:
        while batch := store.events(BATCH):
            told = [json.loads(text) for _, text in batch]
            shown = [event for event in told if event["kind"] == "exposure"]
            done = [event for event in told if event["kind"] != "exposure"]
            new += _append(settings, EXPOSURES, region.name, shown) + _append(settings, OUTCOMES, region.name, done)
            store.forget_events([place for place, _ in batch])
    return new


def _append(settings: Settings, table: Table, region: str, events: Iterable[dict[str, Any]]) -> int:
    rows = {event["event_id"]: _row(event, region) for event in events}
    for known in _known(settings, table, region, {row["day"] for row in rows.values()}):
        rows.pop(known, None)
    if rows:
        lake.append(settings, table, pa.Table.from_pylist(list(rows.values()), schema=lake.arrow_schema(table)))
    return len(rows)


def _row(event: dict[str, Any], region: str) -> dict[str, Any]:
    at = datetime.fromisoformat(event["at"])
    return event | {"region": region, "at": at, "day": at.date()}


def _known(settings: Settings, table: Table, region: str, days: set[date]) -> list[str]:
    """Ids of the events of these days that the lake holds."""
    held = lake.open_table(settings, table.name).to_pyarrow_dataset()
    where = (pc.field("region") == region) & pc.field("day").isin(sorted(days))
    ids: list[str] = held.to_table(columns=["event_id"], filter=where)["event_id"].to_pylist()
    return ids
