"""From the lake's events to candidates in Delta and in Redis: a real stream, a real Redis, and a kill in between."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pytest
import redis

from edge_service.candidates import FORMAT, LivePairs, pack
from edge_service.region_store import CANDIDATES
from spark_jobs import live
from spark_jobs.kernels import arrived
from streams.messages import Message
from tandem import regions as regions_file
from tandem.settings import Settings
from tests.spark_jobs.small_shop import make
from tests.spark_jobs.told_messages import order, view
from warehouse import arrivals, lake
from warehouse.tables import AFFINITY

pytestmark = [pytest.mark.spark, pytest.mark.servers]

DAY = dt.date(2024, 3, 1)


def affinity(*pairs: tuple[str, str, int]) -> pa.Table:
    """What the last build counted in `north`, of 600 orders: anchor, companion, orders with both of 100."""
    rows = [
        dict.fromkeys([column.name for column in AFFINITY.columns if column.type in ("long", "double")], 1)
        | {"as_of": DAY, "region": "north", "segment": "*", "anchor": anchor, "companion": companion, "rank": 1}
        | {"orders_total": 600, "orders_anchor": 100, "orders_both": both, "confidence": both / 100, "lift": 4.0}
        for anchor, companion, both in pairs
    ]
    return pa.Table.from_pylist(rows, schema=lake.arrow_schema(AFFINITY))


class Follower:
    """The job over the small shop's lake, run over what came since the last time."""

    def __init__(self, spark: Any, settings: Settings, url: str) -> None:
        self.spark, self.settings, self.url = spark, settings, url
        self.said: list[str] = []
        lake.append(settings, AFFINITY, affinity(("pasta", "soap", 20), ("pasta", "sauce", 40)))
        self.run()  # from here on

    def run(self, say: Any = None) -> None:
        live.candidates(self.spark, self.settings, say or self.said.append, once=True).awaitTermination()

    def tell(self, *messages: Message) -> None:
        regions = {region.name: region for region in regions_file.load(self.settings.config_folder).region}
        rows = [row for each in messages for row in arrived.rows(each, regions, dt.datetime.now(dt.UTC))]
        for table in arrivals.KEYS:
            arrivals.add(self.settings, table, [row.values for row in rows if row.table == table])

    @property
    def payload(self) -> bytes:
        with redis.Redis.from_url(self.url) as client:
            return client.get(CANDIDATES) or pack(LivePairs(FORMAT, 0, ()))

    @property
    def in_redis(self) -> set[tuple[str, str]]:
        pairs = msgspec.msgpack.decode(self.payload, type=LivePairs).pairs
        return {(pair.anchor, pair.companion) for pair in pairs}

    @property
    def in_delta(self) -> list[dict[str, Any]]:
        return list(lake.open_table(self.settings, "live_candidates").to_pyarrow_table().to_pylist())


@pytest.fixture
def follower(spark: Any, tmp_path: Path, redis_url: str) -> Follower:
    return Follower(spark, make(tmp_path, redis_url, k=3), redis_url)


def orders(count: int, *skus: str, minutes_ago: int = 1) -> list[Message]:
    at = dt.datetime.now(dt.UTC) - dt.timedelta(minutes=minutes_ago)
    return [order(f"{'-'.join(skus)}-{minutes_ago}-{n}", *skus, at=at) for n in range(count)]


def test_what_takes_off_and_what_goes_together_just_now_reaches_redis_and_delta(follower: Follower) -> None:
    follower.tell(*orders(3, "soap", "wine"), *orders(2, "nappy", "wipes"))
    follower.tell(*orders(9, "cheese", "sauce", minutes_ago=45))
    follower.run()
    assert follower.in_redis == {("soap", "wine"), ("wine", "soap"), ("pasta", "soap")}
    kinds = {(row["anchor"], row["companion"]): (row["kind"], row["actors"]) for row in follower.in_delta}
    assert kinds[("soap", "wine")] == ("together", 3)
    assert kinds[("pasta", "soap")] == ("trending", 3)
    (row,) = [row for row in follower.in_delta if row["anchor"] == "pasta"]
    assert (row["orders_together"], row["lift"], row["as_of"]) == (20, 4.0, DAY)
    assert row["anchor_floor_cents"] == 105  # a cost of 100 and the least margin, 5 %


def test_killed_between_the_sinks_and_the_checkpoint_the_batch_is_done_again_and_doubles_nothing(
    follower: Follower,
) -> None:
    def killed(_: str) -> None:
        raise RuntimeError("killed before the checkpoint")

    follower.tell(*orders(3, "soap", "wine"))
    with pytest.raises(Exception, match="killed before the checkpoint"):
        follower.run(killed)
    before, told = follower.payload, follower.in_delta
    assert len(told) == 3
    follower.run()
    assert follower.said[-1].startswith("candidates: batch 1: north 3")
    assert (follower.payload, follower.in_delta) == (before, told)
    follower.tell(*orders(3, "cheese", "wipes"))
    follower.run()
    assert ("cheese", "wipes") in follower.in_redis
    assert len({row["computed_at"] for row in follower.in_delta}) == 2


def test_sessions_speak_too_and_what_names_no_shopper_says_nothing(follower: Follower) -> None:
    now = dt.datetime.now(dt.UTC)
    seen = [view(f"{sku}{n}", sku, f"s{n}", at=now) for n in range(3) for sku in ("soap", "wine")]
    nobody = [view(f"x{sku}{n}", sku, None, at=now) for n in range(9) for sku in ("nappy", "cheese")]
    follower.tell(*seen, *nobody)
    follower.run()
    assert follower.in_redis == {("soap", "wine"), ("wine", "soap"), ("pasta", "soap")}
