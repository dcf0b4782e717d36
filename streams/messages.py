"""Every message that travels over Kafka, declared once: a JSON object as value, its type and version as headers.

A version only ever adds fields that may be missing: whoever reads an older one passes over what it does not know, and
keeps it where it passes a message on. A change that breaks a reader is a new type.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Annotated, Any, ClassVar

import msgspec

from edge_service.region_payloads import Amount, SequenceNumber, Sku
from tandem.errors import InputError, field_and_detail

Identifier = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
Time = Annotated[datetime, msgspec.Meta(tz=True, description="RFC 3339, with its zone")]
Quantity = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
Currency = Annotated[str, msgspec.Meta(pattern="^[A-Z]{3}$", description="ISO 4217")]
Order = Annotated[
    SequenceNumber, msgspec.Meta(description="Microseconds since 1970 of the writer, at least the last + 1")
]
Cents = Annotated[Amount, msgspec.Meta(description="Minor units of the region's currency")]

Header = tuple[str, bytes]
"""As Kafka's clients have it."""


class Refused(InputError):
    """A message that nobody here can read; what it says is the reason it has among the dead letters."""


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """One message. Fields that a later version adds are passed over; `passed_on` keeps them."""

    type: ClassVar[str]
    version: ClassVar[int] = 1

    @property
    def key(self) -> bytes:
        """Messages of one key keep their order."""
        raise NotImplementedError


class StockChanged(Message, frozen=True, kw_only=True):
    """What is on hand of one product in one region from now on."""

    type: ClassVar[str] = "stock-changed"

    region: Name
    sku: Sku
    stock: Annotated[Amount, msgspec.Meta(description="Units on hand, not a difference")]
    sequence: Order
    at: Time

    @property
    def key(self) -> bytes:
        return product_key(self.region, self.sku)


class PriceChanged(Message, frozen=True, kw_only=True):
    """What one product costs in one region from now on."""

    type: ClassVar[str] = "price-changed"

    region: Name
    sku: Sku
    list_price: Cents
    sale_price: Annotated[Cents | None, msgspec.Meta(description="Minor units; null: no sale")] = None
    sequence: Order
    at: Time

    @property
    def key(self) -> bytes:
        return product_key(self.region, self.sku)


class _Unchanged(Message, frozen=True, kw_only=True):
    region: Name
    at: Time

    @property
    def key(self) -> bytes:
        return product_key(self.region, "")


class StockUnchanged(_Unchanged, frozen=True, kw_only=True):
    """All stock of a region is as it was told, up to a time: a shop that sells nothing is not out of date."""

    type: ClassVar[str] = "stock-unchanged"


class PricesUnchanged(_Unchanged, frozen=True, kw_only=True):
    """All prices of a region are as they were told, up to a time."""

    type: ClassVar[str] = "prices-unchanged"


class _Seen(Message, frozen=True, kw_only=True):
    event_id: Annotated[Identifier, msgspec.Meta(description="Given by the sender; told twice it counts once")]
    at: Time
    region: Name
    release_id: Identifier | None = None
    session_id: Annotated[Identifier | None, msgspec.Meta(description="Only with the consents of the region")] = None
    consents: Annotated[list[Name], msgspec.Meta(description="Purposes the shopper consented to")] = []

    @property
    def key(self) -> bytes:
        return (self.session_id or self.event_id).encode()


class Activity(_Seen, frozen=True, kw_only=True):
    """What a shopper did: looked at a product, opened a bundle, put it in the cart, bought it."""

    type: ClassVar[str] = "activity"

    kind: Annotated[Name, msgspec.Meta(description="view, click, cart, purchase; others may come")]
    sku: Annotated[Sku | None, msgspec.Meta(description="The product itself, where it was no bundle")] = None
    quantity: Quantity = 1
    anchor: Annotated[Sku | None, msgspec.Meta(description="The product looked at when the bundle was offered")] = None
    bundle_id: Identifier | None = None
    offer_total_cents: Cents | None = None


class Exposure(_Seen, frozen=True, kw_only=True):
    """Bundles that were shown with a product."""

    type: ClassVar[str] = "exposure"

    anchor: Sku
    bundle_ids: Annotated[list[Identifier], msgspec.Meta(description="In the order they were shown")]
    segment: Name = "*"


class SoldLine(msgspec.Struct, frozen=True, kw_only=True):
    """A line of an order."""

    sku: Sku
    quantity: Quantity
    unit_list_price: Annotated[Cents | None, msgspec.Meta(description="One unit alone; null: not known")] = None
    offer_total: Annotated[Cents, msgspec.Meta(description="What this line costs, its share of a bundle's price")]
    bundle_id: Identifier | None = None
    quote_id: Identifier | None = None
    release: Identifier | None = None


class ReturnedLine(msgspec.Struct, frozen=True, kw_only=True):
    """A line of a return."""

    sku: Sku
    quantity: Quantity
    refunded: Cents


class OrderPlaced(Message, frozen=True, kw_only=True):
    """An order was written, and its stock taken."""

    type: ClassVar[str] = "order-placed"

    order_id: Identifier
    region: Name
    customer_id: Identifier | None = None
    session_id: Identifier | None = None
    consents: list[Name] = []
    currency: Currency
    placed_at: Time
    lines: Annotated[list[SoldLine], msgspec.Meta(min_length=1)]

    @property
    def key(self) -> bytes:
        return self.order_id.encode()


class OrderReturned(Message, frozen=True, kw_only=True):
    """Something of an order came back."""

    type: ClassVar[str] = "order-returned"

    return_id: Identifier
    order_id: Identifier
    region: Name
    at: Time
    lines: Annotated[list[ReturnedLine], msgspec.Meta(min_length=1)]

    @property
    def key(self) -> bytes:
        return self.order_id.encode()


MESSAGES: Mapping[str, type[Message]] = {
    each.type: each
    for each in (
        StockChanged,
        StockUnchanged,
        PriceChanged,
        PricesUnchanged,
        Activity,
        Exposure,
        OrderPlaced,
        OrderReturned,
    )
}
"""By type."""


def _headers(shape: type[Message]) -> list[Header]:
    return [("type", shape.type.encode()), ("version", b"%d" % shape.version)]


encode = msgspec.json.Encoder().encode
_decoders = {name: msgspec.json.Decoder(shape).decode for name, shape in MESSAGES.items()}
_usual = {tuple(_headers(shape)): _decoders[name] for name, shape in MESSAGES.items()}
"""By headers as they are written here: most messages need no look at them."""
_KNOWN = {shape: frozenset(shape.__struct_fields__) for shape in MESSAGES.values()}


def product_key(region: str, sku: str) -> bytes:
    """The key of what concerns one product in one region: what reads for one region passes over other keys unread."""
    return f"{region}:{sku}".encode()


def headers(message: Message) -> list[Header]:
    """What goes beside the value."""
    return _headers(type(message))


def read(beside: Iterable[Header] | None, value: bytes | None) -> Message:
    """The message of a Kafka record, of its headers and value.

    A later version of a known type is read as far as it is known. Raises Refused: without a type, of an unknown one, or
    with a field that is wrong.
    """
    told = tuple(beside or ())
    decode = _usual.get(told) or _decoders[_type(told)]
    try:
        found: Message = decode(value or b"")
    except msgspec.ValidationError as error:
        field, detail = field_and_detail(error)
        raise Refused(f"{_type(told)}: field {field or 'value'}: {detail}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refused(f"{_type(told)}: value: is not JSON ({error})") from error
    return found


def _type(beside: tuple[Header, ...]) -> str:
    """The type that headers name, one that is known here in some version."""
    named = dict(beside)
    kind = (named.get("type") or b"").decode(errors="replace")
    if kind not in _decoders:
        raise Refused(f"header type: {kind!r} is none of {', '.join(MESSAGES)}" if kind else "header type: is missing")
    version = named.get("version") or b""
    if not (version.isdigit() and int(version) > 0):
        raise Refused(f"header version: must be a number from 1 on, not {version.decode(errors='replace')!r}")
    return kind


def unknown(value: bytes, shape: type[Message]) -> dict[str, Any]:
    """The fields of a message's value that `shape` does not name, as they came."""
    told = msgspec.json.decode(value, type=dict[str, Any])
    return {name: told[name] for name in told.keys() - _KNOWN[shape]}


def passed_on(message: Message, value: bytes) -> bytes:
    """`message`, which was read from `value` and perhaps changed, with all fields that are not known here."""
    return encode({**unknown(value, type(message)), **msgspec.to_builtins(message)})


def of_edge(told: Mapping[str, Any], region: str, willing: Iterable[str]) -> Activity | Exposure:
    """An event as an edge keeps it in its region's Redis, without what consent does not cover and without consents.

    `willing` are the purposes that the region asks for. Raises msgspec.ValidationError for anything else.
    """
    shape: type[Activity | Exposure] = Exposure if told["kind"] == "exposure" else Activity
    return msgspec.convert({**told, "region": region, "consents": list(willing)}, shape, strict=False)
