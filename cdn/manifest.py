"""The manifest: which release a region shows, and the checksum of each of its files."""

from __future__ import annotations

import msgspec


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    region: str
    release: str
    as_of: str
    """Business day, `YYYY-MM-DD`: only orders before it were learned from."""
    computed_at: str
    """RFC 3339, UTC."""
    currency: str
    """ISO 4217."""
    segments: list[str]
    """Those with lists of their own: of segments.toml in its order, then learned ones; `everyone` last."""
    shard_count: int
    shards: list[str]
    """SHA-256 of each shard's uncompressed JSON, hexadecimal, by number."""
    search: str
    """SHA-256 of search.json, uncompressed."""
    anchors: int = 0
    """Products with bundles."""
    bundles: int = 0

    def __post_init__(self) -> None:
        if self.shard_count < 1 or self.shard_count != len(self.shards):
            raise ValueError(f"shard_count {self.shard_count} and {len(self.shards)} checksums do not agree")


encode = msgspec.json.Encoder(order="deterministic").encode
decode = msgspec.json.Decoder(Manifest).decode
