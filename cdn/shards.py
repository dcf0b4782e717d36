"""The immutable files of a release: shards of bundles, and the list that the page's search box reads.

The same content gives the same bytes. Only what is public gets in: fields are named here one by one, so that a
floor, a cost or a margin that a bundle may carry stays behind.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from cdn.files import File
from cdn.keys import shard_of
from tandem.bundle import AnchorList, Bundle, Listed

TARGET_BYTES = 128_000
"""A shard in gzip: small enough for a phone, large enough that an upload is worth its request."""
_encode = msgspec.json.Encoder(order="deterministic").encode


class Product(msgspec.Struct, frozen=True):
    """What the public may know of a product."""

    sku: str
    title: str
    brand: str | None = None
    category: str | None = None
    image: str | None = None
    """A path below `shop/`, or a whole URL."""


def shard_count(total_bytes: int) -> int:
    """Shards for a release whose files have `total_bytes` in gzip, so that each has about `TARGET_BYTES`."""
    return max(1, -(-total_bytes // TARGET_BYTES))


def shard_file(
    region: str,
    release_id: str,
    number: int,
    count: int,
    products: Mapping[str, Product],
    bundles: Mapping[str, Bundle],
    lists: Iterable[AnchorList],
) -> File:
    """Shard `number` of `count`.

    `lists` are those of this shard's anchors, in any order; `products` and `bundles` may hold more than they name.
    A product that the catalogue does not have is left out of "products". Raises ValueError for a list of another
    shard's anchor, KeyError for a bundle that is not in `bundles`.
    """
    anchors: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for ranked in lists:
        if shard_of(ranked.anchor, count) != number:
            raise ValueError(
                f"anchor {ranked.anchor!r} belongs to shard {shard_of(ranked.anchor, count)}, not {number}"
            )
        anchors.setdefault(ranked.anchor, {})[ranked.segment] = [_place(listed) for listed in ranked.bundles]
    named = {
        listed["id"]: bundles[listed["id"]] for by in anchors.values() for ranked in by.values() for listed in ranked
    }
    skus = {*anchors, *(sku for bundle in named.values() for sku in _skus(bundle))}
    return _file(
        {
            "region": region,
            "release": release_id,
            "shard": number,
            "products": {sku: _facts(products[sku]) for sku in skus if sku in products},
            "bundles": {bundle_id: _public(bundle) for bundle_id, bundle in named.items()},
            "anchors": anchors,
        }
    )


def search_file(region: str, release_id: str, products_with_bundles: Iterable[Product]) -> File:
    """All products that have bundles as `[sku, title, image]`, sorted by title then SKU."""
    rows = sorted((product.title, product.sku, product.image) for product in products_with_bundles)
    return _file(
        {"region": region, "release": release_id, "products": [[sku, title, image] for title, sku, image in rows]}
    )


def _file(content: dict[str, Any]) -> File:
    """`content` as JSON with sorted keys: the same content gives the same file."""
    return File(_encode(content))


def _skus(bundle: Bundle) -> Iterator[str]:
    for component in bundle.components:
        yield component.sku
        yield from (substitute.sku for substitute in component.substitutes)


def _facts(product: Product) -> dict[str, str | None]:
    return {
        "title": product.title,
        "brand": product.brand,
        "category": product.category,
        "image": product.image,
    }


def _place(listed: Listed) -> dict[str, Any]:
    place: dict[str, Any] = {"id": listed.bundle_id, "confidence": listed.confidence, "matched": listed.matched}
    if listed.own is not None:
        place["evidence"] = {"orders_together": listed.own.orders_together, "lift": listed.own.lift}
    return place


def _public(bundle: Bundle) -> dict[str, Any]:
    return {
        "components": [{"sku": part.sku, "quantity": part.quantity} for part in bundle.components],
        "evidence": {"orders_together": bundle.orders_together, "lift": bundle.lift},
    }
