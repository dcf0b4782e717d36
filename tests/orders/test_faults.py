"""Checkout under load while things break: nothing is lost, nothing doubled, never more sold than there was.

The service is a process with two workers, as in production; shoppers are threads that send again what had no answer.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from deploy.services import free_ports
from tests.orders.conftest import DELTA_KEY, ORDER_KEY, QUOTE_KEYS, Postgres, quote, rows, stocked

pytestmark = pytest.mark.servers

ONE_SERVER = pytest.mark.parametrize("postgres", ["wheel"], indirect=True)
CONFIG = """
[[region]]
name = "east"
currency = "USD"
time_zone = "UTC"
redis_url = "redis://127.0.0.1:1/0"
[region.object_store]
endpoint = "http://127.0.0.1:1"
bucket = "none"
public_url = "http://127.0.0.1:1/none"
"""


class Service:
    """`tandem orders serve` as a process that a test may kill."""

    def __init__(self, dsn: str, home: Path) -> None:
        (home / "config").mkdir()
        (home / "config" / "regions.toml").write_text(CONFIG, encoding="ascii")
        (self.port,) = free_ports(1)
        self.url, self._home = f"http://127.0.0.1:{self.port}", home
        self._environment = {
            **os.environ,
            "TANDEM_HOME": str(home),
            "TANDEM_ORDERS": dsn,
            "TANDEM_QUOTE_KEYS": QUOTE_KEYS,
            "TANDEM_DELTA_KEYS": DELTA_KEY,
            "TANDEM_ORDER_KEYS": ORDER_KEY,
            "TANDEM_LONGEST_WAIT_MS": "60000",
        }

    def start(self) -> None:
        command = [sys.executable, "-m", "tandem.cli", "orders", "serve", "--port", str(self.port), "--workers", "2"]
        with (self._home / "orders.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, env=self._environment, stdout=log, stderr=log, start_new_session=True
            )
        end = time.monotonic() + 60
        while not self._ready():
            assert time.monotonic() < end, (self._home / "orders.log").read_text()
            time.sleep(0.1)

    def end(self, number: signal.Signals) -> None:
        """The whole group: workers must not outlive who started them."""
        os.killpg(self._process.pid, number)
        self._process.wait(30)

    def _ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/readyz", timeout=2).status_code == 200
        except httpx.TransportError:
            return False


@pytest.fixture
def service(dsn: str, tmp_path: Path) -> Iterator[Service]:
    found = Service(dsn, tmp_path)
    found.start()
    yield found
    found.end(signal.SIGTERM)


def buy(client: httpx.Client, token: str, key: str) -> httpx.Response:
    return client.post("/v1/east/checkout", json={"quotes": [token]}, headers={"Idempotency-Key": key})


def buy_until_answered(client: httpx.Client, token: str) -> httpx.Response:
    """As a shop should: without an answer, or told to wait, the same is sent again with the same key."""
    key, end = str(uuid4()), time.monotonic() + 60
    while time.monotonic() < end:
        try:
            answer = buy(client, token, key)
        except httpx.TransportError:
            pass
        else:
            if answer.status_code != 503:
                return answer
        time.sleep(0.05)
    raise TimeoutError("no answer for a minute")


@contextmanager
def shoppers(url: str, count: int) -> Iterator[tuple[ThreadPoolExecutor, httpx.Client]]:
    limits = httpx.Limits(max_connections=count)
    with httpx.Client(base_url=url, limits=limits, timeout=60) as client, ThreadPoolExecutor(count) as pool:
        yield pool, client


async def thousand(port: int, token: str) -> list[tuple[int, dict[str, Any]]]:
    """Status and answer of a thousand shoppers who all ask at once, each over a connection of its own; who is told to
    wait asks again.
    """
    body = json.dumps({"quotes": [token]}).encode()

    async def asked(key: str) -> tuple[int, dict[str, Any]]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = f"POST /v1/east/checkout HTTP/1.1\r\nHost: orders\r\nConnection: close\r\nIdempotency-Key: {key}\r\n"
        writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        told, _, answer = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        return int(told.split()[1]), json.loads(answer)

    async def shopper() -> tuple[int, dict[str, Any]]:
        key = str(uuid4())
        while (answer := await asked(key))[0] == 503:
            await asyncio.sleep(1)
        return answer

    return await asyncio.gather(*(shopper() for _ in range(1_000)))


def test_a_thousand_checkouts_at_once_for_ten_units_sell_exactly_ten(dsn: str, service: Service) -> None:
    stocked(dsn, tea=10)
    answers = asyncio.run(thousand(service.port, quote(("tea", 1, 450))))
    told = Counter(status for status, _ in answers)
    kinds = {answer["type"] for status, answer in answers if status != 201}
    print(f"1,000 checkouts at once for 10 units: {dict(told)}")
    assert (told, kinds) == ({201: 10, 409: 990}, {"urn:tandem:problem:sold-out"})
    assert rows(dsn, "SELECT on_hand, (SELECT count(*) FROM orders) FROM stock") == [(0, 10)]


def whole(dsn: str, answered: dict[str, int], products: dict[str, int]) -> None:
    """Every answered order is there once; all lines, stock and messages agree."""
    there = dict(rows(dsn, "SELECT order_id::text, total FROM orders"))
    lost, doubled = answered.keys() - there.keys(), there.keys() - answered.keys()
    sold = dict(rows(dsn, "SELECT sku, sum(quantity)::int FROM order_lines GROUP BY sku"))
    left = dict(rows(dsn, "SELECT sku, on_hand FROM stock"))
    print(
        f"{len(answered)} answered, {len(there)} in PostgreSQL, {len(lost)} lost, {len(doubled)} doubled; sold {sold}"
    )
    assert (lost, doubled) == (set(), set())
    assert all(there[order] == total for order, total in answered.items())
    assert {sku: left[sku] + sold.get(sku, 0) for sku in products} == products
    placed = rows(dsn, "SELECT count(*), count(DISTINCT key) FROM outbox WHERE kind = 'order-placed'")
    assert placed == [(len(there), len(there))]
    last = rows(
        dsn,
        "SELECT DISTINCT ON (key) convert_from(value, 'UTF8')::json ->> 'sku', "
        "(convert_from(value, 'UTF8')::json ->> 'stock')::int FROM outbox WHERE kind = 'stock-changed' "
        "ORDER BY key, id DESC",
    )
    assert dict(last) == {sku: left[sku] for sku, _ in last}


PRODUCTS = {"tea": 5_000, "cup": 5_000, "pot": 5_000}
TOKENS = [
    quote(*parts, ttl_seconds=86_400)  # they are made when the run begins, long before they are used
    for parts in (
        [("tea", 1, 450), ("cup", 2, 200)],
        [("pot", 1, 900), ("tea", 1, 400)],
        [("cup", 3, 300), ("pot", 2, 1_500)],
    )
]


def load(url: str, stop: threading.Event, seed: int) -> dict[str, int]:
    """Shoppers who buy and buy until `stop`; gives every order that was answered with its total."""
    answered: dict[str, int] = {}

    def shop(number: int) -> None:
        chance = random.Random(100 * seed + number)
        while not stop.is_set():
            answer = buy_until_answered(client, chance.choice(TOKENS))
            assert answer.status_code == 201, answer.text
            answered[answer.json()["order_id"]] = answer.json()["total"]

    with shoppers(url, 12) as (pool, client):
        for done in [pool.submit(shop, number) for number in range(12)]:
            done.result()
    return answered


def under_load(url: str, breaking: Any) -> dict[str, int]:
    stop = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        answered = pool.submit(load, url, stop, 7)
        try:
            time.sleep(1)
            breaking()
            time.sleep(1)
        finally:
            stop.set()
        return answered.result()


@ONE_SERVER
def test_postgresql_restarted_and_killed_under_load_loses_and_doubles_no_order(
    postgres: Postgres, dsn: str, service: Service
) -> None:
    stocked(dsn, **PRODUCTS)

    def restarts() -> None:
        for _ in range(2):
            postgres.server.stop()
            postgres.server.start()
            time.sleep(1)
        killed = postgres.server.pid
        assert killed is not None
        os.kill(killed, signal.SIGKILL)
        os.waitpid(killed, 0)
        time.sleep(0.5)
        postgres.server.start()

    try:
        answered = under_load(service.url, restarts)
    finally:
        postgres.server.start()
    print("PostgreSQL restarted twice and killed once:")
    whole(dsn, answered, PRODUCTS)
    assert answered


@ONE_SERVER
def test_the_service_killed_in_the_middle_of_transactions_loses_and_doubles_no_order(
    dsn: str, service: Service
) -> None:
    stocked(dsn, **PRODUCTS)
    chance = random.Random(11)

    def kills() -> None:
        for _ in range(4):
            time.sleep(0.3 + chance.random() / 2)
            service.end(signal.SIGKILL)
            service.start()

    answered = under_load(service.url, kills)
    print("service killed four times:")
    whole(dsn, answered, PRODUCTS)
    assert answered
