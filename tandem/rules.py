"""What a merchandiser may set about bundles and their prices: `rules.toml`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec

from tandem import config

Share = Annotated[int, msgspec.Meta(ge=0, le=9_999)]
Positive = Annotated[int, msgspec.Meta(ge=1)]


class Learning(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is learned from."""

    window_days: Positive = 365
    """Orders of this many days before as_of."""
    min_orders_together: Positive = 10
    """From so many common orders on, counts stand by themselves; below, the factors must agree."""
    popularity_damping: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.2
    """score = orders_both / (orders_anchor * orders_companion ^ damping)."""
    max_basket: Positive = 200
    """Orders with more different products are left out of pair counting, and their number is reported."""
    max_item_orders: Positive = 5_000_000
    """Products in more orders of the window are left out of pair counting, and their number is reported."""
    top: Positive = 50
    """Companions kept per anchor."""
    half_life_days: Positive = 90
    """Decayed counts: an order so many days old counts half."""

    def __post_init__(self) -> None:
        if self.window_days > 20 * self.half_life_days:
            least = -(-self.window_days // 20)
            raise ValueError(f"half_life_days {self.half_life_days} must be at least {least}: window_days / 20")


class Bundling(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How sets are made."""

    max_components: Annotated[int, msgspec.Meta(ge=2, le=4)] = 4
    per_anchor: Positive = 8
    """Bundles kept per anchor."""
    substitutes: Annotated[int, msgspec.Meta(ge=0, le=10)] = 3
    """Substitutes kept per component."""
    exclude_categories: list[str] = []
    """Categories (any level, as written in the catalogue) that are never bundled."""
    exclude_skus: list[str] = []


class Cold(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Answers for products that no counts speak for."""

    per_anchor: Annotated[int, msgspec.Meta(ge=1, le=20)] = 3
    """Bundles for each of them."""


class Pricing(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How deep a discount goes. All shares in basis points."""

    max_discount_bps: Share = 1_000
    min_margin_bps: Share = 500
    """Of the unit cost, added to it for the floor."""
    assumed_margin_bps: Share = 2_500
    """Of the price, where no unit cost is known; the floor is then the price less this margin."""
    min_lift: Annotated[float, msgspec.Meta(ge=1)] = 1.0
    """Below this lift a bundle is not offered at all."""


class Rules(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole of `rules.toml`."""

    learning: Learning = Learning()
    bundling: Bundling = Bundling()
    cold: Cold = Cold()
    pricing: Pricing = Pricing()


def load(folder: Path | None) -> Rules:
    """The rules in force: `rules.toml` in `folder`, or Tandem's defaults."""
    return config.load(config.path_of(folder, "rules.toml"), Rules)
