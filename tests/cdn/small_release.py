"""A release of three bundles, with floors that must not get out."""

from __future__ import annotations

from cdn import keys, shards
from cdn.files import File
from cdn.manifest import Manifest
from cdn.shards import Product
from tandem.bundle import AnchorList, Bundle, Component, Listed, Substitute, bundle_id

RELEASE = "20170601-0123456789ab"


def bundle(*skus: str) -> Bundle:
    parts = [(sku, 1) for sku in skus]
    substitutes = (Substitute(f"{skus[-1]}-substitute", 987_654_321),)
    components = tuple(Component(sku, 1, 123_456_789, substitutes if sku == skus[-1] else ()) for sku, _ in parts)
    return Bundle(bundle_id(parts), components, 731, orders_together=312, lift=8.4)


BUNDLES = {made.id: made for made in (bundle("beer", "crisps"), bundle("wine", "cheese"), bundle("tea", "søt/kake?#"))}
LISTS = [
    AnchorList(segment, made.components[0].sku, (Listed(made.id, 0.21, matched),))
    for made in BUNDLES.values()
    for segment, matched in (("*", "region"), ("families", "segment"))
]
SKUS = ("beer", "crisps", "wine", "cheese", "tea", "søt/kake?#", "crisps-substitute", "cheese-substitute")
PRODUCTS = {sku: Product(sku, sku.title(), "Brand", "GROCERY > SNACKS", "symbols/grocery.svg") for sku in SKUS}


def release_files(region: str, release: str, count: int = 3) -> tuple[dict[str, File], Manifest]:
    """All files of the small release, and its manifest."""
    made = [
        shards.shard_file(
            region,
            release,
            number,
            count,
            PRODUCTS,
            BUNDLES,
            [ranked for ranked in LISTS if keys.shard_of(ranked.anchor, count) == number],
        )
        for number in range(count)
    ]
    search = shards.search_file(region, release, [PRODUCTS[ranked.anchor] for ranked in LISTS[::2]])
    files = {keys.shard_key(region, release, number): file for number, file in enumerate(made)}
    manifest = Manifest(
        region=region,
        release=release,
        as_of="2017-06-01",
        computed_at="2017-06-01T04:00:00Z",
        currency="USD",
        segments=["families", "everyone"],
        shard_count=count,
        shards=[file.sha for file in made],
        search=search.sha,
    )
    return {**files, keys.search_key(region, release): search}, manifest
