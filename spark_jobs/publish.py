"""Publish a build to a region: stage from Spark's partitions, verify what was written, seal, switch.

Nobody reads what is staged. Killed at any step, the next run writes the same bytes under the same keys and goes on.
"""

from __future__ import annotations

from datetime import date

from pyspark.sql import SparkSession

from cdn.manifest import Manifest
from edge_service.region_store import RegionStore, ReleaseMeta, Staged
from spark_jobs import region_build, seed_live, stage
from spark_jobs.region_build import RegionBuild
from spark_jobs.release_switch import Say, promote
from tandem import regions as regions_file
from tandem import release
from tandem.errors import TandemError, Unavailable
from tandem.release import State
from tandem.settings import Settings
from warehouse import ledger

ORDER: tuple[State, ...] = ("staged", "sealed", "canary", "current")


def everywhere(spark: SparkSession, settings: Settings, as_of: date, say: Say) -> None:
    """Publish to every region. A region that can't be reached is told at the end and holds nobody up."""
    degraded = []
    for region in regions_file.load(settings.config_folder).region:
        try:
            publish(spark, settings, as_of, region.name, say)
        except Unavailable as error:
            degraded.append(region.name)
            say(f"{region.name}: degraded, publish it again when it is back: {error}")
    if degraded:
        raise Unavailable(
            f"not published to {', '.join(degraded)}; run tandem publish --region for each when it is back"
        )


def publish(spark: SparkSession, settings: Settings, as_of: date, region_name: str, say: Say) -> None:
    """Bring the build of `as_of` to one region. Done twice, it changes nothing.

    Raises TandemError where there is no build or what was written does not read back, WrongTransition for a release
    that was quarantined, Unavailable where Redis or the object store can't be reached.
    """
    build = region_build.found(spark, settings, as_of, regions_file.load(settings.config_folder).get(region_name))
    state = ledger.state(settings, region_name, build.release_id)
    if state == "quarantined":
        release.step(build.release_id, state, "staged")
    with RegionStore(build.region) as store:
        shown = state == "current" and store.current() == build.release_id
        if not shown or not store.whole(build.release_id):
            _stage_and_seal(build, store, say)
    say(f"{region_name}: {seed_live.seed(build)} live values brought up to the batch")
    _reached(build, "canary", reason="health is read from here on")
    promote(settings, build.region, build.release_id, as_of, say)


def _stage_and_seal(build: RegionBuild, store: RegionStore, say: Say) -> None:
    _reached(build, "staged", reason="built", inputs=build.inputs)
    staged, manifest = stage.stage(build)
    found = store.verify(build.release_id)
    if found != staged:
        if store.sealed(build.release_id) is None:
            store.delete(build.release_id)  # what lay there before is of other rows
        raise TandemError(
            f"region {build.region.name}: of release {build.release_id} {staged.anchors} lists and {staged.bundles} "
            f"bundles were written, but {found.anchors} and {found.bundles} read back; publish it again"
        )
    checksum = release.checksum([found.digest])
    store.seal(build.release_id, _meta(build, manifest, found, checksum))
    _reached(
        build,
        "sealed",
        reason="verified",
        anchors=found.anchors,
        bundles=found.bundles,
        checksum=checksum,
        shards=manifest.shard_count,
        inputs=build.inputs,
    )
    say(
        f"{build.region.name}: {build.release_id} staged and verified: {found.anchors} lists, {found.bundles} bundles, "
        f"{manifest.shard_count} shards, checksum {checksum}"
    )


def _meta(build: RegionBuild, manifest: Manifest, found: Staged, checksum: str) -> ReleaseMeta:
    return ReleaseMeta(
        region=build.region.name,
        release_id=build.release_id,
        as_of=manifest.as_of,
        computed_at=manifest.computed_at,
        anchors=found.anchors,
        bundles=found.bundles,
        checksum=checksum,
        currency=build.region.currency,
        segments=tuple(manifest.segments),
    )


def _reached(build: RegionBuild, state: State, **told: object) -> None:
    """Record `state`, unless the release is there or further already; a retired one starts over."""
    now = ledger.state(build.settings, build.region.name, build.release_id)
    further = now in ("current", "backup") or (now in ORDER and ORDER.index(now) >= ORDER.index(state))
    if not further:
        ledger.record(build.settings, build.region.name, build.release_id, state, as_of=build.as_of, **told)  # type: ignore[arg-type]
