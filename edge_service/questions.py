"""What may be asked, and how a body is read: size, JSON, shape, each refused with the field's name."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from typing import Annotated, Any, TypeVar

import msgspec

from edge_service.problems import wrong
from edge_service.region_payloads import Delta, Sku
from tandem.errors import field_and_detail

MAX_SKU_LENGTH = 128
MAX_CART_LINES = 1_000
MAX_SKUS = 100
MAX_EVENTS = 1_000
MAX_LIMIT = 50
DEFAULT_LIMIT = 6
FUTURE_SECONDS = 300
"""How far ahead of this process's clock a delta's or an event's time may be."""

Limit = Annotated[int, msgspec.Meta(ge=1, le=MAX_LIMIT)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
Identifier = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
Consents = Annotated[list[Name], msgspec.Meta(max_length=50)]


class CartLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    sku: Sku
    quantity: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 1


class OffersQuestion(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bundles for several products, for a cart, or both: at least one of `skus` and `cart`."""

    skus: Annotated[list[Sku], msgspec.Meta(max_length=MAX_SKUS)] = []
    cart: Annotated[list[CartLine], msgspec.Meta(max_length=MAX_CART_LINES)] = []
    segment: Name = "*"
    limit: Limit = DEFAULT_LIMIT
    exclude: Annotated[list[Sku], msgspec.Meta(max_length=1_000)] = []
    """Products never to be offered."""
    consents: Consents = []
    """Purposes the shopper consented to; a region that asks for more does not use the segment."""
    quotes: bool = True
    """False: offers to look at only, without signed quotes."""


class VerifyQuestion(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    token: Annotated[str, msgspec.Meta(min_length=1, max_length=16_384)]
    once: bool = False
    """Use the quote up: whoever asks so again is told that it is used. Only a quote of POST offers can be."""


class Heartbeat(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The feed is good up to `at` (default: now), nothing changed."""

    at: datetime | None = None
    heartbeat: bool = True


class _Event(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind"):
    event_id: Identifier
    """An event told twice counts once."""
    at: datetime
    release: Identifier
    session_id: Identifier | None = None
    """Kept only with the consents that the region asks for."""
    consents: Consents = []


class Exposure(_Event, frozen=True, kw_only=True, tag="exposure"):
    """Bundles were shown."""

    anchor: Sku
    bundle_ids: Annotated[list[Identifier], msgspec.Meta(max_length=MAX_LIMIT)]
    segment: Name = "*"


class _Outcome(_Event, frozen=True, kw_only=True):
    bundle_id: Identifier
    anchor: Sku | None = None
    offer_total: Annotated[int, msgspec.Meta(ge=0, le=10**15)] | None = None


class Click(_Outcome, frozen=True, kw_only=True, tag="click"):
    """A bundle was opened."""


class Cart(_Outcome, frozen=True, kw_only=True, tag="cart"):
    """A bundle was put in the cart."""


class Purchase(_Outcome, frozen=True, kw_only=True, tag="purchase"):
    """A bundle was bought."""


Event = Exposure | Click | Cart | Purchase

Shape = TypeVar("Shape")


def decode(body: bytes, shape: type[Shape], where: str = "") -> Shape:
    """`body` as `shape`. Raises a problem: 400 where it is no JSON, 422 where its shape is wrong."""
    try:
        found: Shape = _decoder(shape)(body)  # type: ignore[arg-type]
    except msgspec.ValidationError as error:
        field, detail = field_and_detail(error)
        raise wrong(f"{where}{field}".rstrip(".") or "body", detail) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        detail = f"is not JSON ({error})"
        raise wrong(where.rstrip(".") or "body", detail, 400) from error
    return found


@cache
def _decoder(shape: Any) -> Callable[[bytes], Any]:
    return msgspec.json.Decoder(shape).decode


def check_sku(sku: str) -> str:
    """`sku` from a path or query. Raises a 404 problem where no product can be called so."""
    if not 1 <= len(sku) <= MAX_SKU_LENGTH:
        raise wrong("sku", f"must have 1 to {MAX_SKU_LENGTH} characters, not {len(sku)}", 404)
    if not sku.isprintable():
        raise wrong("sku", "must be readable text", 404)
    return sku


def split(values: list[str]) -> list[str]:
    """A query parameter that may be repeated, and hold several values separated by commas."""
    return [part.strip() for value in values for part in value.split(",") if part.strip()]


def offers_question(body: bytes) -> OffersQuestion:
    question = decode(body, OffersQuestion)
    if not question.skus and not question.cart:
        raise wrong("skus", "give at least one product in skus or in cart")
    return question


def events(body: bytes, now: float) -> list[Event]:
    """A JSON array, or one object a line. All of them are right, or a problem names the first that is not."""
    if body.lstrip()[:1] == b"[":
        found = decode(body, list[Event])
        places = [f"[{number}]." for number in range(len(found))]
    else:
        lines = _lines(body)
        found = [decode(line, Event, where) for where, line in lines]  # type: ignore[arg-type]
        places = [where for where, _ in lines]
    if len(found) > MAX_EVENTS:
        raise wrong("body", f"holds {len(found)} events; send at most {MAX_EVENTS} at once", 413)
    for where, event in zip(places, found, strict=True):
        _check_time(event.at, where, now)
    return found


def deltas(body: bytes, now: float) -> list[Delta | Heartbeat]:
    """One object a line. All of them are right, or a problem names the first that is not."""
    found: list[Delta | Heartbeat] = []
    for where, line in _lines(body):
        entry = _delta(line, where)
        if entry.at is not None:
            _check_time(entry.at, where, now)
        found.append(entry)
    return found


def _delta(line: bytes, where: str) -> Delta | Heartbeat:
    named = decode(line, dict[str, msgspec.Raw], where)
    if named.keys() <= {"at", "heartbeat"}:
        return decode(line, Heartbeat, where)
    delta = decode(line, Delta, where)
    if msgspec.UNSET is delta.stock is delta.list_price is delta.sale_price:
        raise wrong(f"{where}stock", "name at least one of stock, list_price and sale_price")
    return delta


def _lines(body: bytes) -> list[tuple[str, bytes]]:
    lines = [(f"line {number}.", line) for number, line in enumerate(body.split(b"\n"), 1) if line.strip()]
    if not lines:
        raise wrong("body", "is empty; send one JSON object a line", 400)
    return lines


def _check_time(at: datetime, where: str, now: float) -> None:
    if at.tzinfo is None:
        raise wrong(f"{where}at", "needs its zone, such as Z")
    if at.timestamp() > now + FUTURE_SECONDS:
        shown = datetime.fromtimestamp(now, UTC).isoformat(timespec="seconds")
        raise wrong(f"{where}at", f"lies more than {FUTURE_SECONDS} seconds ahead; it is {shown} here")
