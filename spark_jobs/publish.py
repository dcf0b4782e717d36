"""Publish a build to a region: stage from Spark's partitions, verify what was written, seal, switch.

Nobody reads what is staged. Whoever publishes holds the region's lease, and its fence goes with every write. Killed at
any step, the next run writes the same bytes under the same keys and goes on.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import date
from typing import Any

from pyspark.sql import SparkSession

from cdn.manifest import Manifest
from edge_service.lease import Held, publishing
from edge_service.region_store import Full, InUse, RegionStore, ReleaseMeta, Staged
from spark_jobs import region_build, seed_live
from spark_jobs import stage as staging
from spark_jobs.region_build import RegionBuild
from spark_jobs.release_switch import Say, promote
from tandem import regions as regions_file
from tandem import release
from tandem.errors import TandemError, Unavailable
from tandem.release import State
from tandem.settings import Settings
from warehouse import ledger

ORDER: tuple[State, ...] = ("staged", "sealed", "canary", "current", "backup")


def everywhere(spark: SparkSession, settings: Settings, as_of: date, say: Say) -> None:
    """Publish to every region. A region that can't be reached is marked degraded and holds nobody up.

    Raises Unavailable that names those at the end.
    """
    left = []
    for region in regions_file.load(settings.config_folder).region:
        try:
            publish(spark, settings, as_of, region.name, say)
        except Unavailable as error:
            left.append(region.name)
            say(f"{region.name}: {error}")
    if left:
        raise Unavailable(f"not published to {', '.join(left)}; when they are back, run tandem catch-up")


def publish(spark: SparkSession, settings: Settings, as_of: date, region_name: str, say: Say) -> None:
    """Bring the build of `as_of` to one region. Done twice, it changes nothing.

    Raises TandemError where there is no build or what was written does not read back, WrongTransition for a release
    that was quarantined, Fenced where another publisher took over, and Unavailable where Redis or the object store
    can't be reached: the ledger then calls the region degraded.
    """
    bring(region_build.found(spark, settings, as_of, regions_file.load(settings.config_folder).get(region_name)), say)


def bring(build: RegionBuild, say: Say) -> None:
    """`publish`, for a build that was found."""
    with _degraded_if_lost(build), publishing(build.region, say) as store:
        _stage_into(build, store, say)
        promote(build.settings, store, build.release_id, build.as_of, say)


def stage(spark: SparkSession, settings: Settings, as_of: date, region_name: str, say: Say) -> None:
    """As `publish`, up to the seal: the release lies there whole, and no shopper sees it yet."""
    build = region_build.found(spark, settings, as_of, regions_file.load(settings.config_folder).get(region_name))
    with _degraded_if_lost(build), publishing(build.region, say) as store:
        _stage_into(build, store, say)


def _stage_into(build: RegionBuild, store: RegionStore, say: Say) -> None:
    """Stage and seal what is not there whole already, and bring live values up to the batch."""
    build = replace(build, fence=store.fence)
    state = ledger.state(build.settings, build.region.name, build.release_id)
    if state == "quarantined":
        release.step(build.release_id, state, "staged")
    shown = state == "current" and store.current() == build.release_id
    if not shown or not store.whole(build.release_id):
        stage_and_seal(build, store, say)
    say(f"{build.region.name}: {seed_live.seed(build)} live values brought up to the batch")


@contextmanager
def _degraded_if_lost(build: RegionBuild) -> Iterator[None]:
    """Where the region is lost on the way, the ledger says what it misses."""
    try:
        yield
    except Held:
        raise
    except Unavailable as error:
        if isinstance(error, Full):
            _make_room(build)
        state = ledger.state(build.settings, build.region.name, build.release_id)
        if "degraded" in release.NEXT[state] and state != "degraded":
            _record(build, "degraded", reason=str(error), inputs=build.inputs, outputs=build.outputs)
        raise


def _make_room(build: RegionBuild) -> None:
    """Remove what a release that found no room has written; live values need it.

    The lease is taken anew, so that tasks of ours that still run are refused.
    """
    with suppress(Unavailable, InUse), publishing(build.region, str, take_over=True) as store:
        store.delete(build.release_id)


def stage_and_seal(build: RegionBuild, store: RegionStore, say: Say) -> None:
    """Write, read back, seal. What is sealed already is mended where something of it was lost.

    Raises TandemError where what reads back is not what was written.
    """
    _reached(build, "staged", reason="built", inputs=build.inputs, outputs=build.outputs)
    staged, manifest = staging.stage(build)
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
        outputs=build.outputs,
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
    further = now in ORDER and ORDER.index(now) >= ORDER.index(state)
    if not further:
        _record(build, state, **told)


def _record(build: RegionBuild, state: State, **told: Any) -> None:
    region, release_id = build.region.name, build.release_id
    ledger.record(build.settings, region, release_id, state, as_of=build.as_of, fence=build.fence, **told)
