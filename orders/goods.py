"""Goods that come and go without an order: receipts, sales in a store, losses, counts; and the first stock of all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from edge_service.problems import wrong
from orders import outbox, stock
from orders.database import Session, connect
from orders.questions import Movement, ProductStock, StockAnswer
from orders.stock import Change, Held, Left
from tandem.errors import InputError

_FIND = """
SELECT sku, on_hand - reserved, sequence FROM stock WHERE region = %s AND sku = ANY(%s) ORDER BY sku
"""
_SEEDS = "CREATE TEMPORARY TABLE seeds (region text, sku text, on_hand bigint) ON COMMIT DROP"
_SEED = """
WITH added AS (
    INSERT INTO stock (region, sku, on_hand, sequence)
    SELECT region, sku, least(on_hand, 1000000000000), 1 FROM seeds
    WHERE length(sku) BETWEEN 1 AND 128 ORDER BY region, sku COLLATE "C" ON CONFLICT DO NOTHING
    RETURNING region, sku, on_hand
), moved AS (
    INSERT INTO stock_movements (region, sku, change, reason)
    SELECT region, sku, on_hand, 'seed' FROM added WHERE on_hand > 0
)
SELECT count(*) FROM added
"""


_ALL = """
SELECT region, sku, on_hand - reserved, sequence, changed_at FROM stock WHERE region = ANY(%s) ORDER BY region, sku
"""
TOLD_AT_ONCE = 5_000
MOST = 10**12
"""Units of one product: as many as a message and the edge's webhook can tell."""


async def move(session: Session, region: str, movements: Sequence[Movement]) -> StockAnswer:
    """Change stock, all or none. Raises a 409 problem where more goes than there is, 422 for a wrong movement."""
    for number, each in enumerate(movements):
        _right(number, each)
    skus = [each.sku for each in movements]
    if len(set(skus)) < len(skus):
        raise wrong("movements", "name a product twice")
    await stock.add(session, region, skus)
    held = await stock.lock(session, region, skus)
    changes = {each.sku: _units(each, held[each.sku]) for each in movements}
    for number, each in enumerate(movements):
        if held[each.sku].on_hand + changes[each.sku] > MOST:
            raise wrong(f"movements[{number}]", f"would make it more than {MOST:,} units")
    if lacking := {sku: -units for sku, units in changes.items() if held[sku].available + units < 0}:
        raise stock.sold_out({sku: (held[sku].available, units) for sku, units in lacking.items()})
    moved = [(each.sku, changes[each.sku], each.reason) for each in movements if changes[each.sku]]
    await stock.moved(session, region, moved)
    left = await stock.change(session, region, {sku: Change(on_hand=units) for sku, units in changes.items()})
    return StockAnswer(
        products=[ProductStock(sku=each.sku, stock=each.available, sequence=each.sequence) for each in left]
    )


async def find(session: Session, region: str, skus: Sequence[str]) -> StockAnswer:
    """The stock of products; those that were never stocked are left out."""
    rows = await (await session.execute(_FIND, [region, list(skus)])).fetchall()
    return StockAnswer(products=[ProductStock(sku=sku, stock=left, sequence=at) for sku, left, at in rows])


def seed(dsn: str, rows: Iterable[Mapping[str, object]]) -> int:
    """The first stock of products (region, sku, on_hand); those that are known keep theirs. Gives how many are new.

    A SKU that no edge could be asked for (none, or more than 128 characters) is left out.
    """
    with connect(dsn) as connection, connection.cursor() as cursor:
        cursor.execute(_SEEDS)
        with cursor.copy("COPY seeds FROM STDIN") as copy:
            for row in rows:
                copy.write_row((row["region"], row["sku"], row["on_hand"]))
        cursor.execute(_SEED)
        found = cursor.fetchone()
    if found is None:
        raise InputError("nothing was counted")
    return int(found[0])


def tell(dsn: str, regions: Sequence[str]) -> int:
    """Have the stock of every product of these regions told anew; gives how many. Whoever knows it loses nothing."""
    with connect(dsn) as connection:
        found = connection.execute(_ALL, [list(regions)]).fetchall()
        for start in range(0, len(found), TOLD_AT_ONCE):
            part = found[start : start + TOLD_AT_ONCE]
            told = [each for region, *left in part for each in stock.changed(region, [Left(*left)])]
            connection.execute(outbox.PUT, outbox.columns(told))
    return len(found)


def _right(number: int, movement: Movement) -> None:
    if (movement.change is msgspec.UNSET) == (movement.counted is msgspec.UNSET):
        raise wrong(f"movements[{number}].change", "give exactly one of change and counted")


def _units(movement: Movement, held: Held) -> int:
    if isinstance(movement.change, int):
        return movement.change
    assert isinstance(movement.counted, int)  # noqa: S101 - `_right` looked
    return movement.counted - held.available
