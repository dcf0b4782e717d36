"""How old an answer is, what follows from it, and how its fields say it: worked out once, kept while it holds."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from edge_service.answers import rfc3339
from edge_service.live import LiveState
from edge_service.releases import Release
from tandem.settings import Settings

_encode = msgspec.json.Encoder().encode


class Freshness(NamedTuple):
    """How old what is known is, at the moment of an answer."""

    stock_as_of: int | None
    """Milliseconds since 1970 that stock is known to be true for; None: never told."""
    prices_as_of: int | None
    stale: bool
    """Past a limit, or cut off from the feed right now."""
    discounts: bool
    """False past a limit. A short break of the feed alone does not end them."""
    prices: bool
    """False where prices have expired: then none is shown."""


class Limits(NamedTuple):
    """How old things may be, in milliseconds."""

    stock: int
    prices: int
    expiry: float
    """Of prices."""
    release: float

    @classmethod
    def of(cls, settings: Settings) -> Limits:
        return cls(
            settings.stock_limit_seconds * 1000,
            settings.price_limit_seconds * 1000,
            settings.price_expiry_seconds * 1000 or math.inf,
            settings.release_limit_seconds * 1000 or math.inf,
        )


class Told(NamedTuple):
    """The ages of a region at some moments."""

    freshness: Freshness
    text: bytes
    """The fields `stock_as_of`, `prices_as_of` and `stale` of an answer, as JSON without braces."""
    until: float
    """Holds before this second since 1970, as long as nothing comes in."""


class Ages:
    """Tells the ages of one region: of its live state, and of the release that is served."""

    def __init__(self, live: LiveState, limits: Limits) -> None:
        self._live, self._limits = live, limits
        self._state: tuple[object, bool, Release | None] = (None, False, None)
        self._made = math.inf
        self._told = Told(self._freshness(0), b"", -math.inf)

    def at(self, now: float, release: Release | None) -> Told:
        """`now` in seconds since 1970."""
        told, live, state = self._told, self._live, self._state
        if now < told.until and live.ages is state[0] and live.connected is state[1] and release is state[2]:
            return told
        if release is not state[2]:
            self._made = math.inf if release is None else _milliseconds(release.meta.computed_at)
        self._state = (live.ages, live.connected, release)
        freshness = self._freshness(int(now * 1000))
        text = _encode(as_fields(freshness))[1:-1]
        self._told = told = Told(freshness, text, self._same_until(int(now * 1000)))
        return told

    def _freshness(self, now: int) -> Freshness:
        limits = self._limits
        stock, prices = (min(age, now) for age in self._live.ages)
        within = now - stock <= limits.stock and now - prices <= limits.prices and now - self._made <= limits.release
        stale = not (within and self._live.connected)
        return Freshness(stock or None, prices or None, stale, within, now - prices <= limits.expiry)

    def _same_until(self, now: int) -> float:
        (stock, prices), limits = self._live.ages, self._limits
        if max(stock, prices) > now:  # told ahead of this clock
            return -math.inf
        ends = (stock + limits.stock, prices + limits.prices, prices + limits.expiry, self._made + limits.release)
        return min((end + 1 for end in ends if end >= now), default=math.inf) / 1000


def _milliseconds(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1000)


def as_fields(fresh: Freshness) -> dict[str, Any]:
    """The fields of an answer that say how old its live data is."""
    return {
        "stock_as_of": rfc3339(fresh.stock_as_of),
        "prices_as_of": rfc3339(fresh.prices_as_of),
        "stale": fresh.stale,
    }
