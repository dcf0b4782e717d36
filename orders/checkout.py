"""Selling: stock, order, used quotes and what is told of them change together or not at all."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import UUID, uuid4

from psycopg import AsyncCursor

from edge_service.problems import Problem
from orders import basket as baskets
from orders import outbox, reservations, stock
from orders.basket import Basket
from orders.database import Session
from orders.questions import CheckoutQuestion, OrderAnswer, SoldLine
from orders.stock import Change
from streams import messages
from tandem.regions import Region

_ORDER = """
INSERT INTO orders (order_id, region, currency, total, customer_id, session_id, consents, placed_at)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s)
"""
_LINES = """
INSERT INTO order_lines (order_id, region, line, sku, quantity, offer_total, bundle_id, quote_id, release)
SELECT %s, %s, line, sku, quantity, offer_total, bundle_id, quote_id, release
FROM unnest(%s::text[], %s::bigint[], %s::bigint[], %s::text[], %s::text[], %s::text[])
    WITH ORDINALITY AS sold (sku, quantity, offer_total, bundle_id, quote_id, release, line)
"""
_USED = """
INSERT INTO used_quotes (nonce, order_id, expires_at)
SELECT nonce, %s, to_timestamp(expires_at) FROM unnest(%s::text[], %s::bigint[]) AS used (nonce, expires_at)
ORDER BY nonce ON CONFLICT DO NOTHING
"""


class Buyer(NamedTuple):
    """Who buys, as far as it may be kept."""

    customer_id: str | None
    session_id: str | None
    consents: list[str]


def buyer_of(question: CheckoutQuestion, region: Region) -> Buyer:
    """The session is kept only with the consents that the region asks for."""
    consented = set(region.consent_purposes) <= set(question.consents)
    return Buyer(question.customer_id, question.session_id if consented else None, question.consents)


async def place(
    session: Session, region: str, basket: Basket, buyer: Buyer, reservation_id: UUID | None = None
) -> OrderAnswer:
    """Sell the basket. Raises a 409 problem where a product is sold out, or a quote used."""
    mine = await reservations.take(session, region, reservation_id) if reservation_id else {}
    needed = basket.units
    wanted = {sku: needed[sku] - mine.get(sku, 0) for sku in {*needed, *mine}}
    await stock.lock_enough(session, region, wanted)
    changes = {sku: Change(-needed[sku], -mine.get(sku, 0)) for sku in wanted}
    left = await stock.apply(session, region, changes)
    order = _answer(region, basket)
    async with session.pipeline():  # one way to the server and back: others wait for these rows
        used = await _write(session, order, basket, buyer)
        await outbox.put(session, [*stock.changed(region, left), _placed(order, basket, buyer)])
    if used.rowcount < len(basket.once):
        raise await _used_before(session, order, basket)
    return order


async def reserve(session: Session, region: str, basket: Basket, expires_at: datetime) -> UUID:
    """Hold the basket's goods. Raises a 409 problem where a product is sold out."""
    needed = basket.units
    await stock.lock_enough(session, region, needed)
    await stock.change(session, region, {sku: Change(reserved=units) for sku, units in needed.items()})
    return await reservations.add(session, region, needed, expires_at)


def _answer(region: str, basket: Basket) -> OrderAnswer:
    lines = [
        SoldLine(
            line=number, sku=line.sku, quantity=line.quantity, offer_total=line.offer_total, bundle_id=line.bundle_id
        )
        for number, line in enumerate(basket.lines, 1)
    ]
    return OrderAnswer(
        order_id=uuid4(),
        region=region,
        currency=basket.currency,
        total=basket.total,
        placed_at=datetime.now(UTC),
        lines=lines,
    )


async def _write(session: Session, order: OrderAnswer, basket: Basket, buyer: Buyer) -> AsyncCursor[Any]:
    """Order, lines and used quotes; gives the last of them, which wrote less where a quote was used before."""
    facts = [order.order_id, order.region, order.currency, order.total]
    await session.execute(_ORDER, [*facts, *buyer, order.placed_at])
    columns = [list(column) for column in zip(*basket.lines, strict=True)]
    await session.execute(_LINES, [order.order_id, order.region, *columns])
    nonces, expiries = [nonce for nonce, _ in basket.once], [expires_at for _, expires_at in basket.once]
    return await session.execute(_USED, [order.order_id, nonces, expiries])


async def _used_before(session: Session, order: OrderAnswer, basket: Basket) -> Problem:
    """The problem that names the first quote that another order has used."""
    asked = "SELECT nonce FROM used_quotes WHERE nonce = ANY(%s) AND order_id <> %s"
    found = await session.execute(asked, [[nonce for nonce, _ in basket.once], order.order_id])
    gone = {nonce for (nonce,) in await found.fetchall()}
    numbers = dict.fromkeys(line.quote_id for line in basket.lines)
    return baskets.refused(next(at for at, quote_id in enumerate(numbers) if quote_id in gone), "used")


def _placed(order: OrderAnswer, basket: Basket, buyer: Buyer) -> messages.OrderPlaced:
    lines = [
        messages.SoldLine(
            sku=line.sku,
            quantity=line.quantity,
            offer_total=line.offer_total,
            bundle_id=line.bundle_id,
            quote_id=line.quote_id,
            release=line.release,
        )
        for line in basket.lines
    ]
    return messages.OrderPlaced(
        order_id=str(order.order_id),
        region=order.region,
        customer_id=buyer.customer_id,
        session_id=buyer.session_id,
        consents=buyer.consents,
        currency=order.currency,
        placed_at=order.placed_at,
        lines=lines,
    )
