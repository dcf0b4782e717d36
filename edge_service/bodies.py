"""How a body is read: within its size, its time, and the memory that all bodies on their way may take together."""

from __future__ import annotations

import asyncio

from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope

from edge_service.problems import Problem, unavailable, wrong

MAX_BODY_BYTES = 1024 * 1024


class Bodies:
    """All bodies that this process reads."""

    def __init__(self, seconds: float, limit_bytes: int) -> None:
        self._seconds, self._limit_bytes = seconds, limit_bytes
        self.held = 0
        """Bytes of bodies that are not whole yet."""

    async def read(self, scope: Scope, receive: Receive) -> bytes:
        """The body. Raises a problem: 413 as soon as it is known to be too long, 408 where it comes too slowly, 503
        where too many come at once; and ClientDisconnect where it breaks off.
        """
        for name, value in scope["headers"]:
            if name == b"content-length" and value.isdigit() and int(value) > MAX_BODY_BYTES:
                raise _too_long()
        try:
            async with asyncio.timeout(self._seconds):
                return await self._whole(receive)
        except TimeoutError as error:
            raise Problem(
                408, f"the body did not come within {self._seconds:g} seconds; send it again", kind="slow"
            ) from error

    async def _whole(self, receive: Receive) -> bytes:
        message = await receive()
        body: bytes = message.get("body", b"")
        if message.get("more_body"):
            body, message = await self._rest(body, receive)
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        if len(body) > MAX_BODY_BYTES:
            raise _too_long()
        return body

    async def _rest(self, first: bytes, receive: Receive) -> tuple[bytes, dict[str, object]]:
        body, held = bytearray(first), 0
        try:
            while True:
                self.held += len(body) - held
                held = len(body)
                if held > MAX_BODY_BYTES:
                    raise _too_long()
                if self.held > self._limit_bytes:
                    raise unavailable("too many bodies are on their way; send it again")
                message = await receive()
                body += message.get("body", b"")
                if not message.get("more_body"):
                    return bytes(body), dict(message)
        finally:
            self.held -= held


def _too_long() -> Problem:
    detail = f"is longer than {MAX_BODY_BYTES} bytes; send it in parts"
    return wrong("body", detail, 413)
