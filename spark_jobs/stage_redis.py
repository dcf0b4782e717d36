"""A release into a region's Redis, from the partitions that hold it, and the batch's stock and prices."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import chain

import pyarrow as pa
from pyspark.errors import PythonException
from pyspark.sql import DataFrame, Row
from pyspark.sql import functions as F

from edge_service.region_store import LiveRow, RegionStore, Staged
from spark_jobs.region_build import RegionBuild, anchor_list, bundle_of
from tandem.errors import Unavailable

COUNTED = "anchors long, bundles long, digest string"
Batches = Iterator[pa.RecordBatch]


def stage(build: RegionBuild) -> Staged:
    """Write lists and bodies under the release's own keys; gives what was written in all partitions together."""
    region, release_id = build.region, build.release_id

    def stage_lists(batches: Batches) -> Batches:
        with RegionStore(region) as store:
            yield _counted(store.stage(release_id, [], map(anchor_list, _rows(batches))))

    def stage_bodies(batches: Batches) -> Batches:
        with RegionStore(region) as store:
            yield _counted(store.stage(release_id, map(bundle_of, _rows(batches)), []))

    parts = _written(build.lists, stage_lists) + _written(build.bodies, stage_bodies)
    return Staged(
        anchors=sum(part.anchors for part in parts),
        bundles=sum(part.bundles for part in parts),
        digest=sum(int(part.digest) for part in parts) % 2**64,
    )


def _written(rows: DataFrame, write: Callable[[Batches], Batches], schema: str = COUNTED) -> list[Row]:
    """Run `write` in the tasks. Raises Unavailable where a task could not reach the region."""
    try:
        return rows.mapInArrow(write, schema).collect()
    except PythonException as error:
        lost = next((line for line in str(error).splitlines() if "tandem.errors.Unavailable: " in line), None)
        if lost is None:
            raise
        raise Unavailable(lost.partition("Unavailable: ")[2]) from error


def _rows(batches: Batches) -> Iterator[dict[str, object]]:
    return chain.from_iterable(batch.to_pylist() for batch in batches)


def _counted(done: Staged) -> pa.RecordBatch:
    # The digest has 64 bits without a sign, which Spark's long has not.
    return pa.RecordBatch.from_pydict(
        {"anchors": [done.anchors], "bundles": [done.bundles], "digest": [str(done.digest)]}
    )


LIVE = {
    "stock": ("stock_as_of", {"stock": "on_hand"}),
    "prices": ("prices_as_of", {"list_price": "list_price_cents", "sale_price": "sale_price_cents"}),
}
"""Fact table to its time, and to what a live row calls its columns."""


def seed_live(build: RegionBuild) -> int:
    """Bring live stock and prices up to the batch; what the feed has told since then stays. Gives how many changed."""
    return sum(_seed(build, table, at, columns) for table, (at, columns) in LIVE.items())


def _seed(build: RegionBuild, table: str, at: str, columns: dict[str, str]) -> int:
    region = build.region
    rows = build.fact(table).where(F.col("region") == region.name)
    newest: datetime | None = rows.agg(F.max(at)).first()[0]
    if newest is None:
        return 0
    known_at = newest.replace(tzinfo=UTC)

    def seed(batches: Batches) -> Batches:
        with RegionStore(region) as store:
            changed = store.seed_live((LiveRow(**row) for row in _rows(batches)), known_at)  # type: ignore[arg-type]
        yield pa.RecordBatch.from_pydict({"changed": [changed]})

    named = rows.select("sku", *[F.col(column).alias(name) for name, column in columns.items()])
    return sum(part.changed for part in _written(named, seed, "changed long"))
