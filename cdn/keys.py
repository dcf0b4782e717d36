"""Where everything lies in the bucket: every key in one place, and which shard a product is in."""

from __future__ import annotations

import zlib

CURRENT = "{region}/current.json"
"""The manifest: the one key of a region whose content changes."""
SHARD = "{region}/{release}/{shard}.json"
SEARCH = "{region}/{release}/search.json"
BROTLI_SUFFIX = ".br"
"""After the key of a shard or a search list: the same JSON in brotli. Under the key itself lies gzip."""
KEPT_MANIFEST = "{region}/{release}/manifest.json"
"""The manifest of a release, kept beside its files: what CURRENT is when that release is shown."""
RELEASE = "{region}/{release}/"
"""Prefix of all that one release has."""
SHOP = "shop/{path}"
SHOP_CONFIG = "shop/config.json"


def shard_of(sku: str, count: int) -> int:
    """The shard that holds the bundles of the anchor `sku`: CRC-32 (ISO 3309) of its UTF-8 bytes, modulo `count`.

    A SKU never becomes a part of a key, so that any text is safe as a SKU.
    """
    return zlib.crc32(sku.encode()) % count


def manifest_key(region: str) -> str:
    return CURRENT.format(region=region)


def shard_key(region: str, release: str, shard: int) -> str:
    return SHARD.format(region=region, release=release, shard=shard)


def search_key(region: str, release: str) -> str:
    return SEARCH.format(region=region, release=release)


def kept_manifest_key(region: str, release: str) -> str:
    return KEPT_MANIFEST.format(region=region, release=release)


def release_prefix(region: str, release: str) -> str:
    return RELEASE.format(region=region, release=release)


def shop_key(path: str) -> str:
    return SHOP.format(path=path)


def surrogate_keys(region: str, release: str = "") -> str:
    """The words a cache may drop objects by: the region, and the release of an object that belongs to one."""
    return f"tandem {region} {region}/{release}" if release else f"tandem {region}"
