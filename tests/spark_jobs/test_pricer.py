"""One region's bundles priced, without Spark."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from spark_jobs.kernels import pricer
from tandem.money import discounted, minor_units
from tandem.regions import ObjectStore, Region
from tandem.rules import PricePoint, Pricing
from warehouse import lake
from warehouse.tables import BUNDLES

TOLD = pa.schema(
    [
        *((name, pa.string()) for name in ("region", "kind", "sku", "name", "segment")),
        *((name, pa.int64()) for name in ("a", "b")),
        *((name, pa.float64()) for name in ("x", "y")),
    ]
)
KINDS = {"tea": "Drinks > Tea", "cup": "Home > Cups", "milk": "Food > Dairy"}


def region(currency: str = "EUR") -> Region:
    store = ObjectStore(endpoint="http://x", bucket="b", public_url="http://x/b")
    return Region(name="here", currency=currency, time_zone="UTC", redis_url="redis://x", object_store=store)


def bundle(
    bundle_id: str, *skus: str, segment: str = "*", matched: str = "region", together: int = 100
) -> dict[str, Any]:
    parts = [
        {"sku": sku, "quantity": 1, "floor_cents": None, "substitutes": [{"sku": "milk", "floor_cents": None}]}
        for sku in skus
    ]
    evidence = {"matched": matched, "orders_together": together, "customers_together": 50, "lift": 1.0}
    row = {"region": "here", "segment": segment, "bundle_id": bundle_id, "components": parts, "evidence": evidence}
    return row | {"discount_bps": 0, "score": 1.0, "currency": "EUR", "release_id": "r", "inputs": "{}"}


def told(
    prices: dict[str, int], costs: dict[str, int], elasticity: float = -4.0, **further: Any
) -> list[dict[str, Any]]:
    rows = [{"kind": "product", "sku": sku, "name": name, "a": costs.get(sku)} for sku, name in KINDS.items()]
    rows += [{"kind": "price", "sku": sku, "a": price} for sku, price in prices.items()]
    rows.append({"kind": "elasticity", "segment": "*", "name": "*", "x": elasticity, "y": 0.1})
    rows += [{"kind": "offered", "segment": segment, "name": "b1", "sku": sku, "x": 0.1}
             for sku in ("tea", "cup") for segment in ("*", "few")]  # fmt: skip
    return rows


def priced(
    bundles: list[dict[str, Any]], rows: list[dict[str, Any]], pricing: Pricing | None = None, currency: str = "EUR"
) -> list[dict[str, Any]]:
    schema = pa.schema([field for field in lake.arrow_schema(BUNDLES) if field.name != "as_of"])
    table = pa.Table.from_pylist(bundles, schema=schema)
    found = pricer.priced(table, pa.Table.from_pylist(rows, schema=TOLD), region(currency), pricing or Pricing(), 365)
    assert found.schema.names == schema.names
    return found.to_pylist()


@pytest.mark.parametrize(
    ("currency", "prices"), [("JPY", ("980", "520")), ("EUR", ("9.80", "5.20")), ("KWD", ("9.800", "5.200"))]
)
def test_currencies_with_none_two_and_three_decimals_are_priced_in_their_own_minor_units(currency, prices) -> None:
    tea, cup = (minor_units(price, currency) for price in prices)
    step = max(tea // 98, 1)
    pricing = Pricing(price_points={currency: PricePoint(step=step, ending=step - 1)})
    rows = told({"tea": tea, "cup": cup}, {"tea": tea // 2, "cup": cup // 2})
    (found,) = priced([bundle("b1", "cup", "tea")], rows, pricing, currency)
    assert found["discount_bps"] > 0
    assert discounted(tea + cup, found["discount_bps"]) % step == step - 1
    assert found["pricing"]["reason"] == "discounted"
    assert found["pricing"]["cost_basis"] == "known"
    cup_part, tea_part = found["components"]
    assert tea_part["floor_cents"] == -(-(tea // 2) * 10_500 // 10_000)
    assert cup_part["substitutes"] == [{"sku": "milk", "floor_cents": None}], "milk has neither cost nor price"


def test_a_missing_price_means_no_discount_and_says_so() -> None:
    (found,) = priced([bundle("b1", "cup", "tea")], told({"tea": 400}, {}))
    assert (found["discount_bps"], found["expected_profit_cents"]) == (0, None)
    assert (found["pricing"]["reason"], found["pricing"]["list_total_cents"]) == ("no_price", None)


def test_a_missing_cost_is_assumed_by_category_and_said() -> None:
    pricing = Pricing(assumed_margins_bps={"Home": 6_000, "Home > Cups": 4_000})
    (found,) = priced([bundle("b1", "cup", "tea")], told({"tea": 400, "cup": 1000}, {"tea": 100}), pricing)
    assert found["pricing"]["cost_basis"] == "assumed"
    assert found["pricing"]["cost_cents"] == 100 + 600
    assert [part["floor_cents"] for part in found["components"]] == [600, 105]


def test_a_set_that_no_order_held_is_not_discounted_by_any_strategy() -> None:
    rows = told({"tea": 400, "cup": 400}, {"tea": 40, "cup": 40})
    for name in ("fixed", "profit", "clear_stock"):
        (found,) = priced([bundle("b1", "cup", "tea", together=0)], rows, Pricing(strategy=name))
        assert (found["discount_bps"], found["pricing"]["reason"]) == (0, "no_counts")


def test_without_any_known_response_nothing_is_discounted() -> None:
    rows = [row for row in told({"tea": 400, "cup": 400}, {"tea": 100, "cup": 100}) if row["kind"] != "elasticity"]
    (found,) = priced([bundle("b1", "cup", "tea")], rows)
    assert (found["discount_bps"], found["pricing"]["reason"]) == (0, "no_gain")


def test_goods_that_lie_too_long_are_discounted_where_profit_alone_would_not() -> None:
    rows = told({"tea": 400, "cup": 400}, {"tea": 280, "cup": 280}, elasticity=-2.2)
    rows += [{"kind": "stock", "sku": "tea", "x": 900.0}, {"kind": "sold", "sku": "tea", "x": 1.0}]
    by_profit, to_clear = (
        priced([bundle("b1", "cup", "tea")], rows, Pricing(strategy=name))[0] for name in ("profit", "clear_stock")
    )
    assert by_profit["discount_bps"] == 0
    assert to_clear["discount_bps"] > 0
    assert to_clear["pricing"]["expected_gain_cents"] < 0, "what it costs is told"


def test_a_budget_is_for_a_day_and_weighs_a_segment_by_its_orders() -> None:
    rows = told({"tea": 400, "cup": 400}, {"tea": 40, "cup": 40})
    rows += [
        {"kind": "orders", "sku": "here", "segment": name, "x": count}
        for name, count in (("few", 10.0), ("many", 90.0))
    ]
    bundles = [bundle("b1", "cup", "tea"), bundle("b1", "cup", "tea", segment="few")]
    everyone, few = priced(bundles, rows)
    daily = everyone["pricing"]["expected_spend_cents"] * 100 / 365
    assert everyone["discount_bps"] == few["discount_bps"] > 0

    def discounted_segments(budget: float) -> set[str]:
        pricing = Pricing(daily_budget={"here": int(budget)})
        return {row["segment"] for row in priced(bundles, rows, pricing) if row["discount_bps"]}

    assert discounted_segments(1.2 * daily) == {"*", "few"}
    assert discounted_segments(0.5 * daily) == {"few"}
    assert discounted_segments(0) == set()
