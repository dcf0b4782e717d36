"""What shoppers saw and did: from each region's Redis into the lake, each event once.

Events leave Redis only after they lie in Delta, and the lake takes an event's id once: killed anywhere between, the
next run brings the rest and doubles nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from edge_service.region_store import RegionStore
from spark_jobs.kernels import arrived
from streams.messages import of_edge
from tandem import regions as regions_file
from tandem.errors import Unavailable
from tandem.regions import Region
from tandem.settings import Settings
from warehouse import arrivals, lake
from warehouse.tables import EVENTS, TABLES

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
    lake.create(settings, [TABLES[name] for name in EVENTS])
    new = 0
    with RegionStore(region) as store:
        while batch := store.events(BATCH):
            rows = [row for _, text in batch for row in _rows(json.loads(text), region)]
            for table in EVENTS:
                new += arrivals.add(settings, table, [row.values for row in rows if row.table == table])
            store.forget_events([place for place, _ in batch])
    return new


def _rows(told: dict[str, Any], region: Region) -> list[arrived.Row]:
    message = of_edge(told, region.name, region.consent_purposes)
    return arrived.rows(message, {region.name: region}, datetime.now(UTC))
