"""A product takes off: from Kafka through Spark, Delta and Redis to a shopper's answer, across a kill of everything."""

from __future__ import annotations

import datetime as dt
import os
import signal
import subprocess
import sysconfig
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from confluent_kafka import Producer
from msgspec.structs import replace

from edge_service.app import create_app
from edge_service.region_store import LiveRow, RegionStore
from streams import broker
from streams.messages import Message
from tandem import regions as regions_file
from tandem.settings import Settings
from tests.edge_service.conftest import client_of, publish, ready, until
from tests.edge_service.conftest import settings as edge_settings
from tests.spark_jobs.small_shop import make
from tests.spark_jobs.test_live import affinity
from tests.spark_jobs.told_messages import order, view
from warehouse import lake
from warehouse.tables import AFFINITY

pytestmark = [pytest.mark.anyio, pytest.mark.spark, pytest.mark.servers, pytest.mark.e2e]

TANDEM = str(Path(sysconfig.get_path("scripts")) / "tandem")
SECONDS = 120.0
"""In which a product that takes off has to be offered."""


@pytest.fixture
def shop(tmp_path: Path, redis_url: str, kafka: Settings) -> Settings:
    """The small shop after a build, with a broker."""
    held = make(tmp_path, redis_url, k=3)
    lake.append(held, AFFINITY, affinity(("pasta", "soap", 20)))
    return replace(held, kafka=kafka.kafka, topic_prefix=kafka.topic_prefix)


@contextmanager
def running(shop: Settings, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`tandem live` in a process group of its own; killed with all of it at the end."""
    told = {"HOME": shop.home, "CONFIG": shop.config, "KAFKA": shop.kafka, "TOPIC_PREFIX": shop.topic_prefix}
    environment = os.environ | {f"TANDEM_{name}": str(value) for name, value in told.items()}
    with log.open("ab") as out:
        live = subprocess.Popen(
            [TANDEM, "live"],
            env=environment | {"TANDEM_LIVE_SECONDS": "1"},
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    try:
        yield live
    finally:
        os.killpg(live.pid, signal.SIGKILL)
        live.wait()


def wait(live: subprocess.Popen[bytes], true: Callable[[], bool], log: Path) -> None:
    end = time.monotonic() + SECONDS
    while not true():
        assert live.poll() is None, log.read_text(encoding="utf-8")[-4_000:]
        assert time.monotonic() < end, log.read_text(encoding="utf-8")[-4_000:]
        time.sleep(0.2)


def names(shop: Settings, table: str, column: str) -> list[str]:
    rows = lake.open_table(shop, table).to_pyarrow_table().to_pylist()
    return sorted(row[column] for row in rows if row.get("source", "orders") == "orders")


async def test_what_takes_off_is_offered_and_a_kill_of_the_whole_job_loses_and_doubles_nothing(
    shop: Settings, tmp_path: Path
) -> None:
    log, now = tmp_path / "live.log", dt.datetime.now(dt.UTC)
    producer: Producer = broker.producer(shop)

    def tell(*messages: Message) -> None:
        for message in messages:
            broker.send(producer, shop, message)
        assert producer.flush(20) == 0

    before = [order(f"a{n}", "bag", at=now) for n in range(300)]
    with running(shop, log) as live:
        tell(*before[:100], *[view(f"v{n}", "bag", f"s{n}", at=now) for n in range(100)])
        wait(live, lambda: bool(names(shop, "sales_lines", "order_id")), log)
        tell(*before[100:])  # and is killed wherever it is with these
    takes_off = [order(f"b{n}", "soap", "wine", at=dt.datetime.now(dt.UTC)) for n in range(3)]
    tell(*before[:50], *takes_off)
    region = regions_file.load(shop.config_folder).get("north")
    with RegionStore(region) as store:
        publish(store, "r1")
        rows = [LiveRow(sku=sku, stock=9, list_price=price) for sku, price in (("soap", 200), ("wine", 900))]
        store.seed_live(rows, dt.datetime.now(dt.UTC))
    with running(shop, log) as live:
        async with client_of(create_app(edge_settings(tmp_path / "edge"), [region])) as client:
            await ready(client)
            wait(live, lambda: len(names(shop, "sales_lines", "order_id")) >= 306, log)

            async def offered() -> bool:
                return await shown(client, "soap") == [("live", ["soap", "wine"])]

            await until(offered, SECONDS)
    expected = [each.order_id for each in before] + [each.order_id for each in takes_off for _ in each.lines]
    assert names(shop, "sales_lines", "order_id") == sorted(expected)
    assert names(shop, "activity", "event_id") == sorted(f"v{n}" for n in range(100))
    assert names(shop, "rejected_rows", "reason") == []


async def shown(client: httpx.AsyncClient, sku: str) -> list[tuple[str, list[str]]]:
    answer = (await client.get(f"/v1/north/bundles/{sku}")).json()
    return [
        (each.get("source", "release"), sorted(part["sku"] for part in each["components"]))
        for each in answer["bundles"]
    ]
