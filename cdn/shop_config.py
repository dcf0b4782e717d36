"""What the shop page must know before it can ask: the regions, the segments' titles, and where each edge is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tandem.regions import Regions
from tandem.segments import EVERYONE, Segments


def shop_config(
    regions: Regions, segments: Segments, edges: Mapping[str, str], orders: Mapping[str, str]
) -> dict[str, Any]:
    """The content of `shop/config.json`; `edges` maps each region to its edge's address, `orders` to its checkout's.

    A region that `orders` does not name is looked at only: the page has no button to buy.

    `cdn` is where a region's files are, as a browser finds them.
    """
    return {
        "regions": [
            {
                "name": region.name,
                "title": region.title or region.name,
                "currency": region.currency,
                "edge": edges[region.name].rstrip("/"),
                "orders": orders.get(region.name, "").rstrip("/"),
                "cdn": region.object_store.public_url.rstrip("/"),
            }
            for region in regions.region
        ],
        "segments": [
            *({"name": each.name, "title": each.title or each.name} for each in segments.segment),
            {"name": EVERYONE, "title": "Everyone else"},
        ],
    }
