from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from tandem.errors import TandemError
from tandem.release import WrongTransition
from tandem.settings import Settings
from tests.commands import tandem
from warehouse import gate, lake, ledger
from warehouse.tables import BUNDLE_SETS, BUNDLES, PRICES, PRODUCTS, TABLES

DAY = date(2024, 6, 1)


def put(settings: Settings, table: str, rows: list[dict[str, Any]]) -> None:
    lake.append(settings, TABLES[table], pa.Table.from_pylist(rows, schema=lake.arrow_schema(TABLES[table])))


def product(sku: str, **further: Any) -> dict[str, Any]:
    return {"sku": sku, "title": sku, "active": True, "source": "test", "currency": None} | further


def price(sku: str, cents: int, sale: int | None = None) -> dict[str, Any]:
    at = datetime(2024, 6, 1, tzinfo=UTC)
    row = {"region": "shop", "sku": sku, "list_price_cents": cents, "sale_price_cents": sale, "currency": "EUR"}
    return row | {"prices_as_of": at, "source": "test"}


def bundle(bundle_id: str, *skus: str, customers: int = 9, bps: int = 0, floor: int | None = None) -> dict[str, Any]:
    parts = [{"sku": sku, "quantity": 1, "floor_cents": floor, "substitutes": []} for sku in skus]
    evidence = {"matched": "region", "basis": "counts", "orders_together": 20, "customers_together": customers}
    return {
        "as_of": DAY,
        "region": "shop",
        "segment": "*",
        "bundle_id": bundle_id,
        "release_id": "r1",
        "currency": "EUR",
        "components": parts,
        "discount_bps": bps,
        "score": 1.0,
        "expected_profit_cents": None,
        "evidence": evidence | {"lift": 2.0},
        "inputs": "{}",
    }


def listed(anchor: str, *bundle_ids: str) -> dict[str, Any]:
    held = [{"bundle_id": found, "confidence": 0.5, "matched": "region"} for found in bundle_ids]
    return {"as_of": DAY, "region": "shop", "segment": "*", "anchor": anchor, "release_id": "r1", "bundles": held}


@pytest.fixture
def built(settings: Settings) -> Settings:
    """A lake with tea and milk in one good bundle."""
    lake.create(settings)
    put(settings, PRODUCTS.name, [product("tea"), product("milk"), product("gone", active=False)])
    put(settings, PRICES.name, [price("tea", 200), price("milk", 100), price("gone", 100)])
    put(settings, BUNDLES.name, [bundle("b1", "tea", "milk", bps=1000)])
    put(settings, BUNDLE_SETS.name, [listed("tea", "b1"), listed("milk", "b1")])
    return settings


def gates_of(breaches: list[gate.Breach]) -> list[str]:
    return [breach.gate for breach in breaches]


def test_a_good_build_passes_and_every_figure_is_said(built: Settings) -> None:
    said: list[str] = []
    gate.run(built, DAY, said.append)
    assert gate.check(built, DAY) == []
    assert said[0] == "passed  shop: min_anchors is 2, at least 1 asked for"
    assert len(said) == 11


def test_a_day_without_a_build_does_not_pass(built: Settings) -> None:
    with pytest.raises(TandemError, match=r"2023-01-01 does not pass the gate[^\n]*\n  shop: min_anchors is 0"):
        gate.run(built, date(2023, 1, 1), print)


def test_bundles_of_products_that_are_gone_are_breaches_with_examples(built: Settings) -> None:
    put(built, BUNDLES.name, [bundle("b2", "tea", "gone"), bundle("b3", "tea", "unknown")])
    (breach, unpriced) = gate.check(built, DAY)
    assert (breach.gate, round(breach.figure, 3)) == ("max_orphan_share", 0.667)
    assert breach.examples == ["b2 with gone", "b3 with unknown"]
    assert (unpriced.gate, unpriced.examples) == ("max_unpriced_share", ["b3 with unknown"])


def test_at_most_five_examples_are_given(built: Settings) -> None:
    put(built, BUNDLES.name, [bundle(f"x{n}", "tea", "gone") for n in range(9)])
    assert len(gate.check(built, DAY)[0].examples) == 5


def test_bundles_of_too_few_customers_are_breaches(built: Settings) -> None:
    put(built, BUNDLES.name, [bundle("b2", "tea", "milk", customers=4)])
    (breach,) = gate.check(built, DAY)
    assert (breach.gate, breach.figure, breach.examples) == ("max_below_k", 1, ["b2 with 4"])


@pytest.mark.parametrize(
    ("facts", "floor", "breached"),
    [
        ({"unit_cost_cents": 175, "currency": "EUR"}, None, True),
        ({"unit_cost_cents": 175, "currency": "EUR"}, 184, False),
        ({"unit_cost_cents": 100, "currency": "EUR"}, None, False),
        ({"minimum_advertised_price_cents": 190, "currency": "EUR"}, None, True),
        ({"unit_cost_cents": 175, "currency": "USD"}, None, False),
    ],
)
def test_a_discount_below_what_cost_or_minimum_allow_is_a_breach(settings: Settings, facts, floor, breached) -> None:
    lake.create(settings)
    put(settings, PRODUCTS.name, [product("tea", **facts), product("milk")])
    put(settings, PRICES.name, [price("tea", 200), price("milk", 200)])
    put(settings, BUNDLES.name, [bundle("b1", "tea", "milk", bps=1000, floor=floor)])
    put(settings, BUNDLE_SETS.name, [listed("tea", "b1")])
    assert gates_of(gate.check(settings, DAY)) == (["max_below_floor"] if breached else [])


LAWFUL = """
[[region]]
name = "shop"
currency = "EUR"
time_zone = "Europe/Berlin"
redis_url = "redis://127.0.0.1:1/0"
k = 5
lowest_price_days = {days}
[region.object_store]
endpoint = "http://127.0.0.1:1"
bucket = "tandem"
public_url = "http://127.0.0.1:1"
"""


def sold(sku: str, cents: int, days_ago: int, quantity: int = 1) -> dict[str, Any]:
    at = datetime(2024, 6, 1, tzinfo=UTC) - timedelta(days=days_ago)
    row = {"region": "shop", "month": f"{at:%Y-%m}", "order_id": "o", "line": 1, "ordered_at": at, "sku": sku}
    row |= {"quantity": Decimal(quantity), "unit_price_cents": cents, "net_cents": cents * quantity}
    return row | {"currency": "EUR", "source": "test"}


@pytest.mark.parametrize(
    ("days", "lines", "breached"),
    [
        (30, [sold("tea", 150, 10)], True),
        (0, [sold("tea", 150, 10)], False),
        (30, [sold("tea", 200, 10)], False),
        (30, [sold("tea", 150, 31)], False),
        (30, [sold("tea", 150, 0)], False),
        (30, [sold("tea", 150, 10, quantity=-1)], False),
    ],
)
def test_where_the_law_asks_a_discount_is_one_from_the_lowest_price_before(built, days, lines, breached) -> None:
    (built.config_folder / "regions.toml").write_text(LAWFUL.format(days=days), encoding="utf-8")
    put(built, "sales_lines", lines)
    assert gates_of(gate.check(built, DAY)) == (["max_below_floor"] if breached else [])


def test_a_build_much_smaller_than_the_current_release_is_a_breach(built: Settings) -> None:
    for state in ("staged", "sealed", "canary", "current"):
        ledger.record(built, "shop", "r0", state, as_of=DAY, anchors=5 if state == "sealed" else None)
    (breach,) = gate.check(built, DAY)
    assert (breach.gate, breach.figure) == ("min_anchor_share_of_current", 0.4)


def measured(as_of: date, region: str, value: float) -> dict[str, Any]:
    found = {"as_of": as_of, "region": region, "segment": "*", "metric": gate.SHIPPED, "value": value}
    return found | {"low": value, "high": value, "queries": 100, "learned_before": as_of}


@pytest.mark.parametrize(
    ("now", "breached"),
    [
        ([measured(DAY, "shop", 0.46)], False),
        ([measured(DAY, "shop", 0.44)], True),
        ([measured(DAY, "*", 0.1), measured(DAY, "shop", 0.5)], False),
        ([measured(DAY, "*", 0.1)], True),
        ([], False),
    ],
)
def test_a_build_that_hits_less_than_what_is_current_is_a_breach(built: Settings, now, breached) -> None:
    before = date(2024, 5, 31)
    put(built, "evaluations", [measured(before, "shop", 0.5), *now])
    ledger.record(built, "shop", "r0", "staged", as_of=before, reason="test")
    for state in ("sealed", "canary", "current"):
        ledger.record(built, "shop", "r0", state, as_of=before, reason="test")
    assert gates_of(gate.check(built, DAY)) == (["min_hits_share_of_current"] if breached else [])


def released(settings: Settings, bundles: list[dict[str, Any]], lists: list[dict[str, Any]]) -> None:
    """What is current: the rows of an earlier day."""
    before = date(2024, 5, 31)
    for table, rows in ((BUNDLES, bundles), (BUNDLE_SETS, lists)):
        put(settings, table.name, [row | {"as_of": before, "release_id": "r0"} for row in rows])
    outputs = lake.versions(settings, ("bundles", "bundle_sets"))
    ledger.record(settings, "shop", "r0", "staged", as_of=before, outputs=outputs)
    for state in ("sealed", "canary", "current"):
        ledger.record(settings, "shop", "r0", state, as_of=before)


def test_a_build_that_turns_every_list_over_is_a_breach_until_somebody_says_why(built: Settings) -> None:
    released(built, [bundle("b0", "tea", "milk")], [listed("tea", "b0"), listed("milk", "b0")])
    (breach,) = gate.check(built, DAY)
    assert (breach.gate, breach.figure) == ("max_churn", 1.0)
    assert breach.examples == ["added b1 (tea + milk)", "dropped b0 (tea + milk)"]
    with pytest.raises(TandemError, match="an override needs a reason"):
        gate.run(built, DAY, print, ["max_churn"])
    with pytest.raises(TandemError, match="there is no gate churn; there are min_anchors"):
        gate.run(built, DAY, print, ["churn"], "new range")
    with pytest.raises(TandemError, match=r"shop: max_churn is 1, at most 0\.95"):
        gate.run(built, DAY, print, ["max_below_k"], "another gate")
    allow = ("gate", "--as-of", f"{DAY}", "--override", "max_churn", "--reason", "new range in June")
    assert tandem(built, *allow).exit_code == 0
    said: list[str] = []
    gate.run(built, DAY, said.append)  # what the DAG does after it
    (allowed,) = [line for line in said if line.startswith("allowed")]
    assert "max_churn: new range in June (found 1, asked for 0.95)" in allowed
    (row,) = ledger.history(built, "r1")
    assert (row["state"], row["region"], row["reason"].partition(":")[0]) == ("approved", "shop", "max_churn")


@pytest.mark.parametrize(
    ("path", "then"),
    [(["staged"], "approved"), (["staged", "sealed"], "sealed"), (["staged", "degraded"], "degraded")],
)
def test_a_gate_may_be_overridden_wherever_the_release_is_and_it_stays_there(
    built: Settings, path: list[Any], then: str
) -> None:
    released(built, [bundle("b0", "tea", "milk")], [listed("tea", "b0"), listed("milk", "b0")])
    for state in path:
        ledger.record(built, "shop", "r1", state, as_of=DAY)
    for _ in range(2):
        gate.run(built, DAY, print, ["max_churn"], "new range in June")
    rows = ledger.history(built, "r1")
    assert [row["state"] for row in rows] == [*path, then]
    assert rows[-1]["reason"].startswith("max_churn: new range in June")


def test_no_gate_of_a_quarantined_release_can_be_overridden(built: Settings) -> None:
    released(built, [bundle("b0", "tea", "milk")], [listed("tea", "b0"), listed("milk", "b0")])
    for state in ("staged", "quarantined"):
        ledger.record(built, "shop", "r1", state, as_of=DAY)  # type: ignore[arg-type]
    with pytest.raises(WrongTransition, match="build a new release"):
        gate.run(built, DAY, print, ["max_churn"], "new range in June")


def test_a_segment_that_lost_all_its_lists_is_a_breach(built: Settings) -> None:
    released(
        built,
        [bundle("b1", "tea", "milk")],
        [listed("tea", "b1")] + [listed("tea", "b1") | {"segment": name} for name in ("families", "frequent")],
    )
    (breach,) = gate.check(built, DAY)
    assert (breach.gate, round(breach.figure, 2), breach.examples) == (
        "max_emptied_segment_share",
        0.67,
        ["families", "frequent"],
    )


def test_missing_costs_and_large_lists_are_breaches_where_they_are_asked_for(built: Settings) -> None:
    put(built, BUNDLES.name, [bundle("b2", "tea", "milk") | {"region": "elsewhere"}])
    put(built, PRICES.name, [price("tea", 200) | {"region": "elsewhere"}])
    (built.config_folder / "gates.toml").write_text("max_uncosted_share = 0.5\nmax_list_bytes = 100\n")
    uncosted, large = gate.check(built, DAY)
    assert (uncosted.gate, uncosted.figure, uncosted.examples) == (
        "max_uncosted_share",
        1.0,
        ["b1 with milk", "b1 with tea"],
    )
    assert large.gate == "max_list_bytes"
    assert large.figure > 100
    assert large.examples[0].startswith("* of milk with ")
