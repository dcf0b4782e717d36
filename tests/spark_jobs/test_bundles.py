"""The job `bundles` with the rules that docs/merchandising.md shows."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest

from spark_jobs import build, bundles
from spark_jobs.facts import Job
from tandem.bundle import bundle_id
from tandem.settings import Settings
from tests.spark_jobs.small_shop import AS_OF, PRODUCTS
from warehouse import gate, lake

pytestmark = pytest.mark.spark
GUIDE = Path(__file__).parents[2] / "docs" / "merchandising.md"
Shop = Callable[..., Settings]
JobOf = Callable[[Settings], Job]


def rows(settings: Settings, query: str) -> list[tuple[Any, ...]]:
    with duckdb.connect() as connection:
        for name in ("bundles", "bundle_sets"):
            connection.register(name, lake.open_table(settings, name).to_pyarrow_dataset())
        return connection.execute(query).fetchall()


def ruled(settings: Settings) -> dict[tuple[str, str], dict[tuple[str, ...], dict[str, Any]]]:
    """By region and segment: the components of each bundle and its evidence."""
    found: dict[tuple[str, str], dict[tuple[str, ...], dict[str, Any]]] = {}
    query = "SELECT region, segment, list_transform(components, lambda part: part.sku), evidence FROM bundles"
    for region, segment, skus, evidence in rows(settings, query):
        found.setdefault((region, segment), {})[tuple(skus)] = evidence
    return found


def test_the_rules_of_the_guide_do_what_it_says(spark: Any, shop: Shop, capsys: pytest.CaptureFixture[str]):
    guide = GUIDE.read_text(encoding="utf-8")
    settings = shop()
    path = settings.config_folder / "rules.toml"
    (example,) = re.findall(r"^```toml\n(.*?)^```", guide, re.MULTILINE | re.DOTALL)
    path.write_text(path.read_text(encoding="utf-8") + example, encoding="utf-8")
    for name in ("segments", "affinity", "substitutes", "ranking", "bundles"):
        build.run_job(spark, settings, name, AS_OF)
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("rules.toml")]
    shown = re.findall(r"^    (rules\.toml, line \d+: .*)$", guide, re.MULTILINE)
    without_lines = [re.sub(r"line \d+", "line N", line) for line in said]
    assert re.sub(r"line \d+", "line N", shown[0]) in without_lines
    assert len(said) == 2, "nor is there medicine"
    found = ruled(settings)
    for (region, _), made in found.items():
        for skus in made:
            if "nappy" in skus:
                assert "wipes" in skus, "always with"
            if region == "north" and "soap" in skus:
                assert not any(PRODUCTS[sku][0].startswith("Food") for sku in skus), "excluded with food in the north"
    pinned = bundle_id((sku, 1) for sku in ("cheese", "pasta", "pesto"))
    firsts = rows(settings, "SELECT region, segment, bundles[1] FROM bundle_sets WHERE anchor = 'pasta'")
    assert {(region, first["bundle_id"]) for region, _, first in firsts} == {("north", pinned), ("south", pinned)}
    for made in found.values():
        told = made.get(("cheese", "pasta", "pesto"))
        assert told is None or told["basis"] == "rule" or told["customers_together"] >= 3
    assert [row for row in gate.measure(settings, AS_OF) if row.gate == "max_below_k" and not row.passed] == []


def test_later_orders_are_asked_about_bundles_in_each_region_and_everywhere(built: Settings, job_of: JobOf):
    found = bundles.evaluated(job_of(built))
    assert {row.region for row in found} == {"north", "south", "*"}
    everywhere = {row.metric: row for row in found if row.region == "*"}
    assert {"anchors_covered/bundles", "served/bundles", "taken/bundles", "calibration_error/bundles"} <= set(
        everywhere
    )
    assert 0 < everywhere["taken/bundles"].low <= everywhere["taken/bundles"].value <= 1
    assert everywhere["served/bundles"].queries > 100
