"""What a storefront and its checkout ask: bundles, offers, live state, quotes, reasons."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from edge_service import answers, problems, questions
from edge_service.bundle_answers import Question
from edge_service.checkout import verified
from edge_service.edge import (
    ConsentsQuery,
    LimitQuery,
    SegmentQuery,
    Served,
    Shared,
    ages_now,
    as_json,
    header,
    needs,
)
from edge_service.explain import explain
from edge_service.openapi import answered, asked
from edge_service.questions import MAX_SKUS
from edge_service.replies import response
from tandem.offer import Live
from tandem.quote import QuoteFault

router = APIRouter(prefix="/v1/{region}", tags=["bundles"])


@router.get(
    "/bundles/{id}/explain",
    dependencies=[needs("read")],
    summary="Why this bundle, at this price",
    responses=answered(answers.ExplainAnswer, 404, 422, 503),
    response_class=Response,
)
async def get_explain(
    served: Served,
    id: str,  # noqa: A002 - the name of the path parameter
    segment: SegmentQuery = "*",
    anchor: Annotated[str | None, Query(min_length=1, max_length=128)] = None,
    consents: ConsentsQuery = [],  # noqa: B006 - FastAPI copies it
) -> Response:
    """Evidence, level, components, and what became of the planned discount; `text` says it for a person."""
    used = served.segment(segment, questions.split(consents))
    return as_json(explain(served.moment(), id, segment=used, anchor=anchor))


@router.get(
    "/bundles/{sku:path}",
    dependencies=[needs("read")],
    summary="Bundles for a product",
    responses=answered(answers.BundlesAnswer, 404, 422, 503)
    | {304: {"description": "Nothing that matters has changed since the answer with this ETag"}},
    response_class=Response,
)
async def get_bundles(
    edge: Shared,
    served: Served,
    request: Request,
    sku: str,
    segment: SegmentQuery = "*",
    limit: LimitQuery = questions.DEFAULT_LIMIT,
    consents: ConsentsQuery = [],  # noqa: B006
) -> Response:
    """Ranked bundles priced against live stock and prices. A product without bundles gives an empty list."""
    used = served.segment(segment, questions.split(consents))
    question = Question(sku, used, limit)
    reply = edge.bundles(served, question, lambda: question, header(request.scope, b"if-none-match"))
    assert reply is not None  # noqa: S101 - there is a question
    return response(reply)


@router.post(
    "/offers",
    dependencies=[needs("read")],
    summary="Bundles for several products or a cart",
    responses=answered(answers.OffersAnswer, 400, 404, 413, 422, 503),
    openapi_extra=asked(
        {"application/json": (questions.OffersQuestion,)},
        {"cart": [{"sku": "1029743", "quantity": 1}], "segment": "families", "limit": 6, "exclude": []},
    ),
    response_class=Response,
)
async def post_offers(edge: Shared, served: Served, request: Request) -> Response:
    """The lists of all anchors as one; availability is net of the cart, and what it holds whole is left out."""
    return response(edge.offers(served, await edge.bodies.read(request.scope, request.receive)))


@router.get(
    "/live",
    dependencies=[needs("read")],
    summary="Live stock and prices",
    responses=answered(answers.LiveAnswer, 404, 422),
    response_class=Response,
)
async def get_live(
    served: Served, skus: Annotated[list[str], Query(description="Comma-separated or repeated")]
) -> Response:
    """What is known right now; null where nothing ever was, and for prices that have expired."""
    names = list(dict.fromkeys(questions.split(skus)))
    if not 1 <= len(names) <= MAX_SKUS:
        raise problems.wrong("skus", f"name 1 to {MAX_SKUS} products, not {len(names)}")
    shown = served.freshness().prices
    products = [_live_product(questions.check_sku(sku), served.live.products.get(sku), shown) for sku in names]
    return as_json(answers.LiveAnswer(**ages_now(served), currency=served.region.currency, products=products))


def _live_product(sku: str, live: Live | None, priced: bool) -> answers.LiveProduct:
    if live is None or not priced:
        return answers.LiveProduct(sku, None if live is None else live.stock, None, None, None)
    return answers.LiveProduct(sku, live.stock, live.list_price, live.sale_price, live.unit_price)


@router.post(
    "/quotes/verify",
    dependencies=[needs("verify")],
    summary="May checkout honour this quote?",
    responses=answered(answers.VerifyAnswer, 400, 404, 413, 422, 503),
    openapi_extra=asked({"application/json": (questions.VerifyQuestion,)}, {"token": "WyJrMSIs….c2ln…"}),
    response_class=Response,
)
async def post_verify(edge: Shared, served: Served, request: Request) -> Response:
    """Valid, with what may be charged; or not, with the fault."""
    question = questions.decode(await edge.bodies.read(request.scope, request.receive), questions.VerifyQuestion)
    fault, quote = None, None
    try:
        signed = await verified(question, edge.signer, served.reader, edge.clock())
    except QuoteFault as error:
        fault = error.fault
    else:
        quote = answers.VerifiedQuote(
            bundle_id=signed.bundle_id,
            segment=signed.segment,
            release=signed.release,
            currency=signed.currency,
            offer_total=signed.offer_total,
            components=[
                answers.QuotedPart(c.sku, c.quantity, c.offer_price, c.return_values) for c in signed.components
            ],
            expires_at=answers.rfc3339(signed.expires_at * 1000) or "",
        )
    return as_json(answers.VerifyAnswer(**ages_now(served), valid=fault is None, fault=fault, quote=quote))
