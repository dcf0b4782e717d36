"""Messages as a broker holds them, in files that a stream reads."""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from streams.messages import Activity, Exposure, Message, OrderPlaced, OrderReturned, ReturnedLine, SoldLine, encode
from streams.messages import headers as headers_of
from streams.topics import topic_of

SCHEMA = pa.schema(
    [
        ("topic", pa.string()),
        ("partition", pa.int32()),
        ("offset", pa.int64()),
        ("value", pa.binary()),
        ("headers", pa.list_(pa.struct([("key", pa.string()), ("value", pa.binary())]))),
    ]
)
_files: Iterator[int] = itertools.count()
NOON = dt.datetime(2024, 3, 1, 12, tzinfo=dt.UTC)


def record(message: Message, offset: int, value: bytes | None = None, **headers: bytes) -> dict[str, object]:
    """A message at an offset; another value, or further headers, for what should not come."""
    told = {**dict(headers_of(message)), **headers}
    return {
        "topic": topic_of(message).name,
        "partition": 0,
        "offset": offset,
        "value": encode(message) if value is None else value,
        "headers": [{"key": name, "value": text} for name, text in told.items()],
    }


def tell(folder: Path, records: Sequence[dict[str, object]]) -> None:
    """One file more, which appears at once."""
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / "_draft"
    pq.write_table(pa.Table.from_pylist(list(records), schema=SCHEMA), draft)
    draft.rename(folder / f"{next(_files):06}.parquet")


def order(name: str, *skus: str, at: dt.datetime = NOON, customer: str | None = None, **more: object) -> OrderPlaced:
    lines = [SoldLine(sku=sku, quantity=2, unit_list_price=500, offer_total=901) for sku in skus]
    return OrderPlaced(
        order_id=name, region="north", customer_id=customer, currency="EUR", placed_at=at, lines=lines, **more
    )  # type: ignore[arg-type]


def back(name: str, of: str, sku: str) -> OrderReturned:
    line = ReturnedLine(sku=sku, quantity=1, refunded=451)
    return OrderReturned(return_id=name, order_id=of, region="north", at=NOON + dt.timedelta(days=1), lines=[line])


def view(name: str, sku: str, session: str | None, at: dt.datetime = NOON, **more: object) -> Activity:
    return Activity(event_id=name, at=at, region="north", kind="view", sku=sku, session_id=session, **more)  # type: ignore[arg-type]


def shown(name: str, anchor: str, session: str | None) -> Exposure:
    return Exposure(
        event_id=name, at=NOON, region="north", release_id="r1", session_id=session, anchor=anchor, bundle_ids=["b1"]
    )
