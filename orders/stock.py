"""What is left: stock is changed under the locks of its rows, which are always taken in the order of the SKUs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from edge_service.problems import FieldError, Problem
from orders import outbox
from orders.database import Session
from streams.messages import StockChanged


class Held(NamedTuple):
    """A row of stock that is locked."""

    on_hand: int
    reserved: int

    @property
    def available(self) -> int:
        return self.on_hand - self.reserved


class Change(NamedTuple):
    """Units more (or less) of both."""

    on_hand: int = 0
    reserved: int = 0


class Left(NamedTuple):
    """What can be sold after a change."""

    sku: str
    available: int
    sequence: int
    at: datetime


_LOCK = """
SELECT sku, on_hand, reserved FROM stock WHERE region = %s AND sku = ANY(%s) ORDER BY sku FOR UPDATE
"""
_LOCK_ENOUGH = """
SELECT stock.sku FROM stock
JOIN unnest(%s::text[], %s::bigint[]) AS wanted (sku, units) ON stock.sku = wanted.sku
WHERE stock.region = %s AND stock.on_hand - stock.reserved >= wanted.units
ORDER BY stock.sku FOR UPDATE OF stock
"""
"""Who comes too late finds nothing to lock, and waits for nobody."""
_LEFT = "SELECT sku, on_hand - reserved FROM stock WHERE region = %s AND sku = ANY(%s)"
_CHANGE = """
UPDATE stock
SET on_hand = stock.on_hand + change.on_hand, reserved = stock.reserved + change.reserved,
    changed_at = clock_timestamp(),
    sequence = greatest(stock.sequence + 1, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint)
FROM unnest(%s::text[], %s::bigint[], %s::bigint[]) AS change (sku, on_hand, reserved)
WHERE stock.region = %s AND stock.sku = change.sku
RETURNING stock.sku, stock.on_hand - stock.reserved, stock.sequence, stock.changed_at
"""
_ADD = """
INSERT INTO stock (region, sku, on_hand, sequence)
SELECT %s, sku, 0, 0 FROM unnest(%s::text[]) AS sku ORDER BY sku ON CONFLICT DO NOTHING
"""
_MOVED = """
INSERT INTO stock_movements (region, sku, change, reason)
SELECT %s, sku, change, reason FROM unnest(%s::text[], %s::bigint[], %s::text[]) AS moved (sku, change, reason)
"""


async def lock(session: Session, region: str, skus: Iterable[str]) -> dict[str, Held]:
    """The stock of these products, nobody else's to change until the transaction ends; without those never stocked."""
    found = await session.execute(_LOCK, [region, sorted(set(skus))])
    return {sku: Held(on_hand, reserved) for sku, on_hand, reserved in await found.fetchall()}


async def lock_enough(session: Session, region: str, wanted: Mapping[str, int]) -> None:
    """As `lock`. Raises a 409 problem that names every product of which less can be sold than is wanted."""
    found = await session.execute(_LOCK_ENOUGH, [list(wanted), list(wanted.values()), region])
    locked = {sku for (sku,) in await found.fetchall()}
    if lacking := [sku for sku in wanted if sku not in locked]:
        rows = await (await session.execute(_LEFT, [region, lacking])).fetchall()
        left = {str(sku): int(units) for sku, units in rows}
        raise sold_out({sku: (left.get(sku, 0), wanted[sku]) for sku in lacking})


async def change(session: Session, region: str, changes: Mapping[str, Change]) -> list[Left]:
    """Change locked stock, and have it told."""
    left = await apply(session, region, changes)
    await outbox.put(session, changed(region, left))
    return left


async def apply(session: Session, region: str, changes: Mapping[str, Change]) -> list[Left]:
    """Change locked stock; it is for the caller to have it told."""
    skus = sorted(changes)
    columns = [skus, [changes[sku].on_hand for sku in skus], [changes[sku].reserved for sku in skus]]
    found = await session.execute(_CHANGE, [*columns, region])
    return [Left(*row) for row in await found.fetchall()]


def changed(region: str, left: Iterable[Left]) -> list[StockChanged]:
    """What is told of changes."""
    return [
        StockChanged(region=region, sku=each.sku, stock=each.available, sequence=each.sequence, at=each.at)
        for each in left
    ]


async def add(session: Session, region: str, skus: Iterable[str]) -> None:
    """Rows for products that were never stocked here."""
    await session.execute(_ADD, [region, sorted(set(skus))])


async def moved(session: Session, region: str, moves: Sequence[tuple[str, int, str]]) -> None:
    """Note down changes that are no order: SKU, units, reason."""
    columns = [list(column) for column in zip(*moves, strict=True)]
    if columns:
        await session.execute(_MOVED, [region, *columns])


def sold_out(lacking: Mapping[str, tuple[int, int]]) -> Problem:
    """The problem of products of which less is left (the first number) than is wanted (the second)."""
    errors = [FieldError(sku, f"{left} left, {wanted} wanted") for sku, (left, wanted) in lacking.items()]
    named = "; ".join(f"{each.field}: {each.detail}" for each in errors)
    return Problem(409, f"sold out: {named}", *errors, kind="sold-out")
