"""What flows in: changes of stock and prices, and what shoppers were shown and did."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from fastapi import APIRouter, Request
from starlette.responses import Response

from edge_service import answers, questions
from edge_service.edge import Served, Shared, as_json, encode, needs
from edge_service.openapi import answered, asked
from edge_service.region_payloads import Delta, delta_arguments, heartbeat_arguments
from edge_service.region_store import BATCH_DELTAS, batches

NDJSON = "application/x-ndjson"
EVENTS = (questions.Exposure, questions.Click, questions.Cart, questions.Purchase)
EXAMPLE = {
    "kind": "click",
    "event_id": "e1",
    "at": "2026-01-05T12:00:00Z",
    "release": "20260105-0123456789ab",
    "bundle_id": "0123456789abcdef",
    "anchor": "1029743",
}

router = APIRouter(prefix="/v1/{region}", tags=["feeds"])


@router.post(
    "/events",
    dependencies=[needs("read")],
    summary="Tell what was shown, clicked, put in the cart, bought",
    status_code=202,
    responses=answered(answers.EventsAnswer, 400, 404, 413, 422, 503, status=202),
    openapi_extra=asked({"application/json": EVENTS, NDJSON: EVENTS}, [EXAMPLE]),
    response_class=Response,
)
async def post_events(edge: Shared, served: Served, request: Request) -> Response:
    """A JSON array, or one object a line. All or none are taken. An event told twice counts once."""
    found = questions.events(await edge.bodies.read(request.scope, request.receive), edge.clock())
    asked_for = set(served.region.consent_purposes)
    kept = [_stored(event, served.region.name, keep_session=asked_for <= set(event.consents)) for event in found]
    dropped = sum(event.session_id is not None and not asked_for <= set(event.consents) for event in found)
    await served.reader.append_events(kept)
    return as_json(answers.EventsAnswer(len(kept), dropped), 202)


def _stored(event: questions.Event, region: str, *, keep_session: bool) -> bytes:
    """As the tables `exposures` and `outcomes` name it; consents are used here and not kept."""
    told = msgspec.to_builtins(event)
    told["release_id"] = told.pop("release")
    told.pop("consents")
    if not keep_session:
        told["session_id"] = None
    if "offer_total" in told:
        told["offer_total_cents"] = told.pop("offer_total")
    return encode({"region": region, **told})


@router.post(
    "/deltas",
    summary="Tell changes of stock and prices",
    dependencies=[needs("deltas")],
    responses=answered(answers.DeltasAnswer, 400, 404, 413, 422, 503),
    openapi_extra=asked(
        {NDJSON: (Delta, questions.Heartbeat)},
        '{"sku":"1029743","stock":12,"sequence":7,"at":"2026-01-05T12:00:00Z"}\n{"at":"2026-01-05T12:00:01Z"}\n',
    ),
    response_class=Response,
)
async def post_deltas(edge: Shared, served: Served, request: Request) -> Response:
    """One change a line, or `{"at": …}`: nothing changed up to then. Safe to send again; all or none are checked."""
    found = questions.deltas(await edge.bodies.read(request.scope, request.receive), edge.clock())
    changes = [entry for entry in found if isinstance(entry, Delta)]
    beats = [entry for entry in found if isinstance(entry, questions.Heartbeat)]
    applied = 0
    for batch in batches(changes, BATCH_DELTAS):
        applied += await served.reader.apply(delta_arguments(batch))
    if beats:
        await served.reader.apply(_beat(beats, edge.clock()))
    answer = answers.DeltasAnswer(applied, len(changes) - applied, len(beats))
    for outcome, number in msgspec.structs.asdict(answer).items():
        edge.metrics.deltas[served.region.name, outcome] += number
    return as_json(answer)


def _beat(beats: Sequence[questions.Heartbeat], now: float) -> list[str | bytes | int]:
    newest = max(now if beat.at is None else beat.at.timestamp() for beat in beats)
    return heartbeat_arguments(int(newest * 1000))
