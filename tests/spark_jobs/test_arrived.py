"""What a message says in the lake's own columns, and which can't be used."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

import pytest
from msgspec.structs import replace

from spark_jobs.kernels import arrived
from streams.messages import Activity, Message, OrderPlaced, Refused, StockChanged
from tandem.regions import ObjectStore, Region
from tests.spark_jobs.told_messages import NOON, back, order, shown, view

STORE = ObjectStore(endpoint="http://127.0.0.1:1", bucket="b", public_url="http://127.0.0.1:1/b")


def rows(message: Message, *purposes: str) -> list[arrived.Row]:
    asked = {"redis_url": "redis://127.0.0.1:1/0", "object_store": STORE, "consent_purposes": list(purposes)}
    north = Region(name="north", currency="EUR", time_zone="UTC", **asked)  # type: ignore[arg-type]
    return arrived.rows(message, {"north": north}, NOON)


def test_a_line_of_an_order_has_what_it_brought_and_what_one_unit_cost() -> None:
    first, second = rows(order("o1", "pasta", "sauce"))
    assert (first.table, first.values["line"], second.values["line"]) == ("sales_lines", 1, 2)
    assert first.values["quantity"] == Decimal(2)
    assert (first.values["net_cents"], first.values["unit_price_cents"], first.values["list_price_cents"]) == (
        901, 451, 500,
    )  # fmt: skip
    assert (first.values["month"], first.values["ordered_at"]) == ("2024-03", NOON)


def test_a_return_is_a_receipt_of_its_own_that_takes_units_and_money_back() -> None:
    (row,) = rows(replace(back("r1", "o1", "pasta"), at=NOON))
    assert row.values["order_id"] == "o1/return/r1"
    assert (row.values["quantity"], row.values["net_cents"], row.values["unit_price_cents"]) == (Decimal(-1), -451, 451)


def test_consents_come_with_the_customer_and_say_since_when() -> None:
    *_, customer = rows(order("o1", "pasta", customer="c1", consents=["b", "a", "a"]))
    assert (customer.table, customer.values["consents"]) == ("customers", ["a", "b"])
    assert customer.values["attributes"] == [{"name": "consents_at", "value": "2024-03-01T12:00:00.000000Z"}]


def test_a_session_is_kept_only_with_the_consents_that_the_region_asks_for() -> None:
    for message in (view("e1", "pasta", "s1"), shown("e1", "pasta", "s1")):
        assert rows(message)[0].values["session_id"] == "s1"
        assert rows(message, "ads")[0].values["session_id"] is None
        assert rows(replace(message, consents=["ads", "x"]), "ads")[0].values["session_id"] == "s1"


def test_what_was_done_with_a_bundle_is_an_outcome_and_with_a_product_activity() -> None:
    bought = Activity(event_id="e", at=NOON, region="north", kind="purchase", bundle_id="b", release_id="r", anchor="a")
    assert rows(bought)[0].table == "outcomes"
    assert rows(view("e1", "pasta", None))[0].table == "activity"
    assert rows(replace(bought, kind="wish", sku="pasta"))[0].table == "activity"


@pytest.mark.parametrize(
    ("message", "says"),
    [
        (replace(order("o", "pasta"), region="atlantis"), "field region: no region 'atlantis'"),
        (replace(order("o", "pasta"), currency="USD"), "field currency: USD"),
        (view("e", "pasta", None, at=NOON + dt.timedelta(minutes=6)), "field at: lies more than 300 seconds ahead"),
        (Activity(event_id="e", at=NOON, region="north", kind="view"), "field sku: is missing"),
        (Activity(event_id="e", at=NOON, region="north", kind="cart", bundle_id="b"), "field release_id: is missing"),
        (StockChanged(region="north", sku="pasta", stock=1, sequence=1, at=NOON), "belongs to no table"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_used_says_which_field_and_why(message: Message, says: str) -> None:
    with pytest.raises(Refused, match=says):
        rows(message)


def test_a_shopper_who_comes_a_little_early_by_this_clock_is_taken() -> None:
    early = order("o1", "pasta", at=NOON + dt.timedelta(minutes=4))
    assert isinstance(early, OrderPlaced)
    assert len(rows(early)) == 1
