"""A request that is sent again is done once: its answer is kept with its key, in the transaction that did it.

As draft-ietf-httpapi-idempotency-key-header has it. What failed left nothing behind, and may be tried again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import msgspec
from psycopg_pool import AsyncConnectionPool

from edge_service.problems import Problem
from orders.database import Session

_TAKE = "INSERT INTO idempotency_keys (scope, key, asked) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING RETURNING 1"
_KNOWN = "SELECT asked, answer FROM idempotency_keys WHERE scope = %s AND key = %s"
_KEEP = "UPDATE idempotency_keys SET answer = %s WHERE scope = %s AND key = %s"
encode = msgspec.json.Encoder().encode


class Asked(NamedTuple):
    """What tells a request from others."""

    scope: str
    """Keys are unique within it: the request's path."""
    key: str
    body: bytes

    @property
    def digest(self) -> bytes:
        return hashlib.sha256(self.body).digest()


async def once(
    pool: AsyncConnectionPool[Session], asked: Asked, do: Callable[[Session], Awaitable[msgspec.Struct]]
) -> bytes:
    """The encoded answer of `do`, which runs in a transaction; or the one that it gave when this was asked before.

    Raises a 422 problem for a key that came with another body. Of two that ask at once, one waits for the other.
    """
    async with pool.connection() as session, session.transaction():
        if (known := await _known(session, asked)) is not None:
            return known
        answer = encode(await do(session))
        await session.execute(_KEEP, [answer, asked.scope, asked.key])
    return answer


async def _known(session: Session, asked: Asked) -> bytes | None:
    taken = await session.execute(_TAKE, [asked.scope, asked.key, asked.digest])
    if await taken.fetchone():
        return None
    found = await (await session.execute(_KNOWN, [asked.scope, asked.key])).fetchone()
    if found is None or found[0] != asked.digest:
        raise Problem(422, "Idempotency-Key: came before with another body; take a new key", kind="idempotency-key")
    return bytes(found[1])
