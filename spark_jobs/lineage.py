"""Where a release comes from and where it went: facts, jobs, tables with their versions, keys in Redis and the CDN."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date
from typing import Any, NamedTuple

from cdn import keys
from edge_service.region_store import BODIES, BUCKETS, LISTS, META, RegionStore
from tandem import regions as regions_file
from tandem.errors import TandemError, Unavailable
from tandem.regions import Region
from tandem.settings import Settings
from warehouse import ledger, lineage
from warehouse.query import drawn
from warehouse.tables import INPUTS


class Held(NamedTuple):
    """A table as a release came from it."""

    table: str
    version: int | None
    """None: the ledger does not name one, and rows are those of the newest."""
    rows: int
    """Of a table with days: those of the release's."""


class Step(NamedTuple):
    """One job."""

    job: str
    reads: list[str]
    writes: list[Held]


class Keys(NamedTuple):
    """Keys that differ in a number alone."""

    key: str
    count: int


class Place(NamedTuple):
    """What one region has of the release."""

    region: str
    state: str
    at: str
    lists: int | None
    bundles: int | None
    checksum: str | None
    redis: list[Keys]
    """Empty where nothing lies there, or it cannot be asked."""
    cdn: list[Keys]


class Lineage(NamedTuple):
    """A release, from the facts to the keys that shoppers' requests read."""

    release_id: str
    as_of: str
    code_version: str
    facts: list[Held]
    jobs: list[Step]
    regions: list[Place]


def of(settings: Settings, release_id: str) -> Lineage:
    """By the ledger, the tables' logs and what lies in each region now. Raises TandemError for one that is nowhere."""
    rows = [row for row in ledger.latest(settings) if row["release_id"] == release_id]
    if not rows:
        raise TandemError(f"there is no release {release_id}; look with tandem releases")
    day = rows[0]["as_of"]
    versions = {table: at for row in rows for table, at in ledger.versions(row).items()}
    regions = regions_file.load(settings.config_folder)
    return Lineage(
        release_id=release_id,
        as_of=f"{day}",
        code_version=rows[0]["code_version"],
        facts=[_held(settings, table, versions, day) for table in INPUTS],
        jobs=[
            Step(job, list(flow.reads), [_held(settings, table, versions, day) for table in flow.writes])
            for job, flow in lineage.JOBS.items()
        ],
        regions=[_place(regions.get(row["region"]), row) for row in rows if row["region"] in regions.names],
    )


def as_text(found: Lineage) -> str:
    """For a terminal."""
    facts = [(each.table, each.version, each.rows) for each in found.facts]
    jobs = [
        (step.job, each.table, each.version, each.rows, ", ".join(step.reads))
        for step in found.jobs
        for each in step.writes
    ]
    places = [line for place in found.regions for line in _told(place)]
    return "\n".join(
        [
            f"{found.release_id}, of {found.as_of}, by version {found.code_version}\n",
            drawn(("fact", "version", "rows"), facts),
            "",
            drawn(("job", "writes", "version", "rows of the day", "reads"), jobs),
            "",
            *places,
        ]
    )


def as_json(found: Lineage) -> str:
    """The same, as nested objects."""
    return json.dumps(_plain(found))


def _plain(value: Any) -> Any:
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {name: _plain(each) for name, each in value._asdict().items()}
    return [_plain(each) for each in value] if isinstance(value, list) else value


def _held(settings: Settings, table: str, versions: Mapping[str, int], day: date) -> Held:
    version = versions.get(table)
    return Held(table, version, lineage.rows(settings, table, version, day))


def _place(region: Region, row: Mapping[str, Any]) -> Place:
    name, release_id = region.name, row["release_id"]
    shards = Keys(keys.SHARD.format(region=name, release=release_id, shard="{shard}"), row["shards"] or 0)
    files = [shards, Keys(keys.search_key(name, release_id), 1), Keys(keys.kept_manifest_key(name, release_id), 1)]
    return Place(
        region=name,
        state=row["state"],
        at=row["at"].isoformat(timespec="seconds"),
        lists=row["anchors"],
        bundles=row["bundles"],
        checksum=row["checksum"],
        redis=_in_redis(region, release_id),
        cdn=files if row["shards"] else [],
    )


def _in_redis(region: Region, release_id: str) -> list[Keys]:
    try:
        with RegionStore(region) as store:
            sealed = store.sealed(release_id)
    except Unavailable:
        return []
    if sealed is None:
        return []
    numbered = ((LISTS, sealed.buckets.lists), (BODIES, sealed.buckets.bodies))
    return [
        *(Keys(template.format(release=release_id), 1) for template in (META, BUCKETS)),
        *(Keys(template.format(release=release_id, bucket="{bucket}"), count) for template, count in numbered),
    ]


def _told(place: Place) -> list[str]:
    counted = f"{place.lists} lists, {place.bundles} bundles, checksum {place.checksum}"
    return [
        f"{place.region}: {place.state} since {place.at}; {counted}",
        *(f"  Redis  {each.key}{_times(each)}" for each in place.redis),
        *(f"  CDN    {each.key}{_times(each)}" for each in place.cdn),
    ]


def _times(each: Keys) -> str:
    return f"  × {each.count}" if "{" in each.key else ""
