"""A whole build of a small shop whose truth is known."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date
from typing import Any

import duckdb
import pytest

from spark_jobs import build, order_files, segments
from spark_jobs.facts import Job
from tandem.bundle import bundle_id
from tandem.errors import ConfigError
from tandem.settings import Settings
from tests.spark_jobs.small_shop import AS_OF, PRODUCTS
from warehouse import gate, lake, lineage
from warehouse.tables import BUILT

pytestmark = pytest.mark.spark
Shop = Callable[..., Settings]
JobOf = Callable[[Settings], Job]
TABLES = (
    "segment_members",
    "affinity",
    "neighbours",
    "substitutes",
    "rankings",
    "bundles",
    "bundle_sets",
    "evaluations",
)
"""What a build makes."""
SOMETIMES = {"segments": {"products"}}
"""What a job reads only where the shop is large enough."""


def rows(settings: Settings, query: str) -> list[tuple[Any, ...]]:
    with duckdb.connect() as connection:
        for name in ("sales_lines", *TABLES):
            connection.register(name, lake.open_table(settings, name).to_pyarrow_dataset())
        return connection.execute(query).fetchall()


def test_a_build_finds_what_is_bought_together_and_says_so_in_exact_numbers(spark: Any, built: Settings):
    # Affinity equals a plain SQL count of the orders before the day, at every level.
    wanted = rows(
        built,
        """
        WITH lines AS (
            SELECT region, order_id, sku, any_value(customer_id) AS customer FROM sales_lines
            WHERE ordered_at < TIMESTAMPTZ '2024-03-01 00:00:00Z' AND quantity > 0 AND net_cents > 0 GROUP BY ALL),
        placed AS (
            SELECT l.*, coalesce(m.segment, 'everyone') AS segment FROM lines l
            LEFT JOIN segment_members m ON l.region = m.region AND l.customer = m.customer_id),
        cells AS (
            SELECT *, region AS cell_region, segment AS cell_segment FROM placed
            UNION ALL SELECT *, region, '*' FROM placed
            UNION ALL SELECT *, '*', '*' FROM placed)
        SELECT a.cell_region, a.cell_segment, a.sku, b.sku, count(*) AS both,
               count(DISTINCT coalesce(a.customer, a.order_id)) AS customers
        FROM cells a JOIN cells b ON a.cell_region = b.cell_region AND a.cell_segment = b.cell_segment
             AND a.region = b.region AND a.order_id = b.order_id AND a.sku <> b.sku
        GROUP BY ALL HAVING customers >= 3 ORDER BY ALL""",
    )
    found = rows(
        built,
        "SELECT region, segment, anchor, companion, orders_both, customers_both FROM affinity ORDER BY ALL",
    )
    assert found == wanted
    assert len(found) > 50
    assert rows(built, "SELECT count(*) FROM affinity WHERE orders_both > 10 AND rank = 1") > [(0,)], "no file is lost"
    # The planted set is found, whole, and nothing inactive, excluded or of one need together.
    sets = {
        tuple(row[0]): row[1:]
        for row in rows(
            built,
            """SELECT list_transform(components, lambda part: part.sku), discount_bps, evidence FROM bundles
            WHERE region = 'north' AND segment = '*'""",
        )
    }
    assert ("cheese", "pasta", "sauce") in sets
    for skus in sets:
        assert not {"bag", "old"} & set(skus)
        categories = [PRODUCTS[sku][0] for sku in skus]
        assert len(categories) == len(set(categories))
    together = rows(
        built,
        """SELECT count(*) FROM (SELECT order_id FROM sales_lines WHERE region = 'north' AND quantity > 0
            AND ordered_at < TIMESTAMPTZ '2024-03-01 00:00:00Z' AND sku IN ('cheese', 'pasta', 'sauce')
            GROUP BY order_id HAVING count(*) = 3)""",
    )
    assert sets["cheese", "pasta", "sauce"][1]["orders_together"] == together[0][0]
    # Parents get nappies with wipes on the evidence of parents.
    (ranked,) = rows(
        built,
        "SELECT bundles FROM bundle_sets WHERE region = 'north' AND segment = 'parents' AND anchor = 'nappy'",
    )
    first = ranked[0][0]
    assert first["bundle_id"] == bundle_id([("nappy", 1), ("wipes", 1)])
    assert first["matched"] == "segment"
    # Every listed bundle exists, and every pair rests on k customers.
    assert rows(
        built,
        """SELECT count(*) FROM (SELECT region, segment, unnest(bundles).bundle_id AS id FROM bundle_sets) l
        ANTI JOIN bundles b ON l.region = b.region AND l.segment = b.segment AND l.id = b.bundle_id""",
    ) == [(0,)]
    assert rows(built, "SELECT min(evidence.customers_together) >= 3 FROM bundles") == [(True,)]
    # Substitutes are of the component's own category.
    (pasta,) = rows(
        built,
        """SELECT DISTINCT part.substitutes FROM (SELECT unnest(components) AS part FROM bundles)
        WHERE part.sku = 'pasta'""",
    )[0]
    assert [other["sku"] for other in pasta] == ["penne"]
    # No discount takes a component below its floor, and the gate agrees.
    gate.run(built, AS_OF, print)
    # Later orders were asked, and answered with intervals.
    metrics = {
        row[0]: row[1:] for row in rows(built, "SELECT metric, low, value, high FROM evaluations WHERE region = '*'")
    }
    assert {"hit@5/popularity", "hit@5/confidence", "hit@5/ranker", "tail@5/ranker", "coverage/score"} <= set(metrics)
    assert {"frontier_hit@5/ranker@tail=0.5", "calibration_error/ranker"} <= set(metrics)
    assert all(low <= value <= high for low, value, high in metrics.values())
    # A build again, for the same day and facts, gives the same rows in every table.
    before = {name: sorted(map(str, rows(built, f"SELECT * FROM {name}"))) for name in TABLES}
    for name in build.JOBS:
        build.run_job(spark, built, name, AS_OF)
    for name in TABLES:
        assert sorted(map(str, rows(built, f"SELECT * FROM {name}"))) == before[name], name


def test_floors_come_from_cost_and_minimum_price_or_from_the_assumed_margin(built: Settings):
    floors = dict(
        rows(built, "SELECT DISTINCT part.sku, part.floor_cents FROM (SELECT unnest(components) AS part FROM bundles)")
    )
    assert floors["pasta"] == 105, "cost 100 and 5 % margin"
    assert floors["cheese"] == 390, "the minimum advertised price is above cost and margin"
    assert floors["wine"] == 675, "no cost: the price less the assumed margin of 25 %"


def learned_from(job: Job, max_basket: int = 100) -> list[dict[str, Any]]:
    return order_files.orders(order_files.packed(job).toArrow(), max_basket).to_pylist()


def test_orders_of_the_day_itself_and_returns_are_not_learned_from(shop: Shop, job_of: JobOf):
    settings = shop()
    held = learned_from(job_of(settings))
    assert max(order["day"] for order in held) < (AS_OF - date(1970, 1, 1)).days
    counted = rows(
        settings,
        """SELECT count(DISTINCT (region, order_id)) FROM sales_lines
        WHERE ordered_at < TIMESTAMPTZ '2024-03-01 00:00:00Z' AND quantity > 0 AND net_cents > 0""",
    )
    returned = "SELECT count(*) > 0 FROM sales_lines WHERE quantity < 0"
    assert [(len(held),)] == counted
    assert rows(settings, returned) == [(True,)]


def test_a_region_that_asks_for_consent_learns_from_those_who_gave_it_and_from_nobody_in_particular(
    shop: Shop, job_of: JobOf
):
    held = learned_from(job_of(shop(purposes='["personalisation"]')))
    south = {order["customer"] for order in held if order["region"] == "south"}
    assert None in south
    assert all(int(customer[1:]) % 2 for customer in south if customer)
    north = {order["customer"] for order in held if order["region"] == "north"}
    assert any(int(customer[1:]) % 2 == 0 for customer in north if customer)


def test_orders_larger_than_the_limit_are_left_out(shop: Shop, job_of: JobOf):
    assert max(len(order["skus"]) for order in learned_from(job_of(shop()), 2)) == 2


def test_the_first_segment_that_matches_wins_and_the_rest_are_everyone(shop: Shop, job_of: JobOf):
    members = {(row.region, row.customer_id): row for row in segments.members(job_of(shop())).collect()}
    assert all(row.segment == "parents" for (_, customer), row in members.items() if int(customer[1:]) < 15)
    assert {row.segment for row in members.values()} >= {"parents", "everyone"}
    assert all(row.segment != "parents" for (_, customer), row in members.items() if int(customer[1:]) >= 15)


def test_a_segment_whose_attributes_the_shop_does_not_bring_is_empty_instead_of_wrong(shop: Shop, job_of: JobOf):
    settings = shop()
    text = '[[segment]]\nname = "seniors"\nrequires = ["age"]\nwhere = "age > 60"\n'
    (settings.config_folder / "segments.toml").write_text(text, encoding="utf-8")
    assert {row.segment for row in segments.members(job_of(settings)).collect()} == {"everyone"}


@pytest.mark.parametrize(
    ("where", "wrong"),
    [("kidz = '1'", "kidz"), ("kids ==== 1", "Syntax error"), ("frequency + 1", "not true or false")],
)
def test_a_wrong_predicate_is_one_line_that_names_file_segment_and_columns(
    shop: Shop, job_of: JobOf, where: str, wrong: str
):
    settings = shop()
    path = settings.config_folder / "segments.toml"
    path.write_text(f'[[segment]]\nname = "x"\nwhere = "{where}"\n', encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        segments.members(job_of(settings)).collect()
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    assert "'x'" in message
    assert wrong in message
    assert "recency_days" in message


def test_inputs_pin_the_versions_that_are_read(spark: Any, shop: Shop):
    settings = shop()
    pinned = lake.versions(settings)
    lake.replace(settings, lake.TABLES["customers"], lake.arrow_schema(lake.TABLES["customers"]).empty_table())
    build.run_job(spark, settings, "segments", AS_OF, pinned)
    assert rows(settings, "SELECT count(*) FROM segment_members WHERE segment = 'parents'")[0][0] > 0
    assert json.dumps(pinned)


def test_jobs_open_the_tables_that_lineage_says_and_no_others(building: tuple[Settings, dict[str, set[str]]]):
    _, opened = building
    assert list(lineage.JOBS) == list(build.JOBS)
    for name, flow in lineage.JOBS.items():
        sometimes = SOMETIMES.get(name, set())
        assert opened[name] - set(flow.writes) - sometimes == set(flow.reads) - sometimes, name
        assert set(flow.writes) <= opened[name], name
    assert {table for flow in lineage.JOBS.values() for table in flow.writes} == set(BUILT)
