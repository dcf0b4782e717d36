"""What is answered: the shapes of every reply. No cost, no floor and no margin has a place in them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

import msgspec


class Evidence(msgspec.Struct, frozen=True):
    """Why these products are offered together."""

    orders_together: int
    """0 where no orders speak for the bundle itself (`matched` is category, content or popular)."""
    confidence: float
    """Share of the anchor's orders that hold the whole bundle, counted or estimated."""
    lift: float


class SignedQuote(msgspec.Struct, frozen=True):
    token: str
    expires_at: str


class OfferedComponent(msgspec.Struct, frozen=True):
    sku: str
    quantity: int
    unit_price: int
    """One unit alone, today, in minor units."""
    offer_price: int
    """All `quantity` units inside the offer; they sum to `offer_total`."""
    substituted_for: str | None


class OfferedBundle(msgspec.Struct, frozen=True):
    """Money in minor units: `list_total` = `offer_total` + `discount`."""

    id: str
    currency: str
    list_total: int
    offer_total: int
    discount: int
    sellable: int
    """How many of it can be sold, net of the cart."""
    components: list[OfferedComponent]
    evidence: Evidence
    quote: SignedQuote | None = None
    source: Literal["release", "live"] = "release"
    """live: what shoppers do just now speaks for it, and not the release; without a discount. Left out otherwise."""


class Missing(msgspec.Struct, frozen=True):
    sku: str
    quantity: int


class CartBundle(OfferedBundle, frozen=True):
    """A bundle offered for a cart."""

    missing: list[Missing] = []
    """What has to be added to the cart to complete it."""


class _Aged(msgspec.Struct, frozen=True, kw_only=True):
    """Where an answer comes from and how old it is. Times are RFC 3339, UTC."""

    region: str
    release: str | None
    computed_at: str | None
    stock_as_of: str | None
    prices_as_of: str | None
    stale: bool
    """Live data is past its limit (then nothing is discounted), or its feed is cut off right now."""


class BundlesAnswer(msgspec.Struct, frozen=True, kw_only=True):
    region: str
    sku: str
    segment: str
    matched: str
    """Where the first bundle's evidence comes from: one of tandem.bundle.LEVELS; none without any."""
    release: str
    computed_at: str
    stock_as_of: str | None
    prices_as_of: str | None
    stale: bool
    bundles: list[OfferedBundle]


class OffersAnswer(msgspec.Struct, frozen=True, kw_only=True):
    region: str
    skus: list[str]
    """The anchors: the products named, then those of the cart."""
    segment: str
    matched: str
    release: str
    computed_at: str
    stock_as_of: str | None
    prices_as_of: str | None
    stale: bool
    bundles: list[CartBundle]
    complete: list[OfferedBundle]
    """Bundles of these lists that the cart holds whole: their price can be given for what lies in it."""


class LiveProduct(msgspec.Struct, frozen=True):
    """Null where it was never told. Money in minor units."""

    sku: str
    stock: int | None
    list_price: int | None
    sale_price: int | None
    unit_price: int | None
    """What one unit costs today."""


class LiveAnswer(_Aged, frozen=True, kw_only=True):
    currency: str
    products: list[LiveProduct]


class QuotedPart(msgspec.Struct, frozen=True):
    sku: str
    quantity: int
    offer_price: int
    return_values: list[int]
    """What each unit is worth when it alone is sent back; they sum to `offer_price`."""


class VerifiedQuote(msgspec.Struct, frozen=True, kw_only=True):
    """What checkout may charge."""

    bundle_id: str
    segment: str
    release: str
    currency: str
    offer_total: int
    components: list[QuotedPart]
    expires_at: str


class VerifyAnswer(_Aged, frozen=True, kw_only=True):
    """`fault`, where not valid: malformed, unknown_key, altered, expired, wrong_region; with `once` also used, and
    shared: the quote is the same for all who asked GET bundles, and can't be used up."""

    valid: bool
    fault: str | None
    quote: VerifiedQuote | None


class EventsAnswer(msgspec.Struct, frozen=True):
    accepted: int
    sessions_dropped: int
    """Events kept without their session_id, for want of consent."""


class DeltasAnswer(msgspec.Struct, frozen=True):
    applied: int
    stale: int
    """Every field of it was older than what is there."""
    heartbeats: int


class Listing(msgspec.Struct, frozen=True):
    """A place where the bundle stands in a ranked list."""

    anchor: str
    rank: int
    confidence: float
    matched: str


class Reason(msgspec.Struct, frozen=True):
    """Why price, discount or components are as they are. `code` is one of edge_service.explain.CODES."""

    code: str
    detail: str


class ExplainedComponent(msgspec.Struct, frozen=True):
    """Prices are null while the bundle can't be sold."""

    sku: str
    quantity: int
    unit_price: int | None = None
    offer_price: int | None = None
    substituted_for: str | None = None


class ExplainedRule(msgspec.Struct, frozen=True):
    line: int
    """Where it begins in rules.toml as it was at the build."""
    action: str


class ExplainAnswer(_Aged, frozen=True, kw_only=True):
    """Totals are null while the bundle can't be sold."""

    id: str
    segment: str
    matched: str
    listings: list[Listing]
    orders_together: int
    lift: float
    planned_discount_bps: int
    """What the batch meant to take off, in basis points of the price alone."""
    components: list[ExplainedComponent]
    currency: str
    list_total: int | None
    offer_total: int | None
    discount: int | None
    sellable: int
    reasons: list[Reason]
    """What holds now."""
    decided: Reason
    """What the batch decided of the discount."""
    rules: list[ExplainedRule]
    """Of merchandisers, that put the bundle first, moved it, or asked for a product in it."""
    text: str
    """The same for a person."""


class ReadyAnswer(msgspec.Struct, frozen=True):
    ready: bool
    missing: dict[str, list[str]]
    """Region → what it still lacks: release, live."""
    leaving: bool = False
    """Told to stop; it still answers what comes."""


class HealthAnswer(msgspec.Struct, frozen=True):
    status: str = "ok"


def rfc3339(milliseconds: int | None) -> str | None:
    """Milliseconds since 1970 as text; None stays None."""
    if milliseconds is None:
        return None
    at = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
