"""What lies under the keys of a region's Redis, and how it becomes bytes: the same content, the same bytes."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import groupby
from typing import Annotated, NamedTuple

import msgspec

from tandem.bundle import LEVELS, Bundle, Component, Listed, Story
from tandem.offer import Live
from tandem.release import entry_hash

FORMAT = 3
"""Of what lies in lists and bodies. A reader refuses any other: the release has to be published again."""
ENTRIES_A_BUCKET = 32
"""Mean entries of a hash: far from the 128 up to which every Redis keeps a hash compact, and Redis walks a compact hash
for each entry that it takes in or looks up. With 80 it takes a quarter longer, and 3 bytes a list fewer."""
DELTAS_KEPT = 100_000
"""Stream entries kept, about; who is further behind takes a new snapshot."""
EVENTS_KEPT = 1_000_000
UNIT = "\x1f"
"""Between segment and anchor in a field name; neither may hold it."""
_ID = re.compile(r"[0-9a-f]{16}")
_LEVEL = {level: place for place, level in enumerate(LEVELS)}
"""A level of evidence is stored as its place; any other text as it is."""


class Buckets(msgspec.Struct, frozen=True, array_like=True):
    """How many hashes hold a release's lists, and how many its bodies: multiples of `shards`."""

    shards: int = 1024
    """Files of the release on the CDN. What one of them holds is in hashes of its own: who makes it fills them."""
    lists: int = 1024
    bodies: int = 1024

    @classmethod
    def of(cls, shards: int, lists: int, bodies: int) -> Buckets:
        """For a release of so many lists and bodies, about."""
        per_hash = shards * ENTRIES_A_BUCKET
        return cls(shards, shards * max(1, -(-lists // per_hash)), shards * max(1, -(-bodies // per_hash)))

    def of_list(self, anchor: str) -> int:
        return _sum(anchor) % self.lists

    def of_body(self, bundle: Bundle) -> int:
        """Some hash of the shard that its first component is in."""
        shard = _sum(bundle.components[0].sku) % self.shards
        return shard + self.shards * (_sum(bundle.id) % (self.bodies // self.shards))


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
    buckets: Buckets = Buckets()
    format: int = 1
    """FORMAT of who sealed it."""


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
SequenceNumber = Annotated[int, msgspec.Meta(ge=1, le=2**53 - 1)]
"""Grows with every change of a product; Redis compares it as a double, hence the bound."""


class Delta(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A change of one product. What is not named stays; a sale price of null ends the sale."""

    sku: Sku
    sequence: SequenceNumber
    at: datetime
    stock: Amount | msgspec.UnsetType = msgspec.UNSET
    list_price: Amount | msgspec.UnsetType = msgspec.UNSET
    sale_price: Amount | msgspec.UnsetType | None = msgspec.UNSET


Told = int | str | None
"""A number, NO_VALUE, or None: nothing was told."""
NO_VALUE = "-"


class Applied(NamedTuple):
    applied: int
    stale: int
    """Every field of it was older than what is there."""


encode = msgspec.json.Encoder().encode
decode_meta = msgspec.json.Decoder(ReleaseMeta).decode
encode_buckets = msgspec.json.Encoder().encode
decode_buckets = msgspec.json.Decoder(Buckets).decode


class _Body(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A bundle without its id, which is the field."""

    components: tuple[Component, ...]
    discount_bps: int
    orders_together: int
    lift: int
    """Hundredths."""
    why: tuple[int, ...]


class _Places(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A ranked list, column by column."""

    ids: bytes
    """Eight bytes a place: the bundle's id."""
    confidences: bytes
    """Two bytes a place, little-endian: 1/10,000."""
    levels: tuple[int | str, ...]
    """Runs: a level of evidence (its place in LEVELS, or its text), and how many places have it."""
    own: tuple[_Own, ...]


class _Own(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A place with a story of its own."""

    place: int
    orders_together: int
    lift: int
    """Hundredths."""
    discount_bps: int
    why: tuple[int, ...]


_pack = msgspec.msgpack.Encoder().encode
_unpack_body = msgspec.msgpack.Decoder(_Body).decode
_unpack_places = msgspec.msgpack.Decoder(_Places).decode


def list_field(segment: str, anchor: str) -> bytes:
    return f"{segment}{UNIT}{anchor}".encode()


def body_field(bundle_id: str) -> bytes:
    """The eight bytes that an id's 16 digits stand for. Raises ValueError for any other text, which is no id."""
    if _ID.fullmatch(bundle_id) is None:
        raise ValueError(f"a bundle's id has 16 hexadecimal digits, not {bundle_id!r}")
    return bytes.fromhex(bundle_id)


def encode_body(bundle: Bundle) -> bytes:
    return _pack(
        _Body(bundle.components, bundle.discount_bps, bundle.orders_together, _hundredths(bundle.lift), bundle.why)
    )


def decode_body(bundle_id: str, value: bytes) -> Bundle:
    body = _unpack_body(value)
    return Bundle(bundle_id, body.components, body.discount_bps, body.orders_together, body.lift / 100, body.why)


def encode_list(places: Sequence[Listed]) -> bytes:
    """Confidences to 1/10,000, lifts to 1/100. Raises ValueError as `body_field` does."""
    ids = b"".join([body_field(place.bundle_id) for place in places])
    shares = struct.pack(f"<{len(places)}H", *[round(place.confidence * 10_000) for place in places])
    own = [
        (at, story.orders_together, _hundredths(story.lift), story.discount_bps, story.why)
        for at, place in enumerate(places)
        if (story := place.own) is not None
    ]
    return _pack((ids, shares, _runs([place.matched for place in places]), own))


def _runs(levels: list[str]) -> list[int | str]:
    if levels and levels.count(levels[0]) == len(levels):
        return [_LEVEL.get(levels[0], levels[0]), len(levels)]
    runs: list[int | str] = []
    for level, run in groupby(levels):
        runs += [_LEVEL.get(level, level), sum(1 for _ in run)]
    return runs


def decode_list(value: bytes) -> tuple[Listed, ...]:
    held = _unpack_places(value)
    ids, count = held.ids.hex(), len(held.ids) // 8
    levels: list[str] = []
    for level, run in zip(held.levels[::2], held.levels[1::2], strict=True):
        levels += [LEVELS[level] if isinstance(level, int) else level] * int(run)
    own = {own.place: Story(own.orders_together, own.lift / 100, own.discount_bps, own.why) for own in held.own}
    shares = struct.unpack(f"<{count}H", held.confidences)
    return tuple(
        Listed(ids[16 * at : 16 * at + 16], share / 10_000, levels[at], own.get(at)) for at, share in enumerate(shares)
    )


def _hundredths(number: float) -> int:
    return round(number * 100)


def _sum(text: str) -> int:
    return zlib.crc32(text.encode())


def digest_of_all(kind: bytes, fields: Iterable[bytes], values: Iterable[bytes]) -> int:
    """The sum of 64 bits over each entry (`entry_digest` of kind, colon and field), in half the time.

    Free of the release's id and the bucket: the same content has the same checksum.
    """
    begun, digests = entry_hash(kind + b":"), []
    for field, value in zip(fields, values, strict=True):
        hashed = begun.copy()
        hashed.update(field + b"\0" + value)
        digests.append(hashed.digest())
    return sum(struct.unpack(f">{len(digests)}Q", b"".join(digests)))


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


class Changes:
    """Changes of stock and prices, column by column, as APPLY takes them."""

    __slots__ = ("ats", "lists", "prices_at", "sales", "sequences", "skus", "stock_at", "stocks")

    def __init__(self) -> None:
        self.skus: list[str] = []
        self.sequences: list[str] = []
        self.ats: list[str] = []
        self.stocks: list[Told] = []
        self.lists: list[Told] = []
        self.sales: list[Told] = []
        self.stock_at = self.prices_at = 0
        """Times (ms since 1970) that all else is known to be good for."""

    def __len__(self) -> int:
        return len(self.skus)

    def add(
        self, sku: str, sequence: int, at: int, stock: Told = None, list_price: Told = None, sale_price: Told = None
    ) -> None:
        """`at` in ms since 1970. None: not told; NO_VALUE: there is none."""
        self.skus.append(sku)
        self.sequences.append(str(sequence))
        self.ats.append(str(at))
        self.stocks.append(stock)
        self.lists.append(list_price)
        self.sales.append(sale_price)

    def arguments(self, kept: int) -> list[str | bytes | int]:
        """Arguments of APPLY; `kept`: entries of the delta stream."""
        return [kept, self.stock_at, self.prices_at, _pack(tuple(getattr(self, name) for name in _COLUMNS))]


_COLUMNS = ("skus", "sequences", "ats", "stocks", "lists", "sales")


def delta_arguments(deltas: Sequence[Delta]) -> list[str | bytes | int]:
    """Arguments of APPLY for changes told by the feed."""
    changes = Changes()
    for delta in deltas:
        values = map(_told, (delta.stock, delta.list_price, delta.sale_price))
        changes.add(delta.sku, delta.sequence, milliseconds(delta.at), *values)
    return changes.arguments(DELTAS_KEPT)


def heartbeat_arguments(at: int) -> list[str | bytes | int]:
    """Arguments of APPLY for "all is well up to `at` (ms since 1970), nothing changed"."""
    changes = Changes()
    changes.stock_at = changes.prices_at = at
    return changes.arguments(DELTAS_KEPT)


def snapshot_arguments(rows: Sequence[LiveRow], at: datetime) -> list[str | bytes | int]:
    """Arguments of APPLY for a batch's snapshot: no sequence, so it yields to whatever is newer than `at`."""
    stamp, changes = milliseconds(at), Changes()
    for row in rows:
        sale_price = None if row.list_price is None else told_sale(row.sale_price)
        changes.add(row.sku, 0, stamp, row.stock, row.list_price, sale_price)
    changes.stock_at = stamp if any(row.stock is not None for row in rows) else 0
    changes.prices_at = stamp if any(row.list_price is not None for row in rows) else 0
    return changes.arguments(DELTAS_KEPT)


def told_sale(sale_price: int | None) -> Told:
    """A sale price where one was told, be it none."""
    return NO_VALUE if sale_price is None else sale_price


def _told(value: int | msgspec.UnsetType | None) -> Told:
    return None if value is msgspec.UNSET else told_sale(value)
