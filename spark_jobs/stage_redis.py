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

    parts = _written(build.lists(), stage_lists) + _written(build.bodies(), stage_bodies)
    return Staged(
        anchors=sum(part.anchors for part in parts),
        bundles=sum(part.bundles for part in parts),
        digest=sum(int(part.digest) for part in parts) % 2**64,
    )


def _written(rows: DataFrame, write: Callable[[Batches], Batches]) -> list[Row]:
    """Run `write` in the tasks. Raises Unavailable where a task could not reach the region."""
    try:
        return rows.mapInArrow(write, COUNTED).collect()
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


def _stock(row: Row) -> LiveRow:
    return LiveRow(sku=row.sku, stock=row.on_hand)


def _price(row: Row) -> LiveRow:
    return LiveRow(sku=row.sku, list_price=row.list_price_cents, sale_price=row.sale_price_cents)


def seed_live(build: RegionBuild) -> int:
    """Bring live stock and prices up to the batch; what the feed has told since then stays. Gives how many changed."""
    seeded = 0
    with RegionStore(build.region) as store:
        for table, at, live_row in (("stock", "stock_as_of", _stock), ("prices", "prices_as_of", _price)):
            rows = build.fact(table).where(F.col("region") == build.region.name)
            newest: datetime | None = rows.agg(F.max(at)).first()[0]
            if newest is not None:
                seeded += store.seed_live(map(live_row, rows.toLocalIterator()), newest.replace(tzinfo=UTC))
    return seeded
