"""The shop that edge benchmarks ask: its release and live state, and the requests of its shoppers."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import accumulate

import redis

from edge_service.region_payloads import Buckets
from edge_service.region_store import LiveRow, RegionStore, ReleaseMeta
from tandem.bundle import AnchorList, Bundle, Component, Listed, Substitute, bundle_id
from tandem.regions import ObjectStore, Region
from tandem.release import checksum

RELEASE = "20260105-0123456789ab"
PLACES = 8
"""Bundles in an anchor's list; an answer shows the first six that can be sold."""
SHOWN = 6
SEED = 5


def sku(number: int) -> str:
    return str(1_000_000 + number)


def region_at(url: str) -> Region:
    store = ObjectStore(endpoint="http://127.0.0.1:1", bucket="none", public_url="http://127.0.0.1:1/none")
    return Region(name="north", currency="USD", time_zone="UTC", redis_url=url, object_store=store, push_per_second=0)


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


def lists(anchors: int) -> Iterator[tuple[AnchorList, list[Bundle]]]:
    """Each anchor with its list and the bundles in it: the anchor with two companions each."""
    for number in range(anchors):
        others = [(number + 1 + n * 97) % anchors for n in range(2 * PLACES)]
        bundles = [bundle_of((number, *others[2 * n : 2 * n + 2]), anchors) for n in range(PLACES)]
        places = tuple(Listed(each.id, (9_000 - 400 * n) / 10_000, "region") for n, each in enumerate(bundles))
        yield AnchorList("*", sku(number), places), bundles


def publish(region: Region, anchors: int) -> None:
    """A release of `anchors` lists, sealed and current, and live state of as many products, well stocked."""
    with RegionStore(region) as store:
        store.begin(RELEASE, Buckets.of(max(1, anchors // 2_500), anchors, anchors * PLACES))
        made = lists(anchors)
        while some := [pair for _, pair in zip(range(2_000), made, strict=False)]:
            store.stage(RELEASE, (each for _, bundles in some for each in bundles), (each for each, _ in some))
        staged = store.verify(RELEASE)
        store.seal(
            RELEASE,
            ReleaseMeta(
                region=region.name,
                release_id=RELEASE,
                as_of="2026-01-05",
                computed_at="2026-01-05T12:00:00Z",
                anchors=staged.anchors,
                bundles=staged.bundles,
                checksum=checksum([staged.digest]),
                currency=region.currency,
            ),
        )
        store.switch(RELEASE, None)
        seed(store, anchors)


def seed(store: RegionStore, products: int) -> None:
    rows = (LiveRow(sku=sku(n), stock=500, list_price=price_of(n)) for n in range(products))
    store.seed_live(rows, datetime.now(UTC))


def publish_plain(client: redis.Redis, anchors: int) -> None:
    """The same for the references: a JSON list of product names a key, and a key for each price and each stock."""
    with client.pipeline(transaction=False) as pipe:
        for each, bundles in lists(anchors):
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
