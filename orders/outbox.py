"""What has to be told, written in the transaction that it tells of: told exactly if that one is kept."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

from orders.database import Session
from streams.messages import OrderPlaced, OrderReturned, StockChanged, encode
from streams.topics import topic_of

LANES = 16
"""As many as the table outbox_lanes has rows. Messages of one key are in one lane."""
Told = StockChanged | OrderPlaced | OrderReturned

PUT = """
INSERT INTO outbox (lane, topic, kind, region, key, value)
SELECT lane, topic, kind, region, key, value
FROM unnest(%s::smallint[], %s::text[], %s::text[], %s::text[], %s::text[], %s::bytea[])
    WITH ORDINALITY AS told (lane, topic, kind, region, key, value, place)
ORDER BY place
"""


async def put(session: Session, messages: Sequence[Told]) -> None:
    """Have these messages told. Of one key, they are told in the order in which their transactions held its row."""
    if messages:
        await session.execute(PUT, columns(messages))


def columns(messages: Sequence[Told]) -> list[list[object]]:
    """The arguments of PUT."""
    return [list(column) for column in zip(*map(_row, messages), strict=True)]


def lane_of(key: str) -> int:
    """The lane of a key."""
    return zlib.crc32(key.encode()) % LANES


def _row(message: Told) -> tuple[int, str, str, str, str, bytes]:
    key = message.key.decode()
    return lane_of(key), topic_of(message).name, message.type, message.region, key, encode(message)
