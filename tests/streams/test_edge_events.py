"""Events that the edges keep go to Kafka, each with all it says, and leave Redis only then."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import redis
from confluent_kafka import Consumer
from msgspec.structs import replace

from edge_service.region_store import EVENTS
from streams import broker, edge_events
from streams.messages import Activity, Exposure, Message, read
from tandem.errors import Unavailable
from tandem.settings import Settings
from tests.edge_service.conftest import region_at

pytestmark = pytest.mark.servers

SEEN = {"event_id": "e1", "at": "2026-01-05T12:00:00Z", "release_id": "r1", "session_id": None, "region": "north"}
SHOWN = {**SEEN, "kind": "exposure", "anchor": "tea", "bundle_ids": ["b1"], "segment": "*"}
CLICKED = {**SEEN, "event_id": "e2", "kind": "click", "bundle_id": "b1", "anchor": "tea", "offer_total_cents": None}


def told(settings: Settings, count: int) -> list[Message]:
    names = [settings.topic_prefix + name for name in ("activity", "exposures")]
    reader = Consumer({"bootstrap.servers": settings.kafka, "group.id": "x", "auto.offset.reset": "earliest"})
    reader.subscribe(names)
    found = [record for record in reader.consume(count, timeout=20) if record.error() is None]
    reader.close()
    return [read(record.headers(), record.value()) for record in found]


def tell(url: str, *events: dict[str, object]) -> None:
    with redis.Redis.from_url(url) as client:
        for each in events:
            client.xadd(EVENTS, {"event": json.dumps(each)})


def left(url: str) -> int:
    with redis.Redis.from_url(url) as client:
        return int(client.xlen(EVENTS))


def test_events_of_a_region_are_told_to_kafka_and_leave_its_redis(kafka: Settings, redis_url: str) -> None:
    tell(redis_url, SHOWN, CLICKED)
    region = region_at(redis_url, consent_purposes=["ads"])
    assert edge_events.forward(kafka, region, broker.producer(kafka)) == 2
    shown, clicked = sorted(told(kafka, 2), key=lambda message: message.event_id)  # type: ignore[attr-defined]
    assert isinstance(shown, Exposure)
    assert isinstance(clicked, Activity)
    assert (shown.anchor, clicked.bundle_id, clicked.consents) == ("tea", "b1", ["ads"])
    assert left(redis_url) == 0


def test_without_a_broker_they_stay(redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge_events, "FLUSH_SECONDS", 0.2)
    held = replace(Settings(home=tmp_path), kafka="127.0.0.1:1")
    tell(redis_url, SHOWN)
    with pytest.raises(Unavailable, match=r"Kafka at 127\.0\.0\.1:1"):
        edge_events.forward(held, region_at(redis_url), broker.producer(held))
    assert left(redis_url) == 1
