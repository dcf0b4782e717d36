"""An order on its way with a broker: PostgreSQL, Kafka, the projector, the region's Redis, the edge's next answer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psycopg
import pytest

from deploy import asking
from tandem.settings import Settings
from tests.cdn.shop_world import REGION, STOCK, ShopWorld, shop_world
from tests.orders.test_relay import heard_by_kafka

pytestmark = [pytest.mark.servers, pytest.mark.e2e]

COFFEE = "1029743"


def stock_at_the_edge(world: ShopWorld) -> int:
    (product,) = httpx.get(f"{world.edge_url}/v1/{REGION}/live?skus={COFFEE}").json()["products"]
    return int(product["stock"])


def test_what_is_bought_is_in_postgresql_in_kafka_and_off_the_edges_shelf(kafka: Settings, tmp_path: Path) -> None:
    broker = {"kafka": kafka.kafka, "topic_prefix": kafka.topic_prefix}
    with shop_world(tmp_path / "shop", selling=True, **broker) as world, (tmp_path / "projector.log").open("wb") as log:
        projector = subprocess.Popen(
            [sys.executable, "-m", "tandem.cli", "project", "--region", REGION],
            env={**os.environ, **world.variables()},
            stdout=log,
            stderr=log,
        )
        try:
            bundle = httpx.get(f"{world.edge_url}/v1/{REGION}/bundles/{COFFEE}").json()["bundles"][0]
            address = f"{world.settings.local_orders}/v1/{REGION}/checkout"
            order = asking.post(address, {"quotes": [bundle["quote"]["token"]]}, asking.once()).json
            end = time.monotonic() + 60
            while stock_at_the_edge(world) != STOCK - 1:
                assert time.monotonic() < end, (tmp_path / "projector.log").read_text()
                time.sleep(0.05)
        finally:
            projector.terminate()
            projector.wait(30)
        with psycopg.connect(world.settings.orders_dsn) as connection:
            assert connection.execute("SELECT order_id::text FROM orders").fetchall() == [(order["order_id"],)]
    (placed,) = [json.loads(message.value()) for message in heard_by_kafka(kafka, "orders")]
    assert placed["order_id"] == order["order_id"]
    assert sum(line["offer_total"] for line in placed["lines"]) == bundle["offer_total"]
