"""`tandem live`: the streaming jobs of one Tandem, in one Spark: messages into the lake, and from there candidates."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial, reduce
from typing import Any, NoReturn

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.streaming import StreamingQuery

from edge_service.candidates import FORMAT, LivePair, LivePairs, pack
from edge_service.region_store import RegionStore
from spark_jobs import delta, in_tasks, into_lake, session, trending
from spark_jobs.into_lake import Say, checkpoint
from spark_jobs.trending import Found
from tandem import regions as regions_file
from tandem.errors import Unavailable
from tandem.regions import Region
from tandem.settings import Settings
from warehouse import lake
from warehouse.tables import LIVE_CANDIDATES

NAME = "candidates"
QUERY = "sql.streaming.queryId"
"""Where Spark says, inside a batch, which query it is of: the same as long as its checkpoint stays."""
RESTART_SECONDS = 5.0
NEWEST = 10
"""Commits of each table that a first start looks back over."""


def run(settings: Settings, say: Say, *, once: bool = False) -> None:
    """Both jobs until this process is stopped; `once`: what is there now. One that fails is said, and started again.

    Without brokers only candidates are made, from what `tandem events` brings.
    """
    held = session.with_streams(settings) if settings.kafka else settings
    session.fetch(held)
    lake.create(held)
    spark = session.create(held, "tandem live")
    starts = [partial(candidates, spark, held, say, once=once)]
    if held.kafka:
        starts.insert(0, lambda: into_lake.start(into_lake.messages(spark, held), held, say, once=once))
    if once:
        for start in starts:
            start().awaitTermination()
        return
    running = [start() for start in starts]
    say(f"live: {'Kafka at ' + held.kafka if held.kafka else 'no Kafka'}; lake {held.lake_root}")
    _keep_on(running, starts, say)


def _keep_on(running: list[StreamingQuery], starts: list[Callable[[], StreamingQuery]], say: Say) -> NoReturn:
    while True:
        time.sleep(RESTART_SECONDS)
        for place, query in enumerate(running):
            if not query.isActive:
                say(f"{query.name}: ended ({_reason(query)}); starting again where it was")
                running[place] = starts[place]()


def _reason(query: StreamingQuery) -> str:
    lines = [line.strip() for line in str(query.exception()).splitlines() if line.strip()]
    return lines[0] if lines else "stopped"


def candidates(spark: SparkSession, settings: Settings, say: Say, *, once: bool = False) -> StreamingQuery:
    """Follow the lake's events and make candidates of them; `once`: of those there now, and end.

    Without a checkpoint it begins with the newest commits, and the first batch of a process makes candidates of every
    region: the window is read whole in any case.
    """
    writer = _events(spark, settings, newest=not once).writeStream.queryName(NAME)
    writer = writer.option("checkpointLocation", checkpoint(settings, NAME))
    trigger: Any = {"availableNow": True} if once else {"processingTime": f"{settings.live_seconds} seconds"}
    return writer.trigger(**trigger).foreachBatch(_Maker(settings, say).make).start()


def _events(spark: SparkSession, settings: Settings, *, newest: bool) -> DataFrame:
    """Region and time of each new row; what imports rewrite and what is only put together anew is passed over."""
    return reduce(DataFrame.unionAll, [_appended(spark, settings, table, newest=newest) for table in trending.TABLES])


def _appended(spark: SparkSession, settings: Settings, table: str, *, newest: bool) -> DataFrame:
    reader = spark.readStream.format("delta").option("skipChangeCommits", "true")
    if newest:
        reader = reader.option("startingVersion", max(lake.open_table(settings, table).version() - NEWEST, 0))
    at = "ordered_at" if table == "sales_lines" else "at"
    return reader.load(delta.uri(settings, table)).select("region", F.col(at).alias("at"))


class _Maker:
    """Makes candidates of batches."""

    def __init__(self, settings: Settings, say: Say) -> None:
        self._settings, self._say, self._first = settings, say, True

    def make(self, batch: DataFrame, number: int) -> None:
        """Candidates of the regions that have something new in the window; of all of them in the first batch."""
        start, spark = time.monotonic(), batch.sparkSession
        known = trending.sources(self._settings, datetime.now(UTC))
        regions = self._regions(batch, known)
        if regions:
            work = partial(trending.found, known)
            found: list[Found] = in_tasks.values(in_tasks.each(spark, regions, work, in_tasks.VALUE))
            query = spark.sparkContext.getLocalProperty(QUERY)
            publish(self._settings, regions, found, known, (query, number), self._say)
            told = ", ".join(f"{each.region} {len(each.candidates)}" for each in found)
            self._say(f"{NAME}: batch {number}: {told}; {time.monotonic() - start:.1f} s")
        self._first = False

    def _regions(self, batch: DataFrame, known: trending.Sources) -> list[Region]:
        every = regions_file.load(self._settings.config_folder).region
        if self._first:
            return every
        since = F.lit(known.now - timedelta(minutes=known.rules.live.window_minutes))
        fresh = {row.region for row in batch.where(F.col("at") >= since).select("region").distinct().collect()}
        return [region for region in every if region.name in fresh]


def publish(
    settings: Settings,
    regions: list[Region],
    found: list[Found],
    known: trending.Sources,
    batch: tuple[str, int],
    say: Say,
) -> None:
    """Candidates into Delta, in one commit, and into each region's Redis; of one batch, both once."""
    expires_at = known.now + timedelta(seconds=known.rules.live.ttl_seconds)
    rows = [row for each in found for row in _rows(each, known, expires_at)]
    if rows:
        table = pa.Table.from_pylist(rows, schema=lake.arrow_schema(LIVE_CANDIDATES))
        lake.append_once(settings, LIVE_CANDIDATES, table, *batch)
    of_name = {region.name: region for region in regions}
    for each in found:
        try:
            with RegionStore(of_name[each.region]) as store:
                left = int((expires_at - datetime.now(UTC)).total_seconds() * 1000)
                store.put_candidates(*batch, pack(_pairs(each, expires_at)), max(left, 1))
        except Unavailable as error:
            say(f"{each.region}: no candidates for now: {error}")


def _rows(found: Found, known: trending.Sources, expires_at: datetime) -> list[dict[str, Any]]:
    same = {"region": found.region, "day": known.now.date(), "computed_at": known.now, "expires_at": expires_at}
    return [
        {
            **same,
            **each._asdict(),
            "anchor_floor_cents": found.floors.get(each.anchor),
            "companion_floor_cents": found.floors.get(each.companion),
            "as_of": known.as_of,
        }
        for each in found.candidates
    ]


def _pairs(found: Found, expires_at: datetime) -> LivePairs:
    floors = found.floors.get
    pairs = [
        LivePair(
            each.anchor,
            each.companion,
            each.confidence,
            each.lift,
            each.orders_together,
            floors(each.anchor),
            floors(each.companion),
        )
        for each in found.candidates
    ]
    return LivePairs(FORMAT, int(expires_at.timestamp() * 1000), tuple(pairs))
