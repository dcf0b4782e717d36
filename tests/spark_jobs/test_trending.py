"""The signals of a window, read from the lake: whose they are, how old, and which consent leaves out."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest
from msgspec.structs import replace

from spark_jobs import trending
from spark_jobs.kernels import arrived
from streams.messages import Exposure, Message
from tandem import regions as regions_file
from tandem.settings import Settings
from tests.spark_jobs.small_shop import make
from tests.spark_jobs.told_messages import order, view
from warehouse import arrivals

NOW = dt.datetime(2024, 4, 1, 0, 10, tzinfo=dt.UTC)
"""Ten minutes into a day, and into a month: a window reaches into the one before."""


@pytest.fixture
def shop(tmp_path: Path) -> Settings:
    """In `south` both purposes are asked for; c1 of the small shop gave personalisation alone."""
    return make(tmp_path, purposes='["personalisation", "ads"]')


def tell(shop: Settings, *messages: Message) -> None:
    regions = {region.name: region for region in regions_file.load(shop.config_folder).region}
    rows = [row for each in messages for row in arrived.rows(each, regions, NOW)]
    arrivals.tell_customers(
        shop, [row.values for row in rows if row.table == "customers"], arrived.SOURCE, arrived.CONSENTS_AT
    )
    for table in arrivals.KEYS:
        arrivals.add(shop, table, [row.values for row in rows if row.table == table])


def signals(shop: Settings, region: str) -> set[tuple[str, str, float, int]]:
    """Shopper, product, weight, minutes ago."""
    found = trending.of_window(trending.sources(shop, NOW), regions_file.load(shop.config_folder).get(region))
    return {
        (row["actor"], row["sku"], row["weight"], int((NOW - row["at"]).total_seconds() // 60))
        for row in found.to_pylist()
    }


def ago(minutes: int) -> dt.datetime:
    return NOW - dt.timedelta(minutes=minutes)


def test_a_window_has_looks_carts_and_purchases_of_two_days_and_nothing_older(shop: Settings) -> None:
    shown = Exposure(
        event_id="x", at=ago(29), region="north", release_id="r", session_id="s2", anchor="pasta", bundle_ids=[]
    )
    tell(shop, view("e1", "soap", "s1", at=ago(5)), view("e2", "wine", "s1", at=ago(31)), shown)
    tell(shop, order("o1", "sauce", at=ago(20), customer="new"), order("o2", "bag", at=ago(1)))
    assert signals(shop, "north") == {
        ("s1", "soap", 1.0, 5),
        ("s2", "pasta", 1.0, 29),
        ("customer\tnew", "sauce", 5.0, 20),
        ("order\to2", "bag", 5.0, 1),
    }


def test_where_consent_is_asked_for_only_who_gave_all_of_it_speaks(shop: Settings) -> None:
    both = ["ads", "personalisation"]
    told = {"region": "south"}
    tell(
        shop,
        *[
            _in(view(f"e{n}", "soap", f"s{n}", at=ago(5), consents=given), told)
            for n, given in enumerate((["ads"], both))
        ],
        _in(order("o1", "sauce", at=ago(2), customer="w1", consents=both), told),
        _in(order("o2", "sauce", at=ago(2), customer="w2", consents=["ads"]), told),
        _in(order("o3", "sauce", at=ago(2), customer="c1", consents=both), told),
        _in(order("o4", "bag", at=ago(2)), told),
    )
    assert {(actor, sku) for actor, sku, _, _ in signals(shop, "south")} == {
        ("s1", "soap"),
        ("customer\tw1", "sauce"),
        ("order\to4", "bag"),
    }


def test_a_later_order_takes_consent_back_and_an_earlier_one_that_comes_late_does_not_give_it(shop: Settings) -> None:
    both = ["ads", "personalisation"]
    for name, minutes, given in (("o1", 9, both), ("o2", 3, []), ("o3", 6, both)):
        tell(shop, _in(order(name, "sauce", at=ago(minutes), customer="w1", consents=given), {"region": "south"}))
    assert signals(shop, "south") == set()


def test_before_the_first_build_there_are_no_candidates(shop: Settings) -> None:
    tell(shop, *[order(f"o{n}", "sauce", "soap", at=ago(1)) for n in range(9)])
    known = trending.sources(shop, NOW)
    assert known.as_of is None
    assert trending.of_region(known, regions_file.load(shop.config_folder).get("north")).candidates == []


def _in(message: Message, told: dict[str, str]) -> Message:

    return replace(message, **told)
