"""Goods held for a shopper who pays elsewhere: off the shelf until they are bought, let go or time runs out."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from edge_service.problems import Problem
from orders import stock
from orders.database import Session
from orders.stock import Change

_ADD = "INSERT INTO reservations (reservation_id, region, expires_at) VALUES (%s, %s, %s)"
_ADD_LINES = """
INSERT INTO reservation_lines (reservation_id, region, sku, quantity)
SELECT %s, %s, sku, quantity FROM unnest(%s::text[], %s::bigint[]) AS held (sku, quantity)
"""
_LOCK = "SELECT 1 FROM reservations WHERE reservation_id = %s AND region = %s AND expires_at > now() FOR UPDATE"
_LOCK_EXPIRED = """
SELECT reservation_id, region FROM reservations WHERE expires_at <= now()
ORDER BY expires_at LIMIT 1 FOR UPDATE SKIP LOCKED
"""
_LINES = "SELECT sku, quantity FROM reservation_lines WHERE reservation_id = %s"
_END = "DELETE FROM reservations WHERE reservation_id = %s"


async def add(session: Session, region: str, units: Mapping[str, int], expires_at: datetime) -> UUID:
    """Note down what is held; its stock is reserved by whoever calls."""
    made = uuid4()
    await session.execute(_ADD, [made, region, expires_at])
    await session.execute(_ADD_LINES, [made, region, list(units), list(units.values())])
    return made


async def take(session: Session, region: str, reservation_id: UUID) -> dict[str, int]:
    """What is held, which from now on is the caller's. Raises a 409 problem where it is no longer."""
    if await (await session.execute(_LOCK, [reservation_id, region])).fetchone() is None:
        raise Problem(409, "reservation_id: has expired, or was used or let go", kind="reservation-gone")
    return await _ended(session, reservation_id)


async def let_go(session: Session, region: str, reservation_id: UUID) -> None:
    """Put held goods back. Raises as `take`."""
    await _put_back(session, region, await take(session, region, reservation_id))


async def expire_one(session: Session) -> bool:
    """Put back the goods of one reservation whose time has run out; False: there is none."""
    found: Any = await (await session.execute(_LOCK_EXPIRED)).fetchone()
    if found is None:
        return False
    await _put_back(session, found[1], await _ended(session, found[0]))
    return True


async def _ended(session: Session, reservation_id: UUID) -> dict[str, int]:
    found = await (await session.execute(_LINES, [reservation_id])).fetchall()
    await session.execute(_END, [reservation_id])
    return {str(sku): int(quantity) for sku, quantity in found}


async def _put_back(session: Session, region: str, units: Mapping[str, int]) -> None:
    await stock.lock(session, region, units)
    await stock.change(session, region, {sku: Change(reserved=-held) for sku, held in units.items()})
