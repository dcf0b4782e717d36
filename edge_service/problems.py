"""Errors as RFC 9457 problems: what is wrong, in which field, in words that help to mend it."""

from __future__ import annotations

from http import HTTPStatus

import msgspec
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from edge_service.replies import Reply, lines, response
from tandem.errors import Unavailable

MEDIA_TYPE = "application/problem+json"


class FieldError(msgspec.Struct, frozen=True):
    """One thing that is wrong with what was sent."""

    field: str
    detail: str


class ProblemDetail(msgspec.Struct, frozen=True, omit_defaults=True):
    """RFC 9457, with `errors` as its one extension."""

    title: str
    status: int
    detail: str
    type: str = "about:blank"
    errors: tuple[FieldError, ...] = ()


class Problem(Exception):
    """Raised where a question can't be answered; becomes the response."""

    def __init__(
        self, status: int, detail: str, *errors: FieldError, kind: str = "", headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.status, self.detail, self.errors, self.headers = status, detail, errors, headers or {}
        self.type = f"urn:tandem:problem:{kind}" if kind else "about:blank"

    def reply(self) -> Reply:
        title = HTTPStatus(self.status).phrase
        body = ProblemDetail(title, self.status, self.detail, self.type, self.errors)
        told = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", **self.headers}
        headers = {name.lower().encode(): value.encode("latin-1") for name, value in told.items()}
        # about:blank is written out: a reader of the answer should not have to know the default
        text = msgspec.json.encode({"type": self.type, **msgspec.to_builtins(body)})
        return self.status, lines({b"content-type": MEDIA_TYPE.encode(), **headers}.items()), (text,)

    def response(self) -> Response:
        """The same for the framework."""
        return response(self.reply())


def wrong(field: str, detail: str, status: int = HTTPStatus.UNPROCESSABLE_ENTITY) -> Problem:
    """A problem with one field of what was sent."""
    return Problem(status, f"{field}: {detail}", FieldError(field, detail), kind="invalid")


def unavailable(detail: str) -> Problem:
    return Problem(503, detail, kind="unavailable", headers={"Retry-After": "1"})


def broken_off() -> Problem:
    return Problem(400, "the body broke off before its end; send it again", kind="broken-off")


def unexpected() -> Problem:
    return Problem(500, "something unexpected went wrong here; it is in the log", kind="internal")


def install(app: FastAPI) -> None:
    """Make every error of the app a problem."""
    app.add_exception_handler(Problem, _problem)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(Unavailable, _unavailable)
    app.add_exception_handler(ClientDisconnect, _broken_off)
    app.add_exception_handler(Exception, _unexpected)


def _problem(_: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)  # noqa: S101 - narrows the type; Starlette dispatches by it
    return error.response()


def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101
    details = {
        404: "there is no such address; /openapi.json lists them",
        405: f"{request.method} is not for this address; {(error.headers or {}).get('Allow', '')} is",
    }
    detail = details.get(error.status_code, str(error.detail))
    return Problem(error.status_code, detail, headers=dict(error.headers or {})).response()


def _invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101
    errors = tuple(FieldError(str(each["loc"][-1]), each["msg"]) for each in error.errors())
    detail = "; ".join(f"{each.field}: {each.detail}" for each in errors)
    return Problem(422, detail, *errors, kind="invalid").response()


def _unavailable(_: Request, error: Exception) -> Response:
    # The message names an address inside; the log has it, the answer does not.
    return unavailable("the region's Redis can't be reached right now; nothing was written, send it again").response()


def _unexpected(_: Request, error: Exception) -> Response:
    return unexpected().response()


def _broken_off(_: Request, error: Exception) -> Response:
    return broken_off().response()
