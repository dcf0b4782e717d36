"""What lies in the regions' buckets, and freeing what no shopper can be sent to any more.

A page that was open while releases changed may still read files of the one before, and caches may name it for a day
where a bucket is away: so the newest of the retired ones stay. What the ledger does not know is somebody else's.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from cdn.store import ObjectStore
from edge_service.lease import publishing
from spark_jobs.release_switch import Say, object_store
from tandem import regions as regions_file
from tandem.errors import Unavailable
from tandem.regions import Region
from tandem.release import GONE
from tandem.settings import Settings
from warehouse import ledger


class Lying(NamedTuple):
    """A release of which files lie in a region's bucket."""

    region: str
    release_id: str
    state: str
    """By the ledger; empty: it knows of none."""
    files: int
    bytes: int
    removable: bool

    def __str__(self) -> str:
        what = f"{self.release_id} ({self.state or 'unknown to the ledger'}), {self.files} files"
        return f"{self.region}: {what}, {self.bytes / 1e6:.1f} MB{'; not needed' if self.removable else ''}"


def run(settings: Settings, names: Iterable[str], say: Say, *, keep: int, delete: bool = False) -> int:
    """Say what lies in the buckets of the regions `names` (none: all), and with `delete` remove what is not needed.

    Needed is what is current, backup or on its way, what the manifest shows, what the ledger does not know, and the
    `keep` newest of what is retired or quarantined. Gives how many releases are not needed. Safe to repeat. One region
    that is out of reach stops no other. Raises Unavailable that names those.
    """
    regions, left, found = regions_file.load(settings.config_folder), [], 0
    for name in names or regions.names:
        try:
            found += _in_region(settings, regions.get(name), say, keep, delete=delete)
        except Unavailable as error:
            left.append(name)
            say(f"{name}: {error}")
    if left:
        raise Unavailable(f"not looked at: {', '.join(left)}; run it again when they are back")
    return found


def lying(settings: Settings, region: Region, store: ObjectStore, keep: int) -> list[Lying]:
    """Each release in the region's bucket, the newest first."""
    shown = store.manifest(region.name)
    rows = [row for row in ledger.latest(settings) if row["region"] == region.name]
    states = {row["release_id"]: row["state"] for row in rows}
    sizes, gone, found = store.sizes(region.name), 0, []
    known = [release_id for release_id in states if release_id in sizes]
    for release_id in [*known, *sorted(set(sizes) - set(known))]:
        state = states.get(release_id, "")
        over = state in GONE and (shown is None or shown.release != release_id)
        gone += over
        found.append(Lying(region.name, release_id, state, *sizes[release_id], over and gone > keep))
    return found


def _in_region(settings: Settings, region: Region, say: Say, keep: int, *, delete: bool) -> int:
    store = object_store(settings, region)
    found = lying(settings, region, store, keep)
    for each in found:
        say(str(each))
    unneeded = [each.release_id for each in found if each.removable]
    if delete and unneeded:
        with publishing(region, say):  # nobody stages one of them anew meanwhile
            for each in lying(settings, region, store, keep):
                if each.removable:
                    say(f"{region.name}: {store.delete_release(region.name, each.release_id)} files removed")
    return len(unneeded)
