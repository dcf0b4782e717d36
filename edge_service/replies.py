"""Replies as they are made here, before uvicorn or the framework sends them."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus

from starlette.responses import Response
from starlette.types import Send

Reply = tuple[int, bytes, tuple[bytes, ...]]
"""Status, headers as they go over the wire (each line with its end), the parts of the body. Who sends it tells the
body's length.
"""
Pair = tuple[bytes, bytes]
"""A header's name, in lower case, and its value."""


def lines(headers: Iterable[Pair]) -> bytes:
    """The headers as a Reply has them."""
    return b"".join([b"%b: %b\r\n" % each for each in headers])


def headers_of(reply: Reply) -> list[Pair]:
    """The headers of a reply, with the length of its body; 304 has none."""
    status, told, body = reply
    headers = [(name, value) for name, _, value in (line.partition(b": ") for line in told.split(b"\r\n") if line)]
    return headers if status == HTTPStatus.NOT_MODIFIED else [*headers, (b"content-length", b"%d" % length_of(body))]


def length_of(body: tuple[bytes, ...]) -> int:
    return sum(map(len, body))


async def tell(reply: Reply, send: Send) -> None:
    """Send the reply by ASGI."""
    await send({"type": "http.response.start", "status": reply[0], "headers": headers_of(reply)})
    await send({"type": "http.response.body", "body": b"".join(reply[2])})


def response(reply: Reply) -> Response:
    """The reply for the framework."""
    made = Response(b"".join(reply[2]), reply[0])
    made.raw_headers = headers_of(reply)
    return made
