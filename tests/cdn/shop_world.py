"""A small shop with all its real servers: Redis, an object store with release and page, and the edge as a process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from cdn import keys, shards
from cdn.manifest import Manifest
from cdn.shards import Product
from cdn.shop_config import shop_config
from cdn.store import ObjectStore
from deploy import asking, orders, services
from deploy.postgres import postgres_server
from edge_service.region_payloads import LiveRow, ReleaseMeta
from edge_service.region_store import RegionStore
from tandem import regions as regions_file
from tandem import segments as segments_file
from tandem.bundle import AnchorList, Bundle, Component, Listed, Substitute, bundle_id
from tandem.release import checksum
from tandem.settings import Settings

RELEASE = "20170601-0123456789ab"
KEY = "the-key-of-the-feed"
REGION = "east"
COUNT = 3
CATALOGUE = [
    ("826249", "Fluid milk, white, 1 gal", "Private label", "GROCERY > FLUID MILK PRODUCTS", "grocery", 269),
    ("1029743", "Whole bean coffee, 12 oz", "Northfield", "GROCERY > COFFEE", "grocery", 899),
    ("981760", "Large eggs, 18 count", "Private label", "GROCERY > EGGS", "grocery", 349),
    ("995242", "Butter croissants, 4 pack", "Bakehouse", "PASTRY > BREAKFAST SWEETS", "pastry", 399),
    ("1082185", "Bananas, per pound", None, "PRODUCE > TROPICAL FRUIT", "produce", 59),
    ("951590", "Granola with almonds, 16 oz", "Hill & Vale", "NUTRITION > CEREALS", "nutrition", 549),
    ("840361", "Dry salami, sliced, 5 oz", "Columbo", "DELI > LUNCHMEAT", "deli", 479),
    ("878996", "Red table wine, 750 ml", "Casa Verde", "SPIRITS > WINE", "spirits", 1199),
    ("916122", "Tulips, ten stems", None, "FLORAL > CUT FLOWERS", "floral", 799),
    ("1127831", "Smoked salmon, 4 oz", "Fjord", "SEAFOOD-PCKGD > SMOKED", "seafood-pckgd", 749),
    ("1070820", "Cream cheese, 8 oz", "Private label", "GROCERY > CHEESE", "grocery", 229),
    ("862349", "Plain bagels, 6 pack", "Bakehouse", "PASTRY > BREAD", "pastry", 299),
    ("1106523", "Sesame bagels, 6 pack", "Bakehouse", "PASTRY > BREAD", "pastry", 319),
    ("søt/kake?#", "Caf\u00e9 cake <b>with</b> a difficult number", "Søt", "PASTRY > CAKES", "pastry", 650),
]
PRODUCTS = {
    sku: Product(sku, title, brand, kind, f"symbols/{image}.svg") for sku, title, brand, kind, image, _ in CATALOGUE
}
PRICES = {sku: price for sku, *_, price in CATALOGUE}
STOCK = 40


def _bundle(
    skus: dict[str, int], orders: int, lift: float, discount_bps: int, substitutes: dict[str, str] | None = None
) -> Bundle:
    stand_ins = substitutes or {}
    parts = tuple(
        Component(sku, quantity, PRICES[sku] * 7 // 10, (Substitute(stand_ins[sku]),) if sku in stand_ins else ())
        for sku, quantity in skus.items()
    )
    return Bundle(bundle_id(skus.items()), parts, discount_bps, orders, lift)


BREAKFAST = _bundle({"1029743": 1, "826249": 1, "995242": 1}, 312, 8.4, 700)
COFFEE_AND_GRANOLA = _bundle({"1029743": 1, "951590": 1}, 188, 4.1, 500)
BAGELS = _bundle({"862349": 1, "1070820": 2, "1127831": 1}, 141, 11.7, 900, {"862349": "1106523"})
EVENING = _bundle({"878996": 1, "840361": 1}, 96, 6.3, 600)
FLOWERS = _bundle({"916122": 1, "878996": 1}, 27, 1.9, 0)
FRUIT = _bundle({"1082185": 3, "951590": 1}, 204, 2.6, 400)
CAKE = _bundle({"søt/kake?#": 1, "1029743": 1}, 33, 3.2, 800)
MILK_AND_EGGS = _bundle({"826249": 1, "981760": 1}, 1204, 2.2, 300)
BUNDLES = {
    made.id: made for made in (BREAKFAST, COFFEE_AND_GRANOLA, BAGELS, EVENING, FLOWERS, FRUIT, CAKE, MILK_AND_EGGS)
}


def _list(segment: str, anchor: str, matched: str, *made: Bundle) -> AnchorList:
    ranked = tuple(Listed(each.id, round(0.27 - 0.06 * place, 3), matched) for place, each in enumerate(made))
    return AnchorList(segment, anchor, ranked)


LISTS = [
    _list("*", "1029743", "region", BREAKFAST, COFFEE_AND_GRANOLA, CAKE),
    _list("families", "1029743", "segment", COFFEE_AND_GRANOLA, BREAKFAST),
    _list("*", "826249", "region", MILK_AND_EGGS, BREAKFAST),
    _list("*", "862349", "region", BAGELS),
    _list("*", "1070820", "global", BAGELS),
    _list("*", "878996", "region", EVENING, FLOWERS),
    _list("*", "951590", "region", FRUIT, COFFEE_AND_GRANOLA),
    _list("*", "1082185", "region", FRUIT),
    _list("*", "916122", "global", FLOWERS),
    _list("*", "søt/kake?#", "global", CAKE),
]
REGIONS = """
[[region]]
name = "{name}"
title = "{title}"
currency = "USD"
time_zone = "America/New_York"
redis_url = "redis://127.0.0.1:{redis}/0"
[region.object_store]
endpoint = "http://127.0.0.1:{store}"
bucket = "tandem"
public_url = "http://127.0.0.1:{store}/tandem"
"""


@dataclass
class ShopWorld:
    settings: Settings
    redis: services.Server
    objects: services.Server
    edge_port: int
    selling: bool = False
    """Whether orders are taken: with PostgreSQL, checkout and relay."""
    _edge: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def regions(self) -> regions_file.Regions:
        return regions_file.load(self.settings.config_folder)

    @property
    def edge_url(self) -> str:
        return f"http://127.0.0.1:{self.edge_port}"

    @property
    def orders(self) -> dict[str, str]:
        return {REGION: self.settings.local_orders} if self.selling else {}

    @property
    def url(self) -> str:
        return f"{self.regions.region[0].object_store.public_url}/shop/index.html"

    @property
    def store(self) -> ObjectStore:
        where = self.regions.region[0].object_store
        return ObjectStore(where, self.settings.s3_access_key, self.settings.s3_secret, self.settings.s3_region)

    @property
    def live(self) -> RegionStore:
        return RegionStore(self.regions.get(REGION))

    def start_edge(self) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TANDEM_")}
        with (self.settings.home / "edge.log").open("ab") as log:
            self._edge = subprocess.Popen(
                [sys.executable, "-m", "tandem.cli", "serve", "--port", str(self.edge_port)],
                env={**environment, "TANDEM_HOME": str(self.settings.home), "TANDEM_DELTA_KEYS": KEY},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        end = time.monotonic() + 60
        while not self._ready():
            if time.monotonic() > end or self._edge.poll() is not None:
                said = (self.settings.home / "edge.log").read_text(encoding="utf-8")[-2000:]
                raise TimeoutError(f"the edge does not serve:\n{said}")
            time.sleep(0.1)

    def stop_edge(self) -> None:
        if self._edge is not None and self._edge.poll() is None:
            os.killpg(self._edge.pid, signal.SIGTERM)
            self._edge.wait(30)
        self._edge = None

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.edge_url}/v1/{REGION}/bundles/1029743", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def publish(self, region: str) -> None:
        """The release to the region's Redis, its files to the bucket, and then both pointers."""
        anchors = {ranked.anchor for ranked in LISTS}
        shown = [
            shards.shard_file(
                region, RELEASE, number, COUNT, PRODUCTS, BUNDLES,
                [ranked for ranked in LISTS if keys.shard_of(ranked.anchor, COUNT) == number],
            )
            for number in range(COUNT)
        ]  # fmt: skip
        search = shards.search_file(region, RELEASE, [PRODUCTS[sku] for sku in anchors])
        files = {keys.shard_key(region, RELEASE, number): file for number, file in enumerate(shown)}
        made = Manifest(
            region=region,
            release=RELEASE,
            as_of="2017-06-01",
            computed_at="2017-06-01T04:00:00Z",
            currency="USD",
            segments=["families", "everyone"],
            shard_count=COUNT,
            shards=[file.sha for file in shown],
            search=search.sha,
        )
        self.store.put_release(region, RELEASE, {**files, keys.search_key(region, RELEASE): search})
        self.store.verify(region, RELEASE, made)
        with RegionStore(self.regions.get(region)) as redis:
            staged = redis.stage(RELEASE, BUNDLES.values(), LISTS)
            meta = ReleaseMeta(
                region=region,
                release_id=RELEASE,
                as_of=made.as_of,
                computed_at=made.computed_at,
                anchors=staged.anchors,
                bundles=staged.bundles,
                checksum=checksum([staged.digest]),
                currency="USD",
                segments=tuple(made.segments),
            )
            redis.seal(RELEASE, meta)
            redis.switch(RELEASE, None)
        self.store.put_manifest(region, made)

    def restock(self) -> None:
        """Every product at its price and with `STOCK` units, whatever a test did."""
        with self.live as redis:
            redis._redis.delete("tandem:live")
            now = datetime.now(UTC)
            redis.seed_live([LiveRow(sku=sku, stock=STOCK, list_price=price) for sku, price in PRICES.items()], now)
        if self.selling:
            self.count(dict.fromkeys(PRICES, STOCK))

    def count(self, shelf: dict[str, int]) -> None:
        """Tell checkout what lies on the shelf."""
        movements = [{"sku": sku, "counted": units, "reason": "count"} for sku, units in shelf.items()]
        address = f"{self.settings.local_orders}/v1/{REGION}/stock"
        told = asking.post(address, {"movements": movements}, asking.once(KEY))
        assert told.status == 200, told.body

    def variables(self) -> dict[str, str]:
        """What a process has to be told of this world, beside its home."""
        names = ("postgres_port", "orders_port", "edge_port", "kafka", "topic_prefix")
        values = {f"TANDEM_{name.upper()}": str(getattr(self.settings, name)) for name in names}
        return values | {"TANDEM_DELTA_KEYS": KEY, "TANDEM_HOME": str(self.settings.home)}

    def start_selling(self) -> Iterator[services.Server]:
        """PostgreSQL, checkout and relay; each as soon as it runs."""
        told = self.variables()
        for server in (postgres_server(self.settings), orders.service(self.settings), orders.relay(self.settings)):
            started = replace(server, environment={**server.environment, **told})
            started.start()
            yield started


@contextmanager
def shop_world(home: Path, *, selling: bool = False, kafka: str = "", topic_prefix: str = "") -> Iterator[ShopWorld]:
    """All servers on free ports, with the release published in two regions and the edge of the first serving both."""
    first_redis, store, edge, postgres, checkout = services.free_ports(5)
    settings = Settings(
        home=home,
        edge_port=edge,
        postgres_port=postgres,
        orders_port=checkout,
        kafka=kafka,
        topic_prefix=topic_prefix,
    )
    (home / "config").mkdir(parents=True)
    (home / "config" / "regions.toml").write_text(
        REGIONS.format(name=REGION, title="East", redis=first_redis, store=store), encoding="utf-8"
    )
    world = ShopWorld(
        settings,
        services.redis_server(settings, "shop", f"redis://127.0.0.1:{first_redis}/0"),
        services.object_store(settings, store, ["tandem"]),
        edge,
        selling,
    )
    started: list[services.Server] = []
    try:
        world.redis.start()
        world.objects.start()
        world.store.ensure_bucket()
        world.publish(REGION)
        config = shop_config(world.regions, segments_file.load(None), {REGION: world.edge_url}, world.orders)
        world.store.put_shop(config)
        if selling:
            started += world.start_selling()
        world.restock()
        world.start_edge()
        yield world
    finally:
        world.stop_edge()
        services.stop(started, print)
        world.objects.stop()
        world.redis.stop()
