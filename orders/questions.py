"""What may be asked of the orders' service, and what it answers. Money in minor units, times RFC 3339 in UTC."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

import msgspec

from edge_service.questions import Consents, Identifier
from edge_service.region_payloads import Sku
from streams.messages import Quantity

Token = Annotated[str, msgspec.Meta(min_length=1, max_length=16_384)]
Tokens = Annotated[list[Token], msgspec.Meta(min_length=1, max_length=50)]
Units = Annotated[int, msgspec.Meta(ge=0, le=10**9)]


class CheckoutQuestion(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Buy what these quotes offer, at their prices."""

    quotes: Tokens
    """Tokens that the edge signed. A bundle twice: two quotes; one of GET bundles may be given twice."""
    customer_id: Identifier | None = None
    session_id: Identifier | None = None
    """Kept only with the consents that the region asks for."""
    consents: Consents = []
    reservation_id: UUID | None = None
    """Goods that are held already; what they lack is taken from the shelf."""


class ReserveQuestion(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Hold what these quotes offer for a while."""

    quotes: Tokens


class ReturnedUnits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    line: Annotated[int, msgspec.Meta(ge=1)]
    quantity: Quantity
    restock: bool = True
    """False: it can't be sold again."""


class ReturnQuestion(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Units of an order that came back."""

    lines: Annotated[list[ReturnedUnits], msgspec.Meta(min_length=1, max_length=1_000)]


class Movement(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Goods that came or went without an order: exactly one of `change` and `counted`."""

    sku: Sku
    change: Annotated[int, msgspec.Meta(ge=-(10**9), le=10**9)] | msgspec.UnsetType = msgspec.UNSET
    """Units more, or less."""
    counted: Units | msgspec.UnsetType = msgspec.UNSET
    """What can be sold, as somebody counted it; goods that are held for shoppers come on top."""
    reason: Literal["receipt", "sale", "loss", "count"] = "receipt"


class StockQuestion(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    movements: Annotated[list[Movement], msgspec.Meta(min_length=1, max_length=1_000)]


class SoldLine(msgspec.Struct, frozen=True, kw_only=True):
    line: int
    sku: str
    quantity: int
    offer_total: int
    """All units of the line."""
    bundle_id: str
    returned: int = 0
    """Units."""
    refunded: int = 0


class OrderAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """An order."""

    order_id: UUID
    region: str
    currency: str
    total: int
    placed_at: datetime
    lines: list[SoldLine]


class ReservationAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Goods that are held until `expires_at`."""

    reservation_id: UUID
    expires_at: datetime


class RefundedLine(msgspec.Struct, frozen=True, kw_only=True):
    line: int
    sku: str
    quantity: int
    refunded: int


class ReturnAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What is paid back."""

    return_id: UUID
    order_id: UUID
    currency: str
    refunded: int
    lines: list[RefundedLine]


class ProductStock(msgspec.Struct, frozen=True, kw_only=True):
    sku: str
    stock: int
    """What can be sold."""
    sequence: int


class StockAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Stock as it is now."""

    products: list[ProductStock]
