"""Real PostgreSQL servers, the wheel's and Debian's, and an empty migrated database of each test's own."""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest

from deploy import services
from deploy.postgres import postgres_server
from orders import goods
from orders.app import create_app
from orders.migrate import migrate
from tandem.bundle import bundle_id
from tandem.quote import Quote, QuotedComponent, Signer
from tandem.regions import ObjectStore, Region
from tandem.settings import Settings

DEBIAN = Path("/usr/lib/postgresql/15/bin")
FAST = {"fsync": "off"}
"""A test kills processes, not the machine."""
_numbers = itertools.count(1)


class Postgres:
    """A server that a test may stop and start."""

    def __init__(self, home: Path, binaries: Path | None) -> None:
        self.settings = Settings(home=home, postgres_port=services.free_ports(1)[0])
        self.server = postgres_server(self.settings, binaries=binaries, more=FAST)

    def dsn(self, database: str = "postgres") -> str:
        return self.settings.orders_dsn.replace("dbname=postgres", f"dbname={database}")

    def made(self, template: str = "template1") -> str:
        """The address of a new database."""
        name = f"t{next(_numbers)}"
        with psycopg.connect(self.dsn(), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}".encode())
        return self.dsn(name)


@pytest.fixture(scope="session", params=["wheel", "debian"])
def postgres(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    if request.param == "debian" and not DEBIAN.is_dir():
        message = "Debian's PostgreSQL 15 is not installed: make system-deps"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(message)
    found = Postgres(
        tmp_path_factory.mktemp(f"postgres-{request.param}"), DEBIAN if request.param == "debian" else None
    )
    found.server.start()
    with psycopg.connect(found.dsn(), autocommit=True) as connection:
        connection.execute("CREATE DATABASE migrated")
    migrate(found.dsn("migrated"))
    yield found
    found.server.stop()


@pytest.fixture
def dsn(postgres: Postgres) -> str:
    """The address of a migrated database that is empty."""
    return postgres.made("migrated")


QUOTE_KEYS = "k1:0123456789abcdef0123"
DELTA_KEY, ORDER_KEY = "a-key-for-the-stock", "a-key-for-the-orders"
EAST, WEST = (
    Region(
        name=name,
        currency=currency,
        time_zone="UTC",
        redis_url="redis://127.0.0.1:1/0",
        object_store=ObjectStore(endpoint="http://127.0.0.1:1", bucket="none", public_url="http://127.0.0.1:1/none"),
        consent_purposes=purposes,
    )
    for name, currency, purposes in (("east", "USD", []), ("west", "EUR", ["personalisation"]))
)
SIGNER = Signer.from_text(QUOTE_KEYS)
Part = tuple[str, int, int]
TEA_AND_CUPS: tuple[Part, ...] = (("tea", 1, 450), ("cup", 3, 100))
"""A bundle: SKU, quantity, and what the quote allocates to all its units."""


def quote(*parts: Part, region: str = "east", nonce: str = "", ttl_seconds: float = 600) -> str:
    """A quote as the edge signs it; one with `nonce` can be used once."""
    currency = {"east": "USD", "west": "EUR"}[region]
    name = bundle_id((sku, quantity) for sku, quantity, _ in parts)
    components = tuple(QuotedComponent(*part) for part in parts)
    total, expires_at = sum(part[2] for part in parts), int(time.time() + ttl_seconds)
    return SIGNER.sign(Quote("k1", region, "*", "r1", name, currency, components, total, expires_at, nonce))


def stocked(dsn: str, region: str = "east", **units: int) -> None:
    """The first stock of products."""
    goods.seed(dsn, [{"region": region, "sku": sku, "on_hand": held} for sku, held in units.items()])


def settings_for(home: Path, dsn: str, **more: object) -> Settings:
    values = {
        "quote_keys": QUOTE_KEYS,
        "delta_keys": DELTA_KEY,
        "order_keys": ORDER_KEY,
        "longest_wait_ms": 60_000,  # asker and asked share a process in tests
    }
    return Settings(home=home, orders=dsn, **(values | more))  # type: ignore[arg-type]


def rows(dsn: str, statement: str, *values: object) -> list[tuple[Any, ...]]:
    with psycopg.connect(dsn) as connection:
        return connection.execute(statement.encode(), values).fetchall()


@dataclass
class Shop:
    """The service, asked in this process, over a database of the test's own."""

    client: httpx.AsyncClient
    dsn: str

    async def buy(self, *quotes: str, key: str = "", region: str = "east", **more: Any) -> httpx.Response:
        headers = {"Idempotency-Key": key or str(uuid4())}
        return await self.client.post(f"/v1/{region}/checkout", json={"quotes": quotes, **more}, headers=headers)

    async def post(self, path: str, body: object, key: str = "", secret: str = ORDER_KEY) -> httpx.Response:
        headers = {"Idempotency-Key": key or str(uuid4()), "Authorization": f"Bearer {secret}"}
        return await self.client.post(f"/v1/east{path}", json=body, headers=headers)

    def stock(self) -> dict[str, tuple[int, int]]:
        """On hand and reserved, by SKU."""
        return {
            sku: (on_hand, held) for sku, on_hand, held in rows(self.dsn, "SELECT sku, on_hand, reserved FROM stock")
        }

    def told(self, kind: str) -> list[dict[str, Any]]:
        """Messages of the outbox."""
        found = rows(self.dsn, "SELECT value FROM outbox WHERE kind = %s ORDER BY id", kind)
        return [json.loads(value) for (value,) in found]


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def shop(dsn: str, tmp_path: Path) -> AsyncIterator[Shop]:
    """With 20 tea and 30 cups in the region east."""
    stocked(dsn, tea=20, cup=30)
    async with serving(dsn, tmp_path) as found:
        yield found


@asynccontextmanager
async def serving(dsn: str, home: Path, **more: object) -> AsyncIterator[Shop]:
    made = create_app(settings_for(home, dsn, **more), [EAST, WEST])
    async with (
        made.desk.running(),
        httpx.AsyncClient(transport=httpx.ASGITransport(made), base_url="http://t") as client,
    ):
        yield Shop(client, dsn)
