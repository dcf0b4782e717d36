"""Rows that arrive one by one lie in the lake once, also where several bring them at once."""

from __future__ import annotations

import datetime as dt
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tandem.settings import Settings
from warehouse import arrivals, lake
from warehouse.tables import TABLES

NOON = dt.datetime(2024, 3, 1, 12, tzinfo=dt.UTC)


@pytest.fixture(autouse=True)
def made(settings: Settings) -> None:
    lake.create(settings, [TABLES[name] for name in ("activity", "customers", "rejected_rows")])


def event(number: int) -> dict[str, Any]:
    at = NOON + dt.timedelta(seconds=number)
    return {
        "region": "north",
        "day": at.date(),
        "event_id": f"e{number}",
        "at": at,
        "kind": "view",
        "sku": "tea",
        "quantity": 1,
        "session_id": None,
    }


def names(settings: Settings) -> list[str]:
    return sorted(lake.open_table(settings, "activity").to_pyarrow_table()["event_id"].to_pylist())


def test_several_who_bring_the_same_rows_at_once_bring_each_once(settings: Settings) -> None:
    rows = [event(number) for number in range(12)]
    with ThreadPoolExecutor(4) as several:
        parts = [rows[:6], rows[3:9], rows[6:], rows]
        new = list(several.map(lambda part: arrivals.add(settings, "activity", part), parts))
    assert names(settings) == sorted(row["event_id"] for row in rows)
    assert sum(new) == len(rows)


def test_a_rejected_row_that_is_told_again_stays_one(settings: Settings) -> None:
    row = {"file": "orders", "source": "orders/0", "row": 7, "reason": "unreadable_message", "detail": "", "text": "{"}
    other = row | {"row": 8}
    assert arrivals.refuse(settings, [row, row]) == 2
    assert arrivals.refuse(settings, [row, other]) == 2
    assert lake.open_table(settings, "rejected_rows").count() == 2


def test_a_customers_file_has_the_last_word_over_consents_that_came_with_orders(settings: Settings) -> None:
    def told(name: str, at: str, consents: list[str], source: str = "orders") -> dict[str, Any]:
        since = [{"name": "consents_at", "value": at}]
        return {"customer_id": name, "region": None, "consents": consents, "attributes": since, "source": source}

    arrivals.tell_customers(settings, [told("a", "2024-01-01", ["ads"], "file.csv")], "orders", "consents_at")
    for at, consents in (("2024-03-01", ["x"]), ("2024-02-01", ["y"])):
        arrivals.tell_customers(settings, [told("a", at, consents), told("b", at, consents)], "orders", "consents_at")
    held = {row["customer_id"]: row["consents"] for row in arrivals.customers(settings, ["a", "b", "c"])}
    assert held == {"a": ["ads"], "b": ["x"]}
