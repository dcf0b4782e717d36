"""Messages into the lake by a real stream: each once, whatever comes twice, late, broken or from the future."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql.pandas.types import from_arrow_schema

from spark_jobs import into_lake
from streams.messages import encode
from tandem.settings import Settings
from tests.spark_jobs.small_shop import make
from tests.spark_jobs.told_messages import NOON, SCHEMA, back, order, record, shown, tell, view
from warehouse import arrivals, lake

pytestmark = pytest.mark.spark


def held(settings: Settings, table: str, where: str = "orders") -> list[dict[str, Any]]:
    """Rows that came by message."""
    rows: list[dict[str, Any]] = lake.open_table(settings, table).to_pyarrow_table().to_pylist()
    return [row for row in rows if row.get("source", where) == where]


class Stream:
    """A stream of the files in a folder, taken in one after the other with the checkpoint of `settings`."""

    def __init__(self, spark: Any, settings: Settings, folder: Path) -> None:
        self.spark, self.settings, self.folder = spark, settings, folder
        self.said: list[str] = []

    def take(self, *records: dict[str, object]) -> None:
        if records:
            tell(self.folder, records)
        stream = self.spark.readStream.schema(from_arrow_schema(SCHEMA)).parquet(str(self.folder))
        into_lake.start(stream, self.settings, self.said.append, once=True).awaitTermination()


@pytest.fixture
def stream(spark: Any, tmp_path: Path) -> Stream:
    return Stream(spark, make(tmp_path), tmp_path / "messages")


def test_orders_and_events_land_once_though_told_twice_late_and_out_of_order(stream: Stream) -> None:
    late = order("o0", "wine", at=NOON - dt.timedelta(days=40), customer="c1", consents=["ads"])
    first = [record(order("o1", "pasta", "sauce", customer="c1"), 0), record(view("e1", "pasta", "s1"), 0)]
    stream.take(record(back("r1", "o1", "sauce"), 1), *first, *first, record(shown("x1", "pasta", "s1"), 0))
    stream.take(*first, record(late, 3), record(back("r1", "o1", "sauce"), 4), record(view("e2", "wine", None), 1))

    sales = held(stream.settings, "sales_lines")
    assert sorted((row["order_id"], row["line"], row["sku"]) for row in sales) == [
        ("o0", 1, "wine"), ("o1", 1, "pasta"), ("o1", 2, "sauce"), ("o1/return/r1", 1, "sauce"),
    ]  # fmt: skip
    assert sum(row["net_cents"] for row in sales) == 3 * 901 - 451
    assert sorted(row["event_id"] for row in held(stream.settings, "activity")) == ["e1", "e2"]
    assert len(held(stream.settings, "exposures")) == 1
    assert held(stream.settings, "rejected_rows") == []
    (customer,) = [row for row in held(stream.settings, "customers") if row["customer_id"] == "c1"] or [None]
    assert customer is None  # the shop's own customers file has the last word


def test_what_cannot_be_read_is_kept_with_its_reason_and_the_future_is_read_as_far_as_it_is_known(
    stream: Stream,
) -> None:
    known = view("e1", "pasta", None)
    future = record(known, 2, b'{"mood":"good",' + encode(known)[1:], version=b"7")
    records = [
        record(known, 0, b"{not json"),
        record(known, 1, version=b"soon"),
        future,
        record(view("e3", "pasta", None, at=dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)), 4),
    ]
    stream.take(*records)
    stream.take(*records)
    rejected = held(stream.settings, "rejected_rows", "activity/0")
    assert sorted((row["file"], row["row"], row["reason"]) for row in rejected) == [
        ("activity", 0, "unreadable_message"),
        ("activity", 1, "unreadable_message"),
        ("activity", 4, "unusable_message"),
    ]
    (row,) = held(stream.settings, "activity")
    assert (row["event_id"], row["sku"]) == ("e1", "pasta")
    assert "4 messages, 1 new rows, 3 rejected" in stream.said[0]


def test_killed_between_its_commits_and_the_checkpoint_a_batch_is_done_again_and_doubles_nothing(
    stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any) -> int:
        raise RuntimeError("killed after the rows, before the checkpoint")

    with monkeypatch.context() as patch:
        patch.setattr(arrivals, "refuse", killed)
        with pytest.raises(Exception, match="killed after the rows"):
            stream.take(record(order("o1", "pasta"), 0), record(view("e1", "pasta", None), 0))
    assert len(held(stream.settings, "sales_lines")) == 1
    stream.take(record(order("o2", "pasta"), 1))
    assert sorted(row["order_id"] for row in held(stream.settings, "sales_lines")) == ["o1", "o2"]
    assert len(held(stream.settings, "activity")) == 1


def test_small_files_of_days_that_are_over_are_made_one(stream: Stream) -> None:
    for number in range(arrivals.MOST_FILES + 1):
        event = view(f"e{number}", "pasta", None)
        row = {"region": "north", "day": NOON.date(), "event_id": event.event_id, "at": event.at, "kind": "view",
               "sku": "pasta", "quantity": 1, "session_id": None}  # fmt: skip
        assert arrivals.add(stream.settings, "activity", [row]) == 1
    assert into_lake.compact(stream.settings, NOON) == 0
    assert into_lake.compact(stream.settings, NOON + dt.timedelta(days=1)) == arrivals.MOST_FILES + 1
    assert len(lake.open_table(stream.settings, "activity").file_uris()) == 1
    assert len(held(stream.settings, "activity")) == arrivals.MOST_FILES + 1
