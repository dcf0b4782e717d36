"""What machines ask of a process: does it run, may it take requests, how is it."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from edge_service import answers
from edge_service.edge import Shared, as_json, needs
from edge_service.openapi import answered

router = APIRouter(tags=["operate"])


@router.get("/healthz", summary="The process runs", responses=answered(answers.HealthAnswer))
async def get_health() -> Response:
    return as_json(answers.HealthAnswer())


@router.get(
    "/readyz",
    summary="Every region has a release and live state",
    responses=answered(answers.ReadyAnswer)
    | {
        503: {
            "description": "Not yet: `missing` says what; or not any more: it is `leaving`",
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ReadyAnswer"}}},
        }
    },
    response_class=Response,
)
async def get_ready(edge: Shared) -> Response:
    missing = {name: served.missing for name, served in edge.served.items() if served.missing}
    ready = not missing and not edge.leaving
    return as_json(answers.ReadyAnswer(ready, missing, edge.leaving), 200 if ready else 503)


@router.get(
    "/metrics",
    summary="Prometheus metrics of this process",
    dependencies=[needs("admin")],
    responses={200: {"description": "Text", "content": {"text/plain": {"schema": {"type": "string"}}}}},
    response_class=Response,
)
async def get_metrics(edge: Shared) -> Response:
    return Response(edge.metrics.text(), 200, {"Cache-Control": "no-store"}, "text/plain; version=0.0.4")
