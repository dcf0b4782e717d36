"""The OpenAPI document: shapes come from the very types that are decoded and encoded."""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

from edge_service import answers, problems, questions
from edge_service.region_payloads import Delta
from tandem.clients import NEVER_OPEN

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
    401: "A key is needed, and missing or wrong",
    403: "The key is for something else",
    404: "No such region, bundle or product name",
    408: "The body did not come in time",
    409: "It can't be done as things are: sold out, a quote that does not hold, more back than was bought; see `type`",
    413: "The body is too long",
    422: "A field is wrong; `errors` names it",
    429: "Too many requests of this client or address; see Retry-After",
    503: "Too many requests for this process, or the region is not there yet, or its Redis can't be written to; see "
    "Retry-After",
}
EXAMPLES = {
    400: problems.wrong("body", "is not JSON (Input data was truncated)", 400),
    401: problems.Problem(401, "a key with the scope deltas is needed: …", kind="key"),
    403: problems.Problem(403, "this key is not for deltas; its scopes are read", kind="scope"),
    404: problems.wrong("region", "no region 'atlantis' is served here; served are east, west", 404),
    408: problems.Problem(408, "the body did not come within 10 seconds; send it again", kind="slow"),
    409: problems.Problem(409, "sold out: 1029743: 0 left, 1 wanted", kind="sold-out"),
    413: problems.wrong("body", "is longer than 1048576 bytes; send it in parts", 413),
    422: problems.wrong("limit", "Input should be less than or equal to 50"),
    429: problems.Problem(429, "too many requests; wait 2 s", kind="rate"),
    503: problems.unavailable("too many requests at once; send it again"),
}
SECONDS = {"description": "Seconds to wait", "schema": {"type": "integer", "minimum": 1}, "example": 1}
LIMITS = {
    "RateLimit-Policy": {
        "description": "A limit: requests (q) in a window of seconds (w)",
        "schema": {"type": "string"},
        "example": '"address";q=100;w=2',
    },
    "RateLimit": {
        "description": "Requests left (r), and seconds until all are there again (t)",
        "schema": {"type": "string"},
        "example": '"address";r=0;t=2',
    },
}
HEADERS: dict[int, dict[str, Any]] = {
    401: {"WWW-Authenticate": {"schema": {"type": "string"}, "example": "Bearer"}},
    429: {"Retry-After": SECONDS, **LIMITS},
    503: {"Retry-After": SECONDS},
}
KEYED = (401, 403, 429, 503)
"""What any question that may need a key can be answered with."""
SECURITY = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "key": {"type": "apiKey", "in": "header", "name": "X-Tandem-Key"},
}


def answered(shape: type, *statuses: int, status: int = 200) -> dict[int | str, dict[str, Any]]:
    """FastAPI's `responses` of a route: the answer's shape and its problems."""
    found: dict[int | str, dict[str, Any]] = {
        status: {"description": shape.__doc__ or "", "content": {"application/json": {"schema": _reference(shape)}}}
    }
    return found | {each: problem(each) for each in statuses}


def problem(status: int) -> dict[str, Any]:
    """A response that is a problem."""
    example = msgspec.json.decode(b"".join(EXAMPLES[status].reply()[2]))
    content = {problems.MEDIA_TYPE: {"schema": _reference(problems.ProblemDetail), "example": example}}
    told = {"description": MEANINGS[status], "content": content}
    return told | {"headers": HEADERS[status]} if status in HEADERS else told


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


def _scope(route: APIRoute) -> str | None:
    """What a key needs to be for, where the route may need one."""
    told = [getattr(each.dependency, "needs", None) for each in route.dependencies]
    return next((scope for scope in told if scope is not None), None)


def _complete(operation: dict[str, Any], scope: str | None) -> None:
    """Tell of keys, limits and slow bodies, which are the same for all routes."""
    responses = operation["responses"]
    if scope is not None:
        operation["security"] = [{"bearer": []}, {"key": []}] + ([] if scope in NEVER_OPEN else [{}])
        operation["x-scope"] = scope
        responses.update({str(each): problem(each) for each in KEYED})
    if "requestBody" in operation:
        responses["408"] = problem(408)


def install(app: FastAPI, types: tuple[Any, ...] = _TYPES) -> None:
    """Make `/openapi.json` hold the shapes that the routes refer to: `types`, with what is in them."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            made = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
            _, components = msgspec.json.schema_components(types, ref_template=_REFERENCE)
            schemas = made.setdefault("components", {}).setdefault("schemas", {})
            schemas.update(components)
            made["components"]["securitySchemes"] = SECURITY
            for route in app.routes:
                if isinstance(route, APIRoute) and route.include_in_schema:
                    for method in route.methods:
                        _complete(made["paths"][route.path_format][method.lower()], _scope(route))
            app.openapi_schema = made
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]
