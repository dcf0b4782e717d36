"""The shop that edge benchmarks ask: its release and live state, and the requests of its shoppers."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from itertools import accumulate
from pathlib import Path

import msgspec
import redis

from benchmarks import _edge_load
from edge_service.region_payloads import Buckets
from edge_service.region_store import LiveRow, RegionStore, ReleaseMeta, batches
from tandem.bundle import AnchorList, Bundle, Component, Listed, Substitute, bundle_id
from tandem.regions import Region, Regions
from tandem.release import checksum

RELEASE = "20260105-0123456789ab"
PLACES = 8
"""Bundles in an anchor's list; an answer shows the first six that can be sold."""
SHOWN = 6
STEPS = (1, 97, 8_191)
"""How far apart the products of a bundle are."""
SEED = 5
QUOTE_KEYS, DELTA_KEY = "k1:0123456789abcdef0123", "a-key-for-deltas"
REGIONS = """
[[region]]
name = "north"
currency = "USD"
time_zone = "UTC"
redis_url = "{url}"
push_per_second = 0
[region.object_store]
endpoint = "http://127.0.0.1:1"
bucket = "none"
public_url = "http://127.0.0.1:1/none"
"""


def sku(number: int) -> str:
    return str(1_000_000 + number)


def region_at(url: str) -> Region:
    return msgspec.toml.decode(REGIONS.format(url=url), type=Regions).get("north")


def edge(url: str, folder: Path, port: int) -> AbstractContextManager[int]:
    """The edge as it ships, of the region whose Redis is at `url`, ready; gives its process id. Settings that are not
    given here come from the environment.
    """
    config = folder / "config"
    config.mkdir(exist_ok=True)
    (config / "regions.toml").write_text(REGIONS.format(url=url), encoding="utf-8")
    given = {"TANDEM_HOME": str(folder), "TANDEM_QUOTE_KEYS": QUOTE_KEYS, "TANDEM_DELTA_KEYS": DELTA_KEY}
    command, log = ("tandem.cli", "serve", "--port", str(port)), folder / f"edge-{port}.log"
    return _edge_load.served(*command, port=port, log=log, path="/readyz", variables=given)


def bundle_of(numbers: tuple[int, ...], products: int) -> Bundle:
    """A bundle of these products, each with two substitutes."""
    components = tuple(
        Component(
            sku(number),
            1,
            price_of(number) * 7 // 10,
            tuple(Substitute(sku((number * 31 + n) % products), price_of(number) // 2) for n in (1, 2)),
        )
        for number in numbers
    )
    name = bundle_id((part.sku, part.quantity) for part in components)
    return Bundle(name, components, 800, 40 + numbers[0] % 300, 4.5)


def price_of(number: int) -> int:
    """Minor units."""
    return 199 + number * 37 % 2_800


def lists(anchors: int) -> Iterator[tuple[AnchorList, list[Bundle], list[Bundle]]]:
    """Each anchor with its list, the bundles in it, and those of them that no anchor after it brings again.

    A bundle of three products stands in the lists of all three.
    """
    for number in range(anchors):
        starts = [(number - back * step, step) for step in STEPS for back in range(3)][:PLACES]
        held = [bundle_of(tuple((start + n * step) % anchors for n in range(3)), anchors) for start, step in starts]
        places = tuple(Listed(each.id, (9_000 - 400 * n) / 10_000, "region") for n, each in enumerate(held))
        yield AnchorList("*", sku(number), places), held, held[::3]


def publish(region: Region, anchors: int, release: str = RELEASE) -> None:
    """A release of `anchors` lists, sealed and current, and live state of as many products, well stocked."""
    with RegionStore(region) as store:
        store.begin(release, Buckets.of(max(1, anchors // 2_500), anchors, anchors * len(STEPS)))
        for some in batches(lists(anchors), 20_000):
            store.stage(release, (each for _, _, own in some for each in own), (each for each, _, _ in some))
        staged = store.verify(release)
        store.seal(
            release,
            ReleaseMeta(
                region=region.name,
                release_id=release,
                as_of="2026-01-05",
                computed_at="2026-01-05T12:00:00Z",
                anchors=staged.anchors,
                bundles=staged.bundles,
                checksum=checksum([staged.digest]),
                currency=region.currency,
            ),
        )
        store.switch(release, None)
        seed(store, anchors)


def seed(store: RegionStore, products: int) -> None:
    rows = (LiveRow(sku=sku(n), stock=500, list_price=price_of(n)) for n in range(products))
    store.seed_live(rows, datetime.now(UTC))


def publish_plain(client: redis.Redis, anchors: int) -> None:
    """The same for the references: a JSON list of product names a key, and a key for each price and each stock."""
    with client.pipeline(transaction=False) as pipe:
        for each, bundles, _ in lists(anchors):
            names = [[part.sku for part in bundle.components] for bundle in bundles[:SHOWN]]
            pipe.set(f"list:{each.anchor}", json.dumps(names))
            number = int(each.anchor) - 1_000_000
            pipe.set(f"price:{each.anchor}", price_of(number))
            pipe.set(f"stock:{each.anchor}", 500)
            if len(pipe.command_stack) > 3_000:
                pipe.execute()
        pipe.execute()


def zipf(anchors: int, count: int) -> list[str]:
    """Anchors as shoppers ask for them: the one of rank r in proportion to 1 / r."""
    chance = random.Random(SEED)
    weights = list(accumulate(1 / (rank + 1) for rank in range(anchors)))
    names = [sku(number) for number in range(anchors)]
    chance.shuffle(names)
    return chance.choices(names, cum_weights=weights, k=count)


def gets(path: str, anchors: int, count: int) -> list[bytes]:
    """GET requests as they go over the wire; `{sku}` in `path` is the anchor."""
    return [
        f"GET {path.format(sku=name)} HTTP/1.1\r\nHost: edge\r\nAccept: */*\r\n\r\n".encode()
        for name in zipf(anchors, count)
    ]


def carts(path: str, anchors: int, count: int, *, products: int = 5, **more: object) -> list[bytes]:
    """POST requests with a cart of `products` different products."""
    names = zipf(anchors, count * products * 2)
    made = []
    for at in range(count):
        some = list(dict.fromkeys(names[at * products * 2 : (at + 1) * products * 2]))[:products]
        body = json.dumps({"cart": [{"sku": name} for name in some], **more}).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: edge\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
        made.append(head.encode() + b"\r\n\r\n" + body)
    return made
