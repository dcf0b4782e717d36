"""Stock for data that brings none: the same region and product always draw the same, whatever else is in the data."""

from __future__ import annotations

import hashlib
import math

SEED = "tandem stock 1"
OUT_OF_STOCK_SHARE = 0.03
LEAST_WEEKS, MOST_WEEKS = 1.0, 4.0
"""A shelf holds so many weeks of sales."""


def on_hand(region: str, sku: str, weekly_units: float) -> int:
    """Units on hand: none for 3 % of products, else one to four weeks of sales and two units more."""
    luck, cover = _draws(region, sku)
    if luck < OUT_OF_STOCK_SHARE:
        return 0
    weeks = LEAST_WEEKS + (MOST_WEEKS - LEAST_WEEKS) * cover
    return 2 + math.ceil(weekly_units * weeks)


def _draws(region: str, sku: str) -> tuple[float, float]:
    """Two numbers, even over [0, 1), from the names alone."""
    digest = hashlib.blake2b(f"{SEED}\0{region}\0{sku}".encode(), digest_size=16).digest()
    return int.from_bytes(digest[:8], "big") / 2**64, int.from_bytes(digest[8:], "big") / 2**64
