"""Bundles priced in Spark, and what is said about their prices."""

from __future__ import annotations

import datetime as dt
import shutil
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import pytest

from spark_jobs import elasticity, pricing
from spark_jobs.facts import Job
from tandem.errors import ConfigError
from tandem.settings import Settings
from tests.spark_jobs.small_shop import AS_OF, line, sales
from warehouse import gate, lake
from warehouse.tables import TABLES

pytestmark = pytest.mark.spark
JobOf = Callable[[Settings], Job]


def rows(settings: Settings, query: str) -> list[tuple[Any, ...]]:
    with duckdb.connect() as connection:
        connection.register("bundles", lake.open_table(settings, "bundles").to_pyarrow_dataset())
        return connection.execute(query).fetchall()


def again(settings: Settings, job_of: JobOf, rules: str, law: int = 0) -> list[dict[str, Any]]:
    """The built shop's bundles priced by other rules, not written; `law` is the regions' lowest_price_days."""
    path = settings.config_folder / "rules.toml"
    kept, regions = path.read_text(encoding="utf-8"), settings.config_folder / "regions.toml"
    kept_regions = regions.read_text(encoding="utf-8")
    path.write_text(rules, encoding="utf-8")
    regions.write_text(kept_regions.replace("k = 3", f"k = 3\nlowest_price_days = {law}"), encoding="utf-8")
    try:
        job = job_of(settings)
        found = pricing.sources(job)
        return [
            row | {"region": region}
            for region in job.regions.names
            for row in pricing.priced(found, region).to_pylist()
        ]
    finally:
        path.write_text(kept, encoding="utf-8")
        regions.write_text(kept_regions, encoding="utf-8")


def test_every_bundle_says_why_it_is_discounted_or_not(built: Settings) -> None:
    found = rows(built, "SELECT DISTINCT pricing.strategy, pricing.reason, pricing.cost_basis FROM bundles")
    assert {row[0] for row in found} == {"profit"}
    assert {row[1] for row in found} <= {"discounted", "no_counts", "at_floor", "no_gain", "not_sure"}
    assert {row[2] for row in found} == {"known", "assumed"}
    (assumed,) = rows(
        built,
        """SELECT count(*) FROM bundles WHERE list_contains(list_transform(components, lambda part: part.sku), 'wine')
        != (pricing.cost_basis = 'assumed')""",
    )
    assert assumed == (0,), "wine alone has no cost"
    assert rows(
        built,
        """SELECT count(*) FROM bundles WHERE discount_bps > 0 AND NOT (pricing.probability_better >= 0.8
        AND pricing.expected_gain_cents > 0 AND pricing.reason = 'discounted')""",
    ) == [(0,)]
    assert rows(
        built,
        """SELECT count(*) FROM bundles WHERE abs(expected_profit_cents - (pricing.list_total_cents
        * (10000 - discount_bps) / 10000 - pricing.cost_cents)) > 0.01""",
    ) == [(0,)]


def test_strategies_budget_price_points_and_the_law_each_do_what_they_say(built: Settings, job_of: JobOf) -> None:
    head = "[learning]\nmin_orders_together = 8\n[pricing]\n"
    fixed = again(built, job_of, head + 'strategy = "fixed"\nfixed_discount_bps = 400')
    assert {row["discount_bps"] for row in fixed if row["pricing"]["reason"] == "discounted"} <= set(range(50, 401))
    assert any(row["discount_bps"] == 400 for row in fixed)
    assert not any(row["discount_bps"] for row in again(built, job_of, head + 'strategy = "none"'))

    ended = head + 'strategy = "fixed"\nprice_points = { EUR = { step = 10, ending = 9 } }'
    for row in again(built, job_of, ended):
        if row["discount_bps"]:
            total = row["pricing"]["list_total_cents"]
            assert (total * (10_000 - row["discount_bps"]) * 2 + 10_000) // 20_000 % 10 == 9

    broke = again(built, job_of, head + 'strategy = "fixed"\ndaily_budget = { north = 0 }')
    assert not any(row["discount_bps"] for row in broke if row["region"] == "north")
    assert any(row["pricing"]["reason"] == "over_budget" for row in broke if row["region"] == "north")
    assert any(row["discount_bps"] for row in broke if row["region"] == "south")

    with pytest.raises(ConfigError, match="daily_budget names 'moon'"):
        again(built, job_of, head + "daily_budget = { moon = 1 }")


def test_where_the_law_asks_what_was_cheaper_in_the_last_days_is_not_discounted(
    built: Settings, job_of: JobOf, tmp_path: Path
) -> None:
    settings = msgspec.structs.replace(built, home=tmp_path)
    shutil.copytree(built.home / "lake", tmp_path / "lake")
    at = dt.datetime(2024, 2, 1, tzinfo=dt.UTC)
    cheap = [line(region, "cheap", None, at, 1, "pasta") | {"unit_price_cents": 120} for region in ("north", "south")]
    returned = line("north", "back", None, at, 1, "cheese") | {"unit_price_cents": 1, "quantity": Decimal(-1)}
    before = line("north", "then", None, at - dt.timedelta(days=9), 1, "cheese") | {"unit_price_cents": 1}
    lake.append(settings, TABLES["sales_lines"], sales([*cheap, returned, before]))
    rules = '[pricing]\nstrategy = "fixed"'
    lawful, free = again(settings, job_of, rules, law=30), again(settings, job_of, rules)

    def of_pasta(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [row for row in found if "pasta" in {part["sku"] for part in row["components"]}]

    assert {row["discount_bps"] for row in of_pasta(lawful)} == {0}
    reasons = {row["pricing"]["reason"] for row in of_pasta(lawful)}
    assert "above_lowest_price" in reasons <= {"above_lowest_price", "no_counts"}
    assert any(row["discount_bps"] for row in of_pasta(free))
    assert any(row["discount_bps"] for row in lawful)


def test_what_was_priced_is_the_same_on_a_rerun_and_passes_the_gate(built: Settings, job_of: JobOf) -> None:
    kept = sorted(map(str, rows(built, "SELECT * FROM bundles")))
    pricing.write(job_of(built))
    assert sorted(map(str, rows(built, "SELECT * FROM bundles"))) == kept
    gate.run(built, AS_OF, print)


def test_profits_with_and_without_discounts_are_told_for_each_segment(built: Settings, job_of: JobOf) -> None:
    found = {(row.region, row.segment, row.metric): row for row in pricing.evaluated(job_of(built))}
    for region in ("north", "south"):
        without = found[region, "*", "expected_profit_without/discounts"]
        gain = found[region, "*", "profit_gain/discounts"]
        assert found[region, "*", "expected_profit_with/discounts"].value == pytest.approx(without.value + gain.value)
        assert without.low < without.value < without.high
        assert gain.value >= 0 > found[region, "*", "profit_gain/fixed_discounts"].value
        assert 0.7 < found[region, "*", "attach_ratio/discounts"].value < 1.4
    assert ("north", "parents", "profit_gain/discounts") in found
    assert elasticity.evaluated(job_of(built)) == [], "prices never changed"


def test_a_shop_without_orders_has_nothing_to_tell(settings: Settings, job_of: JobOf, tmp_path: Path) -> None:
    assert elasticity.elasticities(job_of(settings)).count() == 0
    assert pricing.evaluated(job_of(settings)) == []
