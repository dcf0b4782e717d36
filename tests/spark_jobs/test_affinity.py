"""The affinity table holds, column by column and level by level, what SQL counts in the facts."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Callable
from typing import Any

import pytest

from benchmarks import exact
from spark_jobs import affinity, build
from spark_jobs.facts import Job
from tandem.settings import Settings
from tests.spark_jobs.small_shop import AS_OF, line, sales
from warehouse import lake
from warehouse.views import connect

pytestmark = pytest.mark.spark
Shop = Callable[..., Settings]
JobOf = Callable[[Settings], Job]

HALF_LIFE = 45
COMPANIONS = """
WITH lines AS (
    SELECT DISTINCT region, order_id, sku FROM sales_lines
    WHERE ordered_at < CAST($before AS TIMESTAMPTZ) AND quantity > 0 AND net_cents > 0
        AND (region = 'north' OR customer_id IS NULL OR customer_id IN (
            SELECT customer_id FROM customers WHERE list_contains(consents, 'personalisation')))),
kept AS (SELECT * FROM lines QUALIFY count(*) OVER (PARTITION BY region, order_id) <= 8)
SELECT a.sku, b.sku, count(*), row_number() OVER (PARTITION BY a.sku ORDER BY count(*) DESC, b.sku)
FROM kept a JOIN kept b ON a.region = b.region AND a.order_id = b.order_id AND a.sku <> b.sku GROUP BY a.sku, b.sku
"""


def rows(settings: Settings, query: str, values: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    with connect(settings, ("sales_lines", "customers", "segment_members", "affinity")) as connection:
        found = connection.execute(query, values) if values else connection.execute(query)
        names = [column[0] for column in found.description]
        return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


@pytest.fixture
def varied(shop: Shop) -> Settings:
    """The small shop where south asks for consent, with orders whose lines were written at different times, in
    different files and months, by customers of both regions, and one order that is too large."""
    settings = shop(purposes='["personalisation"]')
    text = f"[learning]\nmax_basket = 8\nhalf_life_days = {HALF_LIFE}\n"
    (settings.config_folder / "rules.toml").write_text(text, encoding="utf-8")
    chance = random.Random(3)
    midnight = dt.datetime(2024, 2, 1, tzinfo=dt.UTC)
    early, late = [], []
    for number in range(60):
        for place, sku in enumerate(chance.sample(["wine", "cheese", "pasta", "soap"], 3)):
            at = midnight + dt.timedelta(hours=number - 30, minutes=20 * place)
            region, customer = chance.choice(["north", "south"]), f"c{chance.randrange(6)}"
            made = line(region, f"timed{number}", customer, at, place + 1, sku)
            (early if at < midnight else late).append(made)
    everything = ("pasta", "penne", "sauce", "pesto", "cheese", "wine", "soap", "bag", "nappy")
    late += [line("north", "huge", "c1", midnight, place, sku) for place, sku in enumerate(everything, 1)]
    for part in (early, late):
        lake.append(settings, lake.TABLES["sales_lines"], sales(part))
    return settings


@pytest.fixture(params=["one task reads and counts", "readers send orders to counters"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "send" in request.param:
        monkeypatch.setattr(affinity, "on_one_machine", lambda job: False)


@pytest.mark.usefixtures("way")
def test_every_column_at_every_level_equals_sql_and_what_caps_left_out_is_told(
    varied: Settings, job_of: JobOf, capsys: pytest.CaptureFixture[str]
):
    build.run_job(job_of(varied).spark, varied, "segments", AS_OF)
    build.run_job(job_of(varied).spark, varied, "affinity", AS_OF)
    levels = list(exact.checked(job_of(varied)))
    for region, segment, found, equal, wanted in levels:
        assert found == equal == wanted, (region, segment)
    assert {level[:2] for level in levels if level[2]} >= {("north", "parents"), ("south", "*"), ("*", "*")}
    told_first = rows(varied, "SELECT orders_anchor_first, orders_companion_first FROM affinity")
    assert any(row["orders_anchor_first"] > row["orders_companion_first"] > 0 for row in told_first)
    (large,) = rows(
        varied,
        """SELECT count(*) AS orders, CAST(sum(n) AS BIGINT) AS lines FROM (
            SELECT count(DISTINCT sku) AS n FROM sales_lines
            WHERE ordered_at < TIMESTAMPTZ '2024-03-01 00:00:00Z' GROUP BY region, order_id) WHERE n > 8""",
    )
    assert large["orders"]
    assert f"{large['orders']} of " in capsys.readouterr().out
    (last,) = lake.open_table(varied, "affinity").history(1)
    told = last["left_out"]
    assert (told["large_orders"], told["large_order_lines"]) == (large["orders"], large["lines"])
    assert told["popular_items"] == 0


@pytest.mark.usefixtures("way")
def test_companions_of_everything_are_those_that_most_orders_hold(varied: Settings, job_of: JobOf):
    found = affinity.companions(job_of(varied)).to_pylist()
    with connect(varied, ("sales_lines", "customers")) as connection:
        wanted = connection.execute(COMPANIONS, {"before": f"{AS_OF} 00:00:00Z"}).fetchall()
    assert wanted
    assert sorted(tuple(row.values()) for row in found) == sorted(wanted)


def test_a_rerun_replaces_its_own_day_and_no_other(built: Settings, job_of: JobOf, shop: Shop):
    settings = shop()
    job = job_of(settings)
    build.run_job(job.spark, settings, "segments", AS_OF)
    for day in (AS_OF, AS_OF - dt.timedelta(days=9), AS_OF):
        build.run_job(job.spark, settings, "affinity", day)
    days = rows(settings, "SELECT as_of, count(*) AS n, max(orders_total) AS t FROM affinity GROUP BY 1 ORDER BY 1")
    assert [row["as_of"] for row in days] == [AS_OF - dt.timedelta(days=9), AS_OF]
    assert days[0]["t"] < days[1]["t"]
    assert days[1]["n"] == rows(built, "SELECT count(*) AS n FROM affinity")[0]["n"]


def test_a_day_without_orders_has_no_rows(shop: Shop, job_of: JobOf):
    settings = shop()
    build.run_job(job_of(settings).spark, settings, "affinity", dt.date(2020, 1, 1))
    assert rows(settings, "SELECT count(*) AS n FROM affinity") == [{"n": 0}]
