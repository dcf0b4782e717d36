"""How old an answer is, as its fields say it: worked out once, and kept until it may be another."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import msgspec

from edge_service.answers import rfc3339
from edge_service.live import Freshness, LiveState

_encode = msgspec.json.Encoder().encode


class Told(NamedTuple):
    """The ages of a region's live state at some moments."""

    freshness: Freshness
    text: bytes
    """The fields `stock_as_of`, `prices_as_of` and `stale` of an answer, as JSON without braces."""
    until: float
    """Holds before this second since 1970, as long as nothing comes in."""


class Ages:
    """Tells the ages of one LiveState."""

    def __init__(self, live: LiveState) -> None:
        self._live = live
        self._state: tuple[object, bool] = (None, False)
        self._told = Told(live.freshness(0.0), b"", -math.inf)

    def at(self, now: float) -> Told:
        """`now` in seconds since 1970."""
        told, live = self._told, self._live
        if now < told.until and self._state == (live.ages, live.connected):
            return told
        self._state = (live.ages, live.connected)
        freshness = live.freshness(now)
        text = _encode(as_fields(freshness))[1:-1]
        self._told = told = Told(freshness, text, live.same_until(now))
        return told


def as_fields(fresh: Freshness) -> dict[str, Any]:
    """The fields of an answer that say how old its live data is."""
    return {
        "stock_as_of": rfc3339(fresh.stock_as_of),
        "prices_as_of": rfc3339(fresh.prices_as_of),
        "stale": fresh.stale,
    }
