"""The moment shoppers see another release: one pointer in Redis, then the manifest, then the ledger.

Each step may be repeated: a switch that was killed halfway is finished by running it again. Whoever switches holds the
region's lease; the ledger takes nothing from a holder that a newer one has taken over from, and the manifest always
follows the pointer. Nothing here needs Spark.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

from edge_service.lease import publishing
from edge_service.region_store import RegionStore
from tandem import regions as regions_file
from tandem import release
from tandem.errors import TandemError
from tandem.regions import Region
from tandem.release import State
from tandem.settings import Settings
from warehouse import ledger

if TYPE_CHECKING:
    from cdn.manifest import Manifest
    from cdn.store import ObjectStore

Say = Callable[[str], object]
InRegion = Callable[[Settings, str, str, str, Say], None]
"""settings, region, release, reason, say"""
AT_ONCE = 16
"""Regions that a command is done in at the same time."""

SEEN = ("current", "canary")
PASSED_OVER = ("approved", "degraded", "staged", "sealed", "canary", "held")
"""What becomes retired when a release that came later is made current."""


class NoBackup(TandemError):
    """There is nothing to roll back to."""


def object_store(settings: Settings, region: Region) -> ObjectStore:
    from cdn.store import ObjectStore  # a rollback moves the pointer before it takes the time for this

    return ObjectStore(region.object_store, settings.s3_access_key, settings.s3_secret, settings.s3_region)


def promote(
    settings: Settings, store: RegionStore, release_id: str, as_of: date, say: Say, reason: str = "promoted"
) -> None:
    """Make a sealed release the current one of the region; what was current becomes the backup, older backups retire.

    `store` is the region's of a lease. Raises NotSealed, and WrongTransition for a release that was quarantined.
    """
    region = store.region
    before = {row["release_id"]: row for row in _rows(settings, region.name)}
    _point(settings, store, release_id, before)
    _follow(settings, store)
    since = ledger.first(settings, region.name, release_id, "staged")
    for row in before.values():
        if row["release_id"] != release_id:
            _step_back(settings, store, row, since)
    if ledger.state(settings, region.name, release_id) != "current":
        _record(settings, store, release_id, "current", as_of, reason)
    say(f"{region.name}: {release_id} is current")


def _point(settings: Settings, store: RegionStore, release_id: str, before: dict[str, dict[str, Any]]) -> None:
    """The pointer alone, to a release that may be promoted; `before`: the region's releases."""
    state = before[release_id]["state"] if release_id in before else ""
    if state != "current":
        release.step(release_id, state, "current")
    backup = next((each for each, row in before.items() if row["state"] == "current" and each != release_id), None)
    _manifest(object_store(settings, store.region), store.region, release_id)
    store.switch(release_id, backup or _backup(before, release_id))


def trial(settings: Settings, store: RegionStore, release_id: str, as_of: date, say: Say) -> None:
    """Let the region's shoppers see a sealed release on trial: what is current in the ledger stays its backup."""
    held = ledger.current(settings, store.region.name)
    show(settings, store, release_id, held)
    if ledger.state(settings, store.region.name, release_id) == "sealed":
        _record(settings, store, release_id, "canary", as_of, "health is read from here on")
    say(f"{store.region.name}: {release_id} is on trial, {held or 'nothing'} stands behind it")


def promote_named(settings: Settings, region_name: str, release_id: str, reason: str, say: Say) -> None:
    """`promote`, by a person. Safe to repeat. Raises TandemError where the release was never sealed there."""
    region = regions_file.load(settings.config_folder).get(region_name)
    row = _row(settings, region_name, release_id)
    with publishing(region, say) as store:
        promote(settings, store, release_id, row["as_of"], say, reason)


def promote_each(settings: Settings, names: Iterable[str], release_id: str, reason: str, say: Say) -> None:
    """`promote_named` in each of the regions `names` (default: all that have it): every pointer first, then the rest.

    Raises what `in_each` does.
    """
    chosen = list(names)
    with suppress(TandemError):  # it is said when the rest fails, too
        in_each(settings, chosen, release_id, reason, str, _point_named)
    in_each(settings, chosen, release_id, reason, say, promote_named)


def _point_named(settings: Settings, region_name: str, release_id: str, _reason: str, say: Say) -> None:
    region = regions_file.load(settings.config_folder).get(region_name)
    with publishing(region, say) as store:
        _point(settings, store, release_id, {row["release_id"]: row for row in _rows(settings, region_name)})


def hold(settings: Settings, region_name: str, release_id: str, reason: str, say: Say) -> None:
    """Let nobody promote a release that waits or is on trial in a region. Safe to repeat; `go_on` ends it.

    Raises TandemError for one in another state.
    """
    row = _row(settings, region_name, release_id)
    if row["state"] not in ("sealed", "canary", "held"):
        raise TandemError(
            f"region {region_name}: {release_id} is {row['state']}, and only what is sealed or on trial can be held; "
            "tandem release quarantine stops it anywhere"
        )
    if row["state"] != "held":
        ledger.record(settings, region_name, release_id, "held", as_of=row["as_of"], reason=reason)
    say(f"{region_name}: {release_id} is held")


def go_on(settings: Settings, region_name: str, release_id: str, reason: str, say: Say) -> None:
    """Promote what was held, or waits, in a region. Safe to repeat."""
    row = _row(settings, region_name, release_id)
    region = regions_file.load(settings.config_folder).get(region_name)
    with publishing(region, say) as store:
        if row["state"] == "held":
            _record(settings, store, release_id, "sealed", row["as_of"], f"goes on: {reason}")
        promote(settings, store, release_id, row["as_of"], say, reason)


def in_each(
    settings: Settings,
    names: Iterable[str],
    release_id: str,
    reason: str,
    say: Say,
    what: InRegion,
) -> None:
    """`what` in all of the regions `names` at once, by default in all that have the release; none waits for another.

    Raises TandemError for a release that is nowhere, and one that names the regions that were left out.
    """
    known = regions_file.load(settings.config_folder).names
    there = {row["region"] for row in ledger.latest(settings) if row["release_id"] == release_id}
    chosen = list(names) or [name for name in known if name in there]
    if not chosen:
        raise TandemError(f"no region has a release {release_id}; look with tandem releases")
    with ThreadPoolExecutor(AT_ONCE) as pool:
        done = list(pool.map(lambda name: _done(settings, name, release_id, reason, say, what), chosen))
    left = [name for name, was in zip(chosen, done, strict=True) if not was]
    if left:
        raise TandemError(f"not done in {', '.join(left)}; mend what is said above, then run it again")


def _done(settings: Settings, name: str, release_id: str, reason: str, say: Say, what: InRegion) -> bool:
    try:
        what(settings, name, release_id, reason, say)
    except TandemError as error:
        say(f"{name}: {error}")
        return False
    return True


def rollback(settings: Settings, region_name: str, reason: str, say: Say, to: str | None = None) -> None:
    """Make an earlier release current again in one region; the release that was current is quarantined for good.

    Goes to `to`, by default to the newest backup that lies there whole: never to a quarantined or a missing one. Other
    regions are not looked at. With `to`, doing it again changes nothing. Where the object store is away the edge goes
    back all the same, and running it again does the rest. A publisher at work in the region is taken over from.
    Raises NoBackup where there is nothing to go back to, TandemError where `to` can't be gone to,
    Unavailable where the region can't be reached.
    """
    region = regions_file.load(settings.config_folder).get(region_name)
    with publishing(region, say, take_over=True) as store:
        rows = {row["release_id"]: row for row in _rows(settings, region_name)}
        shown, pointed = ledger.current(settings, region_name), store.current()
        if to is not None and to == shown == pointed:
            show(settings, store, to, _backup(rows, to))
            say(f"{region_name}: {to} is current already")
            return
        good = _good(store, rows, shown, pointed, to)
        bad = [each for each, row in rows.items() if each != good and (row["state"] in SEEN or each == pointed)]
        show(settings, store, good, _backup(rows, good, *bad))
        for each in bad:
            _record(settings, store, each, "quarantined", rows[each]["as_of"], reason)
        if rows[good]["state"] != "current":
            _record(settings, store, good, "current", rows[good]["as_of"], f"rolled back: {reason}")
    say(f"{region_name}: {good} is current again, {', '.join(bad) or 'nothing'} is quarantined")


def quarantine(settings: Settings, region_name: str, release_id: str, reason: str, say: Say) -> None:
    """Never let a release be picked in a region. One that shoppers see there is rolled back. Safe to repeat."""
    row = _row(settings, region_name, release_id)
    if row["state"] == "quarantined":
        say(f"{region_name}: {release_id} is quarantined already")
        return
    region = regions_file.load(settings.config_folder).get(region_name)
    with RegionStore(region) as store:
        shown = store.current() == release_id
    if shown or row["state"] == "current":
        rollback(settings, region_name, reason, say)
        return
    with publishing(region, say, take_over=True) as store:
        if row["state"] == "backup":
            show(settings, store, str(store.current()), None)
        _record(settings, store, release_id, "quarantined", row["as_of"], reason)
        store.delete(release_id)
    say(f"{region_name}: {release_id} is quarantined")


def _good(
    store: RegionStore, rows: dict[str, dict[str, Any]], shown: str | None, pointed: str | None, to: str | None
) -> str:
    """The release to go back to: the newest whole backup, or `to`.

    From a trial, and where a switch was cut off after it moved the pointer, it is what the ledger calls current.
    """
    region = store.region.name
    if to is not None:
        state = rows.get(to, {"state": ""})["state"]
        if state not in ("backup", "current"):
            there = ", ".join(each for each, row in rows.items() if row["state"] == "backup") or "none"
            raise TandemError(
                f"region {region}: release {to} is {state or 'unknown there'}; a rollback goes to a backup: {there}"
            )
        if store.sealed(to) is None:
            raise TandemError(f"region {region}: release {to} lies there no more; tandem rebuild --region {region}")
        return to
    on_trial = pointed in rows and rows[pointed]["state"] in ("canary", "sealed", "held")
    if shown is not None and on_trial and store.sealed(shown) is not None:
        return shown
    for each, row in rows.items():
        if row["state"] == "backup" and store.sealed(each) is not None:
            return each
    raise NoBackup(f"region {region} has no backup release to go back to; build and publish a new one")


def _backup(rows: dict[str, dict[str, Any]], *but: str) -> str | None:
    """The newest backup, `but` left out."""
    return next((each for each, row in rows.items() if row["state"] == "backup" and each not in but), None)


def show(settings: Settings, store: RegionStore, release_id: str, backup: str | None) -> None:
    """The pointer, then the manifest that follows it: whoever wrote a manifest looks at the pointer again.

    The edge follows the pointer even where the object store is away; the manifest is then written by running it again.
    """
    store.switch(release_id, backup)
    _follow(settings, store)


def _follow(settings: Settings, store: RegionStore) -> None:
    region, cdn, shown = store.region, object_store(settings, store.region), None
    while (pointed := store.current()) is not None and pointed != shown:
        cdn.put_manifest(region.name, _manifest(cdn, region, pointed))
        shown = pointed


def _step_back(settings: Settings, store: RegionStore, row: dict[str, Any], since: datetime) -> None:
    """What was current becomes the backup; a backup of before and what was passed over are freed, and retire.

    Freed first: who is killed in between finds them in their old state again.
    """
    release_id, state, as_of = row["release_id"], row["state"], row["as_of"]
    if state == "current":
        _record(settings, store, release_id, "backup", as_of, "a newer release is current")
    elif state == "backup" and store.backup() != release_id:
        store.delete(release_id)
        _record(settings, store, release_id, "retired", as_of, "no longer the backup")
    elif state in PASSED_OVER and row["at"] < since:
        store.delete(release_id)
        _record(settings, store, release_id, "retired", as_of, "passed over: a newer release is current")
    elif state == "quarantined" and store.holds(release_id):
        store.delete(release_id)


def _record(settings: Settings, store: RegionStore, release_id: str, state: State, as_of: date, reason: str) -> None:
    ledger.record(settings, store.region.name, release_id, state, as_of=as_of, reason=reason, fence=store.fence)


def _rows(settings: Settings, region_name: str) -> list[dict[str, Any]]:
    """The region's releases, the one that moved last first."""
    return ledger.latest(settings, region_name)


def _row(settings: Settings, region_name: str, release_id: str) -> dict[str, Any]:
    rows = _rows(settings, region_name)
    for row in rows:
        if row["release_id"] == release_id:
            return row
    known = ", ".join(row["release_id"] for row in rows) or "none"
    raise TandemError(f"region {region_name} has no release {release_id}; it has {known}")


def _manifest(cdn: ObjectStore, region: Region, release_id: str) -> Manifest:
    found = cdn.manifest_of(region.name, release_id)
    if found is None:
        raise TandemError(f"region {region.name}: release {release_id} has no manifest; publish it again")
    return found
