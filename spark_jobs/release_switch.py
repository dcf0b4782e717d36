"""The moment shoppers see another release: one pointer in Redis, then the manifest, then the ledger.

Each step may be repeated: a switch that was killed halfway is finished by running it again.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date

from cdn.store import ObjectStore
from edge_service.region_store import NoBackup, RegionStore
from tandem import regions as regions_file
from tandem.errors import TandemError
from tandem.regions import Region
from tandem.settings import Settings
from warehouse import ledger

Say = Callable[[str], object]


def object_store(settings: Settings, region: Region) -> ObjectStore:
    return ObjectStore(region.object_store, settings.s3_access_key, settings.s3_secret, settings.s3_region)


def promote(settings: Settings, region: Region, release_id: str, as_of: date, say: Say) -> None:
    """Make a sealed release the current one of `region`; what was current becomes the backup, older backups retire."""
    with RegionStore(region) as store:
        store.point(release_id)
        cdn = object_store(settings, region)
        cdn.put_manifest(region.name, _manifest(cdn, region, release_id))
        for row in ledger.latest(settings):
            if row["region"] == region.name and row["release_id"] != release_id:
                _step_back(settings, store, row)
        if ledger.state(settings, region.name, release_id) != "current":
            ledger.record(settings, region.name, release_id, "current", as_of=as_of, reason="promoted")
    say(f"{region.name}: {release_id} is current")


def _step_back(settings: Settings, store: RegionStore, row: dict[str, object]) -> None:
    """What was current becomes the backup; a backup of before retires, and its keys are freed."""
    region, release_id, as_of = str(row["region"]), str(row["release_id"]), row["as_of"]
    assert isinstance(as_of, date)  # noqa: S101 - the ledger's schema says so
    if row["state"] == "current":
        ledger.record(settings, region, release_id, "backup", as_of=as_of, reason="a newer release is current")
    elif row["state"] == "backup" and store.backup() != release_id:
        ledger.record(settings, region, release_id, "retired", as_of=as_of, reason="no longer the backup")
        store.delete(release_id)


def rollback(settings: Settings, region_name: str, reason: str, say: Say) -> None:
    """Make the backup current again in one region; the release that was current is quarantined for good.

    Raises NoBackup where there is nothing to go back to, Unavailable where the region can't be reached.
    """
    region = regions_file.load(settings.config_folder).get(region_name)
    bad, good = ledger.current(settings, region_name), ledger.backup(settings, region_name)
    if bad is None or good is None:
        raise NoBackup(f"region {region_name} has no backup release to go back to; build and publish a new one")
    as_of = {row["release_id"]: row["as_of"] for row in ledger.latest(settings) if row["region"] == region_name}
    with RegionStore(region) as store:
        if store.current() != good:
            store.roll_back()
        cdn = object_store(settings, region)
        cdn.put_manifest(region_name, _manifest(cdn, region, good))
    ledger.record(settings, region_name, bad, "quarantined", as_of=as_of[bad], reason=reason)
    ledger.record(settings, region_name, good, "current", as_of=as_of[good], reason=f"rolled back: {reason}")
    say(f"{region_name}: {good} is current again, {bad} is quarantined")


def _manifest(cdn: ObjectStore, region: Region, release_id: str):  # type: ignore[no-untyped-def]
    found = cdn.manifest_of(region.name, release_id)
    if found is None:
        raise TandemError(f"region {region.name}: release {release_id} has no manifest; publish it again")
    return found
