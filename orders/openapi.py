"""The OpenAPI document of the orders' service: shapes come from the very types that are decoded and encoded."""

from __future__ import annotations

from typing import Any

from edge_service import openapi
from edge_service.problems import ProblemDetail
from orders import questions

KEY = "Idempotency-Key"
LONGEST_KEY = 255
TYPES = (
    questions.CheckoutQuestion,
    questions.ReserveQuestion,
    questions.ReturnQuestion,
    questions.StockQuestion,
    questions.OrderAnswer,
    questions.ReservationAnswer,
    questions.ReturnAnswer,
    questions.StockAnswer,
    ProblemDetail,
)
_HEADER = {
    "name": KEY,
    "in": "header",
    "required": True,
    "description": "Who sends the same again with the same key gets the same answer, and nothing is done twice",
    "schema": {"type": "string", "minLength": 1, "maxLength": LONGEST_KEY, "pattern": "^[!-~]+$"},
    "example": "8e03978e-40d5-43dd-bc93-6894a57f9324",
}


def asked_once(shape: type, example: Any) -> dict[str, Any]:
    """FastAPI's `openapi_extra` of a route that is done once for each key."""
    return {**openapi.asked({"application/json": (shape,)}, example), "parameters": [_HEADER]}
