"""Builds of several days in a lake, marked so that whatever is made of two of them shows.

The build of day `n` has the same bundles as every other, but each bundle's orders are ORDERS + n and each place's
confidence is n / MARKS: in Redis one lies in the bodies, the other in the lists, and on the CDN both in shards.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import pyarrow as pa

from edge_service.region_store import batches
from tandem.regions import ObjectStore
from tandem.settings import Settings
from warehouse import lake
from warehouse.tables import TABLES

REGION = "north"
FIRST = dt.date(2026, 1, 1)
ORDERS = 1_000
MARKS = 1_000
STEPS = (1, 2)
"""To the anchors that an anchor is in a bundle with, around."""
PLACES = 2 * len(STEPS)
"""Bundles of each anchor."""
FILE_ROWS = 250_000
"""In a file of the lake."""
REGIONS = """
[[region]]
name = "{name}"
currency = "EUR"
time_zone = "UTC"
redis_url = "{redis}"
[region.object_store]
endpoint = "{endpoint}"
bucket = "tandem"
public_url = "{endpoint}/tandem"
"""


class _Evidence(msgspec.Struct):
    orders_together: int
    confidence: float


class _Offered(msgspec.Struct):
    evidence: _Evidence


class Answer(msgspec.Struct):
    """What an edge answers, as far as a mix would show in it."""

    release: str
    bundles: list[_Offered]

    def whole(self) -> bool:
        """All places are there, and all they tell is of the release that the answer names."""
        number = number_of(self.release)
        wanted = _Evidence(ORDERS + number, number / MARKS)
        return [each.evidence for each in self.bundles] == [wanted] * PLACES


decode_answer = msgspec.json.Decoder(Answer).decode


def day(number: int) -> dt.date:
    return FIRST + dt.timedelta(days=number)


def release_id(number: int) -> str:
    return f"{day(number):%Y%m%d}-{number:012x}"


def number_of(release: str) -> int:
    return int(release.partition("-")[2], 16)


def sku(anchor: int) -> str:
    return f"s{anchor:06}"


def shard_is_whole(content: Any, release: str) -> bool:
    """A shard names its release, and all it tells is of that."""
    number = number_of(release)
    orders = {each["evidence"]["orders_together"] for each in content["bundles"].values()}
    lists = [places for by_segment in content["anchors"].values() for places in by_segment.values()]
    confidences = {place["confidence"] for places in lists for place in places}
    return content["release"] == release and (orders, confidences) == ({ORDERS + number}, {number / MARKS})


def made(settings: Settings, redis_url: str, store: ObjectStore, days: Sequence[int], anchors: int) -> Settings:
    """`settings`, with a configuration of a region at these servers, and a lake with the builds of `days` for it."""
    config = settings.home / "config"
    config.mkdir(parents=True)
    text = REGIONS.format(name=REGION, redis=redis_url, endpoint=store.endpoint)
    (config / "regions.toml").write_text(text, encoding="utf-8")
    settings = msgspec.structs.replace(settings, config=config)
    lake.create(settings)
    for table, rows in _facts(anchors).items():
        _put(settings, table, rows)
    for number in days:
        _put(settings, "bundles", _bundles(number, anchors))
        _put(settings, "bundle_sets", _lists(number, anchors))
    return settings


def _put(settings: Settings, table: str, rows: Iterator[dict[str, Any]]) -> None:
    for some in batches(rows, FILE_ROWS):
        lake.append(settings, TABLES[table], pa.Table.from_pylist(some, schema=lake.arrow_schema(TABLES[table])))


def _facts(anchors: int) -> dict[str, Iterator[dict[str, Any]]]:
    at = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    skus = [sku(anchor) for anchor in range(anchors)]
    here = {"region": REGION, "source": "benchmark"}
    return {
        "products": ({"sku": each, "title": each, "active": True, "source": "benchmark"} for each in skus),
        "stock": ({"sku": each, "on_hand": 1_000, "stock_as_of": at, **here} for each in skus),
        "prices": (
            {"sku": each, "list_price_cents": 500, "currency": "EUR", "prices_as_of": at, **here} for each in skus
        ),
    }


def _name(pair: tuple[int, int]) -> str:
    return f"{pair[0]:08x}{pair[1]:08x}"


def _bundles(number: int, anchors: int) -> Iterator[dict[str, Any]]:
    for pair in ((anchor, (anchor + step) % anchors) for anchor in range(anchors) for step in STEPS):
        parts = [{"sku": each, "quantity": 1, "substitutes": []} for each in sorted(map(sku, pair))]
        evidence = {"matched": "region", "basis": "counts", "orders_together": ORDERS + number, "lift": 2.0}
        yield _row(number) | {
            "bundle_id": _name(pair),
            "currency": "EUR",
            "components": parts,
            "discount_bps": 0,
            "score": 1.0,
            "evidence": evidence | {"customers_together": 9},
            "inputs": "{}",
        }


def _lists(number: int, anchors: int) -> Iterator[dict[str, Any]]:
    for anchor in range(anchors):
        before = [((anchor - step) % anchors, anchor) for step in STEPS]
        after = [(anchor, (anchor + step) % anchors) for step in STEPS]
        places = [
            {"bundle_id": _name(pair), "confidence": number / MARKS, "matched": "region"} for pair in before + after
        ]
        yield _row(number) | {"anchor": sku(anchor), "bundles": places}


def _row(number: int) -> dict[str, Any]:
    return {"as_of": day(number), "region": REGION, "segment": "*", "release_id": release_id(number)}
