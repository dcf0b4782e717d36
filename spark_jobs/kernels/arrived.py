"""From a message to rows of the lake: the one conversion for Kafka, the edges' Redis and the history in PostgreSQL."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple

from streams.messages import Activity, Exposure, Message, OrderPlaced, OrderReturned, Refused
from tandem.regions import Region

BUNDLE_KINDS = ("click", "cart", "purchase")
"""What the table outcomes knows."""
SOURCE = "orders"
"""What sales_lines and customers name as the source of what came by message."""
RETURN = "{order}/return/{id}"
"""The order_id of the lines of a return: it is a receipt of its own, and a later build finds its order by name."""
FUTURE = timedelta(seconds=300)
"""How far ahead of this clock a message's time may be."""


class Row(NamedTuple):
    """A row of a table."""

    table: str
    values: dict[str, Any]


def rows(message: Message, regions: Mapping[str, Region], now: datetime) -> list[Row]:
    """What `message` says, in the tables' own columns. Raises Refused where it can't be used."""
    if isinstance(message, OrderPlaced):
        _check(message.region, message.placed_at, regions, now)
        return list(_placed(message, regions[message.region]))
    if isinstance(message, OrderReturned):
        _check(message.region, message.at, regions, now)
        return list(_returned(message, regions[message.region]))
    if isinstance(message, Exposure | Activity):
        _check(message.region, message.at, regions, now)
        purposes = regions[message.region].consent_purposes
        return [_exposure(message, purposes) if isinstance(message, Exposure) else _activity(message, purposes)]
    raise Refused(f"{message.type}: belongs to no table of the lake")


def _check(region: str, at: datetime, regions: Mapping[str, Region], now: datetime) -> None:
    if region not in regions:
        raise Refused(f"field region: no region {region!r} in regions.toml; known are {', '.join(regions)}")
    if at > now + FUTURE:
        raise Refused(f"field at: lies more than {FUTURE.seconds} seconds ahead; it is {now:%Y-%m-%dT%H:%M:%SZ} here")


def _placed(order: OrderPlaced, region: Region) -> Iterator[Row]:
    if order.currency != region.currency:
        raise Refused(f"field currency: {order.currency} is not that of the region, {region.currency}")
    receipt = _receipt(order.region, order.order_id, order.placed_at, order.customer_id, order.currency)
    for number, line in enumerate(order.lines, 1):
        amounts = _amounts(line.quantity, line.offer_total, 1)
        yield Row("sales_lines", {**receipt, "line": number, "sku": line.sku, **amounts,
                                  "list_price_cents": line.unit_list_price})  # fmt: skip
    if order.customer_id is not None:
        yield Row("customers", _customer(order.customer_id, order))


def _returned(back: OrderReturned, region: Region) -> Iterator[Row]:
    name = RETURN.format(order=back.order_id, id=back.return_id)
    receipt = _receipt(back.region, name, back.at, None, region.currency)
    in_any_order = sorted(back.lines, key=lambda line: (line.sku, line.quantity, line.refunded))
    for number, line in enumerate(in_any_order, 1):
        amounts = _amounts(line.quantity, line.refunded, -1)
        yield Row("sales_lines", {**receipt, "line": number, "sku": line.sku, **amounts, "list_price_cents": None})


def _receipt(region: str, name: str, at: datetime, customer: str | None, currency: str) -> dict[str, Any]:
    """What all lines of a receipt have in common."""
    bought = at.astimezone(UTC)
    return {
        "region": region,
        "month": f"{bought:%Y-%m}",
        "order_id": name,
        "ordered_at": bought,
        "currency": currency,
        "customer_id": customer,
        "source": SOURCE,
    }


def _amounts(quantity: int, total: int, sign: int) -> dict[str, Any]:
    """Units and money of a line; one unit's price as paid is rounded half up."""
    each = (2 * total + quantity) // (2 * quantity)
    return {"quantity": Decimal(sign * quantity), "unit_price_cents": each, "net_cents": sign * total}


CONSENTS_AT = "consents_at"
"""The attribute that says since when consents hold that came with an order."""


def _customer(name: str, order: OrderPlaced) -> dict[str, Any]:
    at = order.placed_at.astimezone(UTC)
    return {
        "customer_id": name,
        "region": order.region,
        "consents": sorted(set(order.consents)),
        "attributes": [{"name": CONSENTS_AT, "value": f"{at:%Y-%m-%dT%H:%M:%S.%fZ}"}],
        "source": SOURCE,
    }


def _seen(event: Exposure | Activity, purposes: Collection[str]) -> dict[str, Any]:
    at = event.at.astimezone(UTC)
    willing = set(purposes) <= set(event.consents)
    return {
        "region": event.region,
        "day": at.date(),
        "event_id": event.event_id,
        "at": at,
        "session_id": event.session_id if willing else None,
    }


def _exposure(event: Exposure, purposes: Collection[str]) -> Row:
    if event.release_id is None:
        raise Refused("exposure: field release_id: is missing")
    told = {"release_id": event.release_id, "segment": event.segment, "anchor": event.anchor}
    return Row("exposures", {**_seen(event, purposes), **told, "bundle_ids": event.bundle_ids})


def _activity(event: Activity, purposes: Collection[str]) -> Row:
    """What was done with a bundle is an outcome; what was done with a product is activity."""
    seen = {**_seen(event, purposes), "kind": event.kind}
    if event.bundle_id is not None and event.kind in BUNDLE_KINDS:
        if event.release_id is None:
            raise Refused("activity: field release_id: is missing, and it names a bundle")
        told = {"release_id": event.release_id, "bundle_id": event.bundle_id, "anchor": event.anchor}
        return Row("outcomes", {**seen, **told, "offer_total_cents": event.offer_total_cents})
    product = event.sku or event.anchor
    if product is None:
        raise Refused("activity: field sku: is missing, and it names no bundle")
    return Row("activity", {**seen, "sku": product, "quantity": event.quantity})
