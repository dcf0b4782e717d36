"""Exposures and outcomes go from a real Redis into the lake, each once, and are evaluated."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import pytest
import redis

from edge_service.region_store import EVENTS
from spark_jobs import evaluation, events
from tandem import regions
from tandem.settings import Settings
from tests.spark_jobs.small_shop import AS_OF, make
from warehouse import lake

pytestmark = pytest.mark.servers
NOON = dt.datetime(2024, 2, 28, 12, tzinfo=dt.UTC)


def event(kind: str, number: int, **facts: Any) -> dict[str, Any]:
    told = {"kind": kind, "event_id": f"{kind}{number}", "at": NOON.isoformat(), "release_id": "r1", "session_id": None}
    if kind == "exposure":
        told |= {"segment": "*", "anchor": "pasta", "bundle_ids": ["b1", "b2"]}
    else:
        told |= {"bundle_id": "b1", "anchor": "pasta", "offer_total_cents": 390}
    return {"region": "north", **told, **facts}


def tell(url: str, *told: dict[str, Any]) -> None:
    with redis.Redis.from_url(url) as client:
        for each in told:
            client.xadd(EVENTS, {"event": json.dumps(each)})


def held(settings: Settings, table: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = lake.open_table(settings, table).to_pyarrow_table().to_pylist()
    return sorted(rows, key=lambda row: row["event_id"])


@pytest.fixture
def shop(tmp_path: Any, redis_url: str) -> Settings:
    return make(tmp_path, redis_url)


def test_each_event_lands_once_however_often_it_is_told(shop: Settings, redis_url: str) -> None:
    north = regions.load(shop.config_folder).get("north")
    tell(redis_url, event("exposure", 1), event("click", 1), event("click", 1), event("purchase", 1))
    assert events.collect(shop, north) == 3
    tell(redis_url, event("exposure", 1), event("exposure", 2))
    assert events.collect(shop, north) == 1
    assert [row["event_id"] for row in held(shop, "exposures")] == ["exposure1", "exposure2"]
    assert [row["kind"] for row in held(shop, "outcomes")] == ["click", "purchase"]
    assert held(shop, "exposures")[0]["at"] == NOON


def test_killed_before_redis_forgot_them_nothing_is_lost_or_doubled(
    shop: Settings, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    north = regions.load(shop.config_folder).get("north")
    tell(redis_url, event("exposure", 1), event("cart", 1))

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(events.RegionStore, "forget_events", killed)
        with pytest.raises(KeyboardInterrupt):
            events.collect(shop, north)
    assert events.collect(shop, north) == 0
    assert len(held(shop, "exposures")) == len(held(shop, "outcomes")) == 1
    with redis.Redis.from_url(redis_url) as client:
        assert client.xlen(EVENTS) == 0


def test_a_region_out_of_reach_is_named_and_does_not_stop_the_others(tmp_path: Any) -> None:
    said: list[str] = []
    events.collect_all(make(tmp_path), said.append)
    assert [line.partition(":")[0] for line in said] == ["north", "south"]
    assert all("stay there" in line for line in said)


@pytest.mark.spark
def test_what_was_shown_and_bought_is_in_the_evaluation(shop: Settings, redis_url: str, job_of: Any) -> None:
    tell(redis_url, *[event("exposure", n) for n in range(40)], *[event("purchase", n) for n in range(10)])
    tell(redis_url, event("exposure", 99, at=dt.datetime(2024, 3, 1, tzinfo=dt.UTC).isoformat()))
    events.collect_all(shop, print)
    (row,) = evaluation.outcome_rates(job_of(shop)).collect()
    assert (row.region, row.metric, row.value, row.queries) == ("north", "purchase_rate", 0.25, 40)
    assert row.low == pytest.approx(0.1419, abs=1e-3)
    assert row.high == pytest.approx(0.4019, abs=1e-3)
    assert dt.date(2024, 3, 1) == AS_OF
