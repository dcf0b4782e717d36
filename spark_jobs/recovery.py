"""Regions that missed a release, and regions that lost their Redis: both are brought back from Delta.

The ledger says what a region should show, and at which versions of the tables it was staged. What was lost is written
again with the same keys and bytes; a region that missed several releases goes straight to the newest.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from pyspark.sql import SparkSession

from edge_service.lease import publishing
from edge_service.region_store import RegionStore
from spark_jobs import publish, release_switch, seed_live
from spark_jobs.region_build import RegionBuild
from spark_jobs.release_switch import Say
from tandem import regions as regions_file
from tandem.errors import TandemError, Unavailable
from tandem.settings import Settings
from warehouse import ledger

Started = Callable[[], SparkSession]
"""Gives the Spark session; called only where there is something to write."""


def catch_up(settings: Settings, spark: Started, say: Say, names: list[str] | None = None) -> None:
    """Bring every region that missed releases (or only `names`) to the newest of them that the others keep.

    Safe to repeat. A region that is still out of reach stays degraded and holds nobody up. Raises Unavailable that
    names those at the end.
    """
    regions = regions_file.load(settings.config_folder)
    missed = ledger.degraded(settings)
    left = []
    for name in names or regions.names:
        region, row = regions.get(name), missed.get(name)
        if row is None:
            say(f"{name}: has not missed a release")
            continue
        if not ledger.kept_elsewhere(settings, row["release_id"], regions.names):
            say(f"{name}: {row['release_id']} is not current in any other region yet; it is not brought here")
            continue
        try:
            say(f"{name}: missed {row['release_id']}, is brought to it")
            publish.bring(_pinned(settings, spark, row), say)
        except Unavailable as error:
            left.append(region.name)
            say(f"{name}: {error}")
    if left:
        raise Unavailable(f"still out of reach: {', '.join(left)}; run tandem catch-up again when they are back")


def rebuild(settings: Settings, spark: Started, region_name: str, say: Say) -> None:
    """Write what a region's Redis should hold anew from Delta: its current release, its backup, the pointers.

    Keys and values come out as they were, byte for byte; what is still there stays. Whoever publishes there is taken
    over from. Raises TandemError where nothing was ever published, or what Delta gives is not what was sealed then.
    """
    region = regions_file.load(settings.config_folder).get(region_name)
    rows = {row["release_id"]: row for row in ledger.latest(settings, region_name)}
    current, backup = ledger.current(settings, region_name), ledger.backup(settings, region_name)
    if current is None:
        raise TandemError(f"region {region_name} has no current release to write anew; run tandem publish for it")
    with publishing(region, say, take_over=True) as store:
        for release_id in filter(None, (backup, current)):
            build = replace(_pinned(settings, spark, rows[release_id]), fence=store.fence)
            publish.stage_and_seal(build, store, say)
            _as_sealed(store, rows[release_id])
        say(f"{region_name}: {seed_live.seed(build)} live values brought up to the batch")
        release_switch.show(settings, store, current, backup)
    say(f"{region_name}: rebuilt: {current} is current, {backup or 'nothing'} is the backup")


def _as_sealed(store: RegionStore, row: dict[str, Any]) -> None:
    """Raises TandemError where a release of the region is not what the ledger says that it was."""
    found = store.sealed(row["release_id"])
    if found is None or found.checksum != row["checksum"]:
        raise TandemError(
            f"region {row['region']}: {row['release_id']} comes out with checksum {found and found.checksum}, sealed "
            f"was {row['checksum']} (by version {row['code_version']}); build and publish a new release"
        )


def _pinned(settings: Settings, spark: Started, row: dict[str, Any]) -> RegionBuild:
    """The build as the ledger says that it was staged, or would have been."""
    region = regions_file.load(settings.config_folder).get(row["region"])
    inputs, outputs = json.loads(row["inputs"] or "{}"), json.loads(row["outputs"] or "{}")
    return RegionBuild(spark(), settings, region, row["as_of"], row["release_id"], inputs, outputs)
