"""The table of live state: what is put in is what is told, whoever shares a row, and in a copy apart."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_service import live_table
from edge_service.live_table import NOTHING, UNKNOWN, LiveTable
from tandem.bundle import Bundle
from tandem.offer import Live, parts_of, plain_prices, price
from tests.tandem.test_offer import bundles, lives

Told = tuple[int | None, int | None, int | None]
"""Stock, list price, sale price."""
amounts = st.none() | st.integers(0, 2**50)
changes = st.lists(st.tuples(st.sampled_from([f"sku{n}" for n in range(30)]), amounts, amounts, amounts))


@pytest.fixture(autouse=True)
def _crowded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few shards, so that rows have to be added."""
    monkeypatch.setattr(live_table, "SHARDS", 2)


def pairs(sku: str, told: Told) -> list[bytes]:
    """As Redis has it; what is None was told, and then taken back."""
    words = " ".join("- 1 1" if value is None else f"{value} 1 1" for value in told)
    return [sku.encode(), words.encode()]


def put(table: LiveTable, told: Iterable[tuple[str, int | None, int | None, int | None]]) -> dict[str, Live]:
    """Put changes in, each as an entry of the feed; what ought to be known then."""
    known = {}
    for sku, *values in told:
        table.version += 1
        table.keep_all(pairs(sku, (values[0], values[1], values[2])))
        known[sku] = Live(*values)
    return known


@settings(deadline=None)
@given(changes, changes)
def test_what_was_told_last_is_what_is_known_and_a_copy_changes_apart(
    first: list[tuple[str, int | None, int | None, int | None]],
    then: list[tuple[str, int | None, int | None, int | None]],
) -> None:
    table = LiveTable()
    known = put(table, first)
    spots = {sku: table.spot(sku) for sku in known}
    copied = table.copy()
    later = known | put(copied, then)
    assert {sku: table.get(sku) for sku in known} == known
    assert {sku: copied.get(sku) for sku in later} == later
    assert (len(table), len(copied)) == (len(known), len(later))
    assert (bool(table), bool(copied)) == (bool(known), bool(later))
    assert all(copied.spot(sku) == spot for sku, spot in spots.items())
    for sku, live in later.items():
        assert copied.stock_at(copied.spot(sku)) == (NOTHING if live.stock is None else live.stock)


@settings(max_examples=1_000, deadline=None)
@given(bundles(), lives, st.booleans())
def test_where_nothing_stands_in_the_short_way_says_the_same(
    bundle: Bundle, live: dict[str, Live], discount: bool
) -> None:
    table, parts, offer = LiveTable(), parts_of(bundle), price(bundle, live.get, with_discount=discount)
    put(table, [(sku, each.stock, each.list_price, each.sale_price) for sku, each in live.items()])
    found = table.on_sale([(table.spot(part.sku), part.quantity, max(part.floor, 1)) for part in parts])
    if found is None:
        assert offer is None or any(part.substituted_for for part in offer.components)
        return
    assert offer is not None
    assert [part.substituted_for for part in offer.components] == [None] * len(bundle.components)
    unit_prices, sellable = found
    list_total, inside = plain_prices(parts, unit_prices, bundle.discount_bps if discount else 0)
    assert unit_prices == [part.unit_price for part in offer.components]
    assert inside == [part.offer_price for part in offer.components]
    assert (list_total, sum(inside), sellable) == (offer.list_total, offer.offer_total, offer.sellable)


@settings(deadline=None)
@given(changes)
def test_a_change_is_seen_by_who_looked_at_the_product_and_by_nobody_else(
    told: list[tuple[str, int | None, int | None, int | None]],
) -> None:
    table = LiveTable()
    put(table, told)
    for sku, *_ in told:
        before, others = table.version, [table.spot(each) for each, *_ in told if each != sku]
        put(table, [(sku, 1, 1, None)])
        assert table.changed([table.spot(sku)], before)
        assert not table.changed(others, before)


def test_who_looked_at_a_product_that_is_not_known_hears_of_any_that_becomes_known() -> None:
    table = LiveTable()
    put(table, [("tea", 1, 1, None)])
    assert table.spot("cup") == UNKNOWN
    assert table.on_sale([(UNKNOWN, 1, 1)]) is None
    before = table.version
    put(table, [("tea", 2, 2, None)])
    assert not table.changed([UNKNOWN], before)
    put(table, [("cup", 3, 3, None)])
    assert table.changed([UNKNOWN], before)
    assert table.get("cup") == Live(3, 3)


def test_what_was_never_told_stays_as_it_was_and_what_is_no_nine_words_is_refused() -> None:
    table = LiveTable()
    put(table, [("tea", 5, 100, 90)])
    table.keep_all([b"tea", b"- 0 0 200 2 2 - 0 0"])
    assert table.get("tea") == Live(5, 200, 90)
    with pytest.raises(ValueError, match="unpack"):
        table.keep_all([b"tea", b"1 2 3"])
