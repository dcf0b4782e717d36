"""The table of live state: what is put in is what is told, whoever shares a row, and in a copy apart."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_service import live_table
from edge_service.live_table import NOTHING, UNKNOWN, LiveTable
from tandem.offer import Live

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
        ((stock, unit_price),) = copied.now_at([copied.spot(sku)])
        assert stock == (NOTHING if live.stock is None else live.stock) == copied.stock_at(copied.spot(sku))
        assert unit_price == (NOTHING if live.unit_price is None else live.unit_price)


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
    assert table.now_at([UNKNOWN]) == [(NOTHING, NOTHING)]
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
