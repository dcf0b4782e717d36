"""The OpenAPI document: shapes come from the very types that are decoded and encoded."""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from edge_service import answers, problems, questions
from edge_service.region_payloads import Delta

_REFERENCE = "#/components/schemas/{name}"
_TYPES: tuple[Any, ...] = (
    answers.BundlesAnswer,
    answers.DeltasAnswer,
    answers.EventsAnswer,
    answers.ExplainAnswer,
    answers.HealthAnswer,
    answers.LiveAnswer,
    answers.OffersAnswer,
    answers.ReadyAnswer,
    answers.VerifyAnswer,
    problems.ProblemDetail,
    questions.OffersQuestion,
    questions.VerifyQuestion,
    questions.Heartbeat,
    questions.Event,
    Delta,
)
MEANINGS = {
    400: "The body is not JSON",
    401: "The key is missing or wrong",
    404: "No such region, bundle or product name",
    405: "Another method is for this address",
    413: "The body is too long",
    422: "A field is wrong; `errors` names it",
    503: "The region is not there yet, or its Redis can't be written to; see Retry-After",
}


def answered(shape: type, *statuses: int, status: int = 200) -> dict[int | str, dict[str, Any]]:
    """FastAPI's `responses` of a route: the answer's shape and its problems."""
    found: dict[int | str, dict[str, Any]] = {
        status: {"description": shape.__doc__ or "", "content": {"application/json": {"schema": _reference(shape)}}}
    }
    schema = {problems.MEDIA_TYPE: {"schema": _reference(problems.ProblemDetail)}}
    for each in statuses:
        found[each] = {"description": MEANINGS[each], "content": schema}
    return found


def asked(media_types: dict[str, tuple[Any, ...]], example: Any) -> dict[str, Any]:
    """FastAPI's `openapi_extra` of a route that reads its body by itself."""
    content = {media: {"schema": _schema(media, shapes), "example": example} for media, shapes in media_types.items()}
    return {"requestBody": {"required": True, "content": content}}


def _schema(media: str, shapes: tuple[Any, ...]) -> dict[str, Any]:
    one = _reference(shapes[0]) if len(shapes) == 1 else {"anyOf": [_reference(shape) for shape in shapes]}
    if media == "application/json" and len(shapes) > 1:
        return {"type": "array", "items": one}
    return {"type": "string", "description": "One JSON object a line", "x-line": one} if "ndjson" in media else one


def _reference(shape: Any) -> dict[str, str]:
    return {"$ref": _REFERENCE.format(name=shape.__name__)}


def install(app: FastAPI) -> None:
    """Make `/openapi.json` hold the shapes that the routes refer to."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            made = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
            _, components = msgspec.json.schema_components(_TYPES, ref_template=_REFERENCE)
            schemas = made.setdefault("components", {}).setdefault("schemas", {})
            schemas.update(components)
            app.openapi_schema = made
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]
