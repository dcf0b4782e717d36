"""Taking goods back: each unit gives back what the quote allocated to it, and never more than was paid."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple
from uuid import UUID, uuid4

from edge_service.problems import FieldError, Problem, wrong
from orders import outbox, stock
from orders.database import Session
from orders.questions import OrderAnswer, RefundedLine, ReturnAnswer, ReturnedUnits, SoldLine
from orders.stock import Change
from streams import messages
from tandem.quote import QuotedComponent

_ORDER = "SELECT currency, total, placed_at FROM orders WHERE order_id = %s AND region = %s"
_LINES = """
SELECT line, sku, quantity, offer_total, bundle_id, returned, refunded
FROM order_lines WHERE order_id = %s ORDER BY line
"""
_RETURN = "INSERT INTO returns (return_id, order_id, at, refunded) VALUES (%s, %s, %s, %s)"
_RETURN_LINES = """
WITH back AS (
    INSERT INTO return_lines (return_id, order_id, line, quantity, refunded, restocked)
    SELECT %s, %s, line, quantity, refunded, restocked
    FROM unnest(%s::integer[], %s::bigint[], %s::bigint[], %s::boolean[]) AS back (line, quantity, refunded, restocked)
    RETURNING order_id, line, quantity, refunded
)
UPDATE order_lines SET returned = returned + back.quantity, refunded = order_lines.refunded + back.refunded
FROM back WHERE order_lines.order_id = back.order_id AND order_lines.line = back.line
"""


class Back(NamedTuple):
    """Units of one line that come back."""

    sold: SoldLine
    units: ReturnedUnits

    @property
    def refunded(self) -> int:
        """The worth of the units after those that came back before, minor units."""
        part = QuotedComponent(self.sold.sku, self.sold.quantity, self.sold.offer_total)
        return sum(part.return_values[self.sold.returned : self.sold.returned + self.units.quantity])


async def find(session: Session, region: str, order_id: UUID, *, lock: bool = False) -> OrderAnswer:
    """The order. Raises a 404 problem."""
    found = await (await session.execute(_ORDER + " FOR UPDATE" * lock, [order_id, region])).fetchone()
    if found is None:
        raise wrong("order_id", f"there is no order {order_id} in {region}", 404)
    currency, total, placed_at = found
    rows = await (await session.execute(_LINES, [order_id])).fetchall()
    names = SoldLine.__struct_fields__
    lines = [SoldLine(**dict(zip(names, row, strict=True))) for row in rows]
    return OrderAnswer(
        order_id=order_id, region=region, currency=currency, total=total, placed_at=placed_at, lines=lines
    )


async def take_back(session: Session, region: str, order_id: UUID, asked: Sequence[ReturnedUnits]) -> ReturnAnswer:
    """Take units back. Raises a 404, 409 or 422 problem; one that more comes back than was bought is a 409."""
    order = await find(session, region, order_id, lock=True)
    back = _back(order, asked)
    answer, at = _answer(order, back), datetime.now(UTC)
    await _write(session, answer, back, at)
    await _restock(session, region, back)
    await outbox.put(session, [_told(answer, region, at)])
    return answer


def _back(order: OrderAnswer, asked: Sequence[ReturnedUnits]) -> list[Back]:
    sold = {line.line: line for line in order.lines}
    if len({units.line for units in asked}) < len(asked):
        raise wrong("lines", "name a line twice")
    found = []
    for number, units in enumerate(asked):
        line = sold.get(units.line)
        if line is None:
            raise wrong(f"lines[{number}].line", f"the order has lines 1 to {len(sold)}, not {units.line}")
        if units.quantity > line.quantity - line.returned:
            detail = f"{line.quantity} were bought and {line.returned} came back already, not {units.quantity} more"
            field = FieldError(f"lines[{number}].quantity", detail)
            raise Problem(409, f"{line.sku}: {detail}", field, kind="returned-already")
        found.append(Back(line, units))
    return found


def _answer(order: OrderAnswer, back: Sequence[Back]) -> ReturnAnswer:
    lines = [
        RefundedLine(line=each.sold.line, sku=each.sold.sku, quantity=each.units.quantity, refunded=each.refunded)
        for each in back
    ]
    return ReturnAnswer(
        return_id=uuid4(),
        order_id=order.order_id,
        currency=order.currency,
        refunded=sum(line.refunded for line in lines),
        lines=lines,
    )


async def _write(session: Session, answer: ReturnAnswer, back: Sequence[Back], at: datetime) -> None:
    await session.execute(_RETURN, [answer.return_id, answer.order_id, at, answer.refunded])
    columns = [
        [line.line for line in answer.lines],
        [line.quantity for line in answer.lines],
        [line.refunded for line in answer.lines],
        [each.units.restock for each in back],
    ]
    await session.execute(_RETURN_LINES, [answer.return_id, answer.order_id, *columns])


async def _restock(session: Session, region: str, back: Sequence[Back]) -> None:
    units: dict[str, int] = {}
    for each in back:
        if each.units.restock:
            units[each.sold.sku] = units.get(each.sold.sku, 0) + each.units.quantity
    if units:
        await stock.lock(session, region, units)
        await stock.change(session, region, {sku: Change(on_hand=more) for sku, more in units.items()})


def _told(answer: ReturnAnswer, region: str, at: datetime) -> messages.OrderReturned:
    return messages.OrderReturned(
        return_id=str(answer.return_id),
        order_id=str(answer.order_id),
        region=region,
        at=at,
        lines=[
            messages.ReturnedLine(sku=line.sku, quantity=line.quantity, refunded=line.refunded) for line in answer.lines
        ],
    )
