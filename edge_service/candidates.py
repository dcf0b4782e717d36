"""What the last minutes add to a release: pairs of products that live activity speaks for, until they expire.

They name products alone: what a shopper pays comes from live state, and nothing is discounted. The first place of a
list stays the release's, and a bundle that the release lists stays as the release has it.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Mapping
from itertools import groupby
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import msgspec

from edge_service.answers import Evidence
from edge_service.region_reader import RegionReader
from edge_service.releases import Standing, order_of
from tandem.bundle import Bundle, Component, Listed, bundle_id
from tandem.errors import Unavailable

if TYPE_CHECKING:
    from edge_service.kept_bundles import KeptBundle

POLL_SECONDS = 1.0
"""How often they are read; they are also looked at once in so many seconds whether they have expired."""
FORMAT = 1
MOST_PAIRS = 40_000
"""In one region, whatever is written there."""
REGION = "region"
"""The level of their evidence: what the region's shoppers do."""
SOURCE = b',"source":"live"'

_encode = msgspec.json.Encoder().encode


class LivePair(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A companion for an anchor. Floors in minor units; None where none is known."""

    anchor: str
    companion: str
    confidence: float
    lift: float
    orders_together: int
    anchor_floor: int | None = None
    companion_floor: int | None = None


class LivePairs(msgspec.Struct, frozen=True, array_like=True):
    """All pairs of a region, those of one anchor together and best first."""

    format: int
    expires_at: int
    """Milliseconds since 1970."""
    pairs: tuple[LivePair, ...]


pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(LivePairs).decode


class Candidates:
    """The pairs of one region as lists of bundles."""

    __slots__ = ("bundles", "kept", "places", "until")

    def __init__(self, places: Mapping[str, tuple[Standing, ...]], bundles: Mapping[str, Bundle], until: float) -> None:
        self.places, self.bundles, self.until = places, bundles, until
        self.kept: dict[tuple[str, str], KeptBundle] = {}
        """Bundle and segment of those that were priced; they go with what they were made for."""

    def __len__(self) -> int:
        return len(self.bundles)


NONE = Candidates(MappingProxyType({}), MappingProxyType({}), math.inf)
"""Without live activity."""


def read(payload: bytes, before: Candidates = NONE) -> Candidates:
    """The pairs as they are stored; a list that is as it was `before` is the same object.

    Raises ValueError (msgspec.DecodeError among them) for anything else.
    """
    told = _unpack(payload)
    if told.format != FORMAT or len(told.pairs) > MOST_PAIRS:
        raise ValueError(f"format {told.format} with {len(told.pairs)} pairs; read are format {FORMAT}, {MOST_PAIRS}")
    bundles: dict[str, Bundle] = {}
    places: dict[str, tuple[Standing, ...]] = {}
    for anchor, pairs in groupby(told.pairs, key=lambda pair: pair.anchor):
        found = tuple(_standings(anchor, pairs, bundles))
        held = before.places.get(anchor)
        places[anchor] = held if held == found else found
    return Candidates(places, bundles, told.expires_at / 1000)


def _standings(anchor: str, pairs: Iterable[LivePair], bundles: dict[str, Bundle]) -> Iterable[Standing]:
    for rank, pair in enumerate(pairs):
        parts = (Component(anchor, 1, pair.anchor_floor), Component(pair.companion, 1, pair.companion_floor))
        name = bundle_id((part.sku, part.quantity) for part in parts)
        bundle = bundles.setdefault(name, Bundle(name, parts, 0, pair.orders_together, pair.lift))
        evidence = _encode(Evidence(bundle.orders_together, pair.confidence, bundle.lift)) + SOURCE
        listed = Listed(name, pair.confidence, REGION)
        yield Standing(order_of(listed, rank, anchor), rank, name, listed, (pair.companion,), evidence)


def blended(own: tuple[Standing, ...], live: tuple[Standing, ...]) -> tuple[Standing, ...]:
    """A release's list with live places behind its first; without a list, the live places alone."""
    names = {place.bundle_id for place in own}
    return (*own[:1], *(place for place in live if place.bundle_id not in names), *own[1:])


class LiveCandidates:
    """Follows a region's candidates. They expire by this process's clock, whether Redis is there or not."""

    def __init__(self, reader: RegionReader, log: Any) -> None:
        self._reader, self._log = reader, log
        self._held = NONE
        self._payload: bytes | None = None

    def at(self, now: float) -> Candidates:
        """Those that hold at `now`, in seconds since 1970."""
        return self._held if now < self._held.until else NONE

    async def follow(self) -> None:
        while True:
            try:
                self._take(await self._reader.candidates())
            except Unavailable:
                pass
            except ValueError as error:
                self._log.error("candidates_unreadable", region=self._reader.region.name, reason=str(error))
            await asyncio.sleep(POLL_SECONDS)

    def _take(self, payload: bytes | None) -> None:
        if payload == self._payload:
            return
        self._payload, before = payload, self._held
        self._held = NONE
        if payload is not None:
            self._held = read(payload, before)
