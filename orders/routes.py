"""The routes of the orders' service: checkout, reservations, orders, returns, stock."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, TypeVar
from uuid import UUID

import msgspec
from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from edge_service.openapi import answered, problem
from edge_service.problems import wrong
from edge_service.questions import MAX_SKUS, check_sku, decode, split
from orders import basket, checkout, goods, reservations, returns
from orders.database import Session
from orders.desk import Desk
from orders.once import Asked, encode, once
from orders.openapi import KEY, LONGEST_KEY, asked_once
from orders.questions import (
    CheckoutQuestion,
    OrderAnswer,
    ReservationAnswer,
    ReserveQuestion,
    ReturnAnswer,
    ReturnQuestion,
    StockAnswer,
    StockQuestion,
)
from tandem.clients import Scope
from tandem.regions import Region

TAKEN = {"quotes": ["WyJrMSIs….LLYE…"]}
Question = TypeVar("Question", bound=msgspec.Struct)
router = APIRouter(prefix="/v1/{region}")


def _desk(request: Request) -> Desk:
    return request.app.state.desk  # type: ignore[no-any-return]


def _region(request: Request, region: str) -> Region:
    return _desk(request).region(region)


def needs(scope: Scope) -> Any:
    """A dependency of routes that only clients with this scope may ask."""

    async def checked(request: Request) -> None:
        _desk(request).keyring.check(request.scope, scope)

    checked.needs = scope  # type: ignore[attr-defined]  # the OpenAPI document tells it
    return Depends(checked)


Shared = Annotated[Desk, Depends(_desk)]
Served = Annotated[Region, Depends(_region)]


@router.post(
    "/checkout",
    dependencies=[needs("checkout")],
    summary="Buy what quotes offer",
    responses=answered(OrderAnswer, 400, 404, 409, 413, 422, 503, status=201),
    openapi_extra=asked_once(CheckoutQuestion, TAKEN),
    response_class=Response,
    status_code=201,
)
async def post_checkout(desk: Shared, region: Served, request: Request) -> Response:
    """Buy what quotes offer. The same Idempotency-Key with the same body gives the same order, however often."""

    async def do(session: Session, question: CheckoutQuestion) -> OrderAnswer:
        found = basket.of(question.quotes, desk.signer, region.name, desk.clock())
        buyer = checkout.buyer_of(question, region)
        return await checkout.place(session, region.name, found, buyer, question.reservation_id)

    return await _done(desk, request, CheckoutQuestion, do, 201)


@router.post(
    "/reservations",
    dependencies=[needs("checkout")],
    summary="Hold what quotes offer for a while",
    responses=answered(ReservationAnswer, 400, 404, 409, 413, 422, 503, status=201),
    openapi_extra=asked_once(ReserveQuestion, TAKEN),
    response_class=Response,
    status_code=201,
)
async def post_reservation(desk: Shared, region: Served, request: Request) -> Response:
    """Hold what quotes offer for a while, for a shopper who pays elsewhere."""

    async def do(session: Session, question: ReserveQuestion) -> ReservationAnswer:
        found = basket.of(question.quotes, desk.signer, region.name, desk.clock())
        until = datetime.now(UTC) + timedelta(seconds=desk.settings.reservation_seconds)
        made = await checkout.reserve(session, region.name, found, until)
        return ReservationAnswer(reservation_id=made, expires_at=until)

    return await _done(desk, request, ReserveQuestion, do, 201)


@router.delete(
    "/reservations/{reservation_id}",
    dependencies=[needs("checkout")],
    summary="Let held goods go",
    responses={each: problem(each) for each in (404, 409, 422, 503)},
    response_class=Response,
    status_code=204,
)
async def delete_reservation(desk: Shared, region: Served, reservation_id: UUID) -> Response:
    """Let held goods go."""
    async with desk.pool.connection() as session, session.transaction():
        await reservations.let_go(session, region.name, reservation_id)
    return Response(status_code=204)


@router.get(
    "/orders/{order_id}",
    dependencies=[needs("orders")],
    summary="An order, and what came back of it",
    responses=answered(OrderAnswer, 404, 422, 503),
    response_class=Response,
)
async def get_order(desk: Shared, region: Served, order_id: UUID) -> Response:
    """An order, and what came back of it."""
    async with desk.pool.connection() as session:
        return _json(encode(await returns.find(session, region.name, order_id)))


@router.post(
    "/orders/{order_id}/returns",
    dependencies=[needs("orders")],
    summary="Take units back, and say what is paid back",
    responses=answered(ReturnAnswer, 400, 404, 409, 413, 422, 503, status=201),
    openapi_extra=asked_once(ReturnQuestion, {"lines": [{"line": 1, "quantity": 1}]}),
    response_class=Response,
    status_code=201,
)
async def post_return(desk: Shared, region: Served, order_id: UUID, request: Request) -> Response:
    """Take units back, and say what is paid back."""

    async def do(session: Session, question: ReturnQuestion) -> ReturnAnswer:
        return await returns.take_back(session, region.name, order_id, question.lines)

    return await _done(desk, request, ReturnQuestion, do, 201)


@router.post(
    "/stock",
    dependencies=[needs("deltas")],
    summary="Goods that came or went without an order",
    responses=answered(StockAnswer, 400, 404, 409, 413, 422, 503),
    openapi_extra=asked_once(StockQuestion, {"movements": [{"sku": "1029743", "change": 50}]}),
    response_class=Response,
)
async def post_stock(desk: Shared, region: Served, request: Request) -> Response:
    """Goods that came or went without an order."""

    async def do(session: Session, question: StockQuestion) -> StockAnswer:
        return await goods.move(session, region.name, question.movements)

    return await _done(desk, request, StockQuestion, do)


@router.get(
    "/stock",
    dependencies=[needs("deltas")],
    summary="Stock as it is now",
    responses=answered(StockAnswer, 404, 422, 503),
    response_class=Response,
)
async def get_stock(desk: Shared, region: Served, skus: Annotated[list[str], Query(min_length=1)]) -> Response:
    """Stock as it is now; products that were never stocked are left out."""
    named = [check_sku(sku) for sku in split(skus)]
    if len(named) > MAX_SKUS:
        raise wrong("skus", f"names {len(named)} products; ask for {MAX_SKUS} at most")
    async with desk.pool.connection() as session:
        return _json(encode(await goods.find(session, region.name, named)))


async def _done(
    desk: Desk,
    request: Request,
    kind: type[Question],
    do: Callable[[Session, Question], Awaitable[msgspec.Struct]],
    status: int = 200,
) -> Response:
    """What `do` answers to the request's body, done once however often it is sent."""
    asked = await _asked(desk, request)
    question = decode(asked.body, kind)
    return _json(await once(desk.pool, asked, lambda session: do(session, question)), status)


async def _asked(desk: Desk, request: Request) -> Asked:
    """The body, with the key that tells whether it came before. Raises a 400 problem without a key."""
    key = request.headers.get(KEY, "").strip()
    if not 1 <= len(key) <= LONGEST_KEY:
        raise wrong(KEY, f"a header of 1 to {LONGEST_KEY} characters is needed, such as a UUID", 400)
    return Asked(request.url.path, key, await desk.bodies.read(request.scope, request.receive))


def _json(body: bytes, status: int = 200) -> Response:
    return Response(body, status, {"Cache-Control": "no-store"}, "application/json")


def health(ready: bool) -> Response:
    return _json(msgspec.json.encode({"ready": ready}), 200 if ready else 503)
