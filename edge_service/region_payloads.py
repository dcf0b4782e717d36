"""What lies under the keys of a region's Redis, and how it becomes bytes: the same content, the same bytes."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, NamedTuple

import msgspec

from tandem.bundle import AnchorList, Bundle, Listed
from tandem.offer import Live
from tandem.release import entry_digest

BUCKETS = 1024
"""Buckets per kind: 300,000 lists make hashes of about 300 fields, which Redis keeps compact where its
`hash-max-ziplist-value` admits their size."""
DELTAS_KEPT = 100_000
"""Stream entries kept, about; who is further behind takes a new snapshot."""
EVENTS_KEPT = 1_000_000
UNIT = "\x1f"
"""Between segment and anchor in a field name; neither may hold it."""


class ReleaseMeta(msgspec.Struct, frozen=True, kw_only=True):
    """What a sealed release says about itself."""

    region: str
    release_id: str
    as_of: str
    """Business day, `YYYY-MM-DD`."""
    computed_at: str
    """RFC 3339, UTC."""
    anchors: int
    """Anchor lists."""
    bundles: int
    checksum: str
    """`tandem.release.checksum` over all entries, 16 hexadecimal digits."""
    currency: str
    segments: tuple[str, ...] = ()


class Staged(NamedTuple):
    """What was staged, or found: add up over partitions, digests modulo 2^64."""

    anchors: int
    """Anchor lists (segment × anchor)."""
    bundles: int
    digest: int


class LiveRow(msgspec.Struct, frozen=True, kw_only=True):
    """One product of the nightly snapshot. Prices in minor units; None where it is not known (no sale, for a sale)."""

    sku: str
    stock: int | None = None
    list_price: int | None = None
    sale_price: int | None = None


Sku = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
Amount = Annotated[int, msgspec.Meta(ge=0, le=10**12)]


class Delta(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A change of one product. What is not named stays; a sale price of null ends the sale."""

    sku: Sku
    sequence: Annotated[int, msgspec.Meta(ge=1, le=2**53 - 1)]
    """Grows with every change of this product; Redis compares it as a double, hence the bound."""
    at: datetime
    stock: Amount | msgspec.UnsetType = msgspec.UNSET
    list_price: Amount | msgspec.UnsetType = msgspec.UNSET
    sale_price: Amount | msgspec.UnsetType | None = msgspec.UNSET


class Applied(NamedTuple):
    applied: int
    stale: int
    """Every field of it was older than what is there."""


encode = msgspec.json.Encoder().encode
decode_bundle = msgspec.json.Decoder(Bundle).decode
decode_list = msgspec.json.Decoder(tuple[Listed, ...]).decode
decode_meta = msgspec.json.Decoder(ReleaseMeta).decode


def bucket(name: str) -> int:
    return zlib.crc32(name.encode()) % BUCKETS


def list_entry(ranked: AnchorList) -> tuple[str, str, bytes]:
    """(name that decides the bucket, field, value) of one list."""
    return ranked.anchor, f"{ranked.segment}{UNIT}{ranked.anchor}", encode(ranked.bundles)


def digest_of(kind: bytes, field: bytes, value: bytes) -> int:
    """64 bits over one entry. Free of the release's id and the bucket: the same content has the same checksum."""
    return entry_digest(kind + b":" + field, value)


def live_of(words: bytes) -> Live:
    """The value of one field of LIVE, as the offer arithmetic wants it."""
    word = words.split()
    stock, list_price, sale_price = (None if word[i] == b"-" else int(word[i]) for i in (0, 3, 6))
    return Live(stock=stock, list_price=list_price, sale_price=sale_price)


def milliseconds(at: datetime) -> int:
    """Milliseconds since 1970. Raises ValueError for a time without a zone."""
    if at.tzinfo is None:
        raise ValueError("a time needs its zone, such as Z")
    return int(at.timestamp() * 1000)


def delta_arguments(deltas: Sequence[Delta]) -> list[str | int]:
    """Arguments of APPLY for changes told by the feed."""
    arguments: list[str | int] = [DELTAS_KEPT, 0, 0]
    for delta in deltas:
        values = (delta.stock, delta.list_price, delta.sale_price)
        arguments += [delta.sku, delta.sequence, milliseconds(delta.at), *map(_told, values)]
    return arguments


def heartbeat_arguments(at: int) -> list[str | int]:
    """Arguments of APPLY for "all is well up to `at` (ms since 1970), nothing changed"."""
    return [DELTAS_KEPT, at, at]


def snapshot_arguments(rows: Sequence[LiveRow], at: datetime) -> list[str | int]:
    """Arguments of APPLY for a batch's snapshot: no sequence, so it yields to whatever is newer than `at`."""
    stamp = milliseconds(at)
    has_stock = any(row.stock is not None for row in rows)
    has_prices = any(row.list_price is not None for row in rows)
    arguments: list[str | int] = [DELTAS_KEPT, stamp if has_stock else 0, stamp if has_prices else 0]
    for row in rows:
        priced = row.list_price is not None
        stock, list_price = _known(row.stock), _known(row.list_price)
        arguments += [row.sku, 0, stamp, stock, list_price, _told(row.sale_price) if priced else ""]
    return arguments


def _told(value: int | msgspec.UnsetType | None) -> str | int:
    if value is msgspec.UNSET:
        return ""
    return "-" if value is None else value


def _known(value: int | None) -> str | int:
    return "" if value is None else value
