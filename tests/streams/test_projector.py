"""From Kafka into a region's Redis: every change once, in whatever order and however often it came."""

from __future__ import annotations

import random
import signal
import time
from datetime import UTC, datetime

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from benchmarks import _edge_world
from benchmarks._serving import Serving
from benchmarks._streams_world import World, until
from deploy import services
from streams.messages import StockChanged
from tests.edge_service.conftest import region_at

pytestmark = pytest.mark.servers


def test_each_region_gets_its_own_changes_packed_in_few_entries(world: World) -> None:
    world.send(world.changes(3_000, regions=("north", "south")))
    world.projecting("north")
    world.projecting("south")
    world.wait("north", "south")
    assert sum(world.places("north").values()) == sum(world.places("south").values()) == 3_000
    assert len(world.entries("north")) < 100
    assert len(world.entries("north")[0][1]) > 10


def test_a_projector_that_is_told_to_stop_has_all_it_read_in_redis_and_goes_on_from_there(world: World) -> None:
    projecting = world.projecting()
    world.send(world.changes(500))
    world.wait()
    assert projecting.kill(signal.SIGTERM) == 0
    assert "stopped; all that was read is in Redis" in projecting.said
    before = world.entries()
    world.send(world.changes(500))
    world.projecting()
    world.wait()
    assert world.entries()[: len(before)] == before
    assert sum(world.places().values()) == 1_000


def test_duplicates_and_any_order_end_in_the_same_state(world: World) -> None:
    changes = world.changes(400)
    told = [*changes, *changes, *reversed(changes)]
    random.Random(3).shuffle(told)
    world.send(told)
    world.projecting()
    world.wait()
    assert sum(world.places().values()) == 1_200


def test_a_change_told_to_kafka_is_in_an_edges_next_answers(world: World) -> None:
    for name, url in world.urls.items():
        _edge_world.publish(region_at(url, name), 100)
    change = StockChanged(
        region="north", sku=_edge_world.sku(1), stock=17, sequence=time.time_ns() // 1000, at=datetime.now(UTC)
    )
    world.projecting()
    with Serving(world.settings) as serving:
        asked = f"{serving.address}/v1/north/live?skus={change.sku}"
        before = httpx.get(asked).json()["products"][0]
        world.send([change])
        until(lambda: httpx.get(asked).json()["products"][0] == {**before, "stock": 17})
        elsewhere = httpx.get(asked.replace("north", "south")).json()["products"][0]
    assert (before["stock"] != 17, elsewhere["stock"]) == (True, before["stock"])


def test_metrics_say_how_far_behind_a_projector_is(world: World) -> None:
    (port,) = services.free_ports(1)
    world.send(world.changes(300, regions=("north", "south")))
    world.projecting("north", "--metrics-port", str(port))
    world.wait()
    own = sum(message.region == "north" for message in world.sent)  # type: ignore[attr-defined]

    def told() -> dict[str, float]:
        families = text_string_to_metric_families(httpx.get(f"http://127.0.0.1:{port}/metrics").text)
        samples = [each for family in families for each in family.samples if not each.name.endswith("_created")]
        found = {sample.labels.get("outcome", sample.name): sample.value for sample in samples}
        return found | {"lag": sum(each.value for each in samples if each.name.endswith("lag_records"))}

    until(lambda: told()["applied"] + told()["stale"] == own)
    assert told()["elsewhere"] == 300 - own
    until(lambda: told()["lag"] == 0)
    assert told()["tandem_projector_snapshot_age_seconds"] == -1
