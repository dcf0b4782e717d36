"""The affinity table holds, column by column and level by level, what SQL counts in the facts."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Callable
from typing import Any

import pytest

from spark_jobs import build
from spark_jobs.facts import Job
from tandem.settings import Settings
from tests.spark_jobs.small_shop import AS_OF, line, sales
from warehouse import lake
from warehouse.views import connect

pytestmark = pytest.mark.spark
Shop = Callable[..., Settings]
JobOf = Callable[[Settings], Job]

HALF_LIFE = 45
WANTED = """
WITH willing AS (
    SELECT customer_id FROM customers WHERE list_contains(consents, 'personalisation')),
lines AS (
    SELECT region, order_id, sku, min(ordered_at) AS moment, min(customer_id) AS customer FROM sales_lines
    WHERE ordered_at < TIMESTAMPTZ '2024-03-01 00:00:00Z' AND ordered_at >= TIMESTAMPTZ '2023-03-02 00:00:00Z'
        AND quantity > 0 AND net_cents > 0
        AND (region <> 'south' OR customer_id IS NULL OR customer_id IN (FROM willing))
    GROUP BY ALL),
orders AS (
    SELECT region, order_id, min(moment) AS first, min(customer) AS customer FROM lines
    GROUP BY ALL HAVING count(*) <= $largest),
weighed AS (
    SELECT *, date_diff('day', DATE '1970-01-01', CAST(first AS DATE)) AS day,
        date_diff('day', DATE '1970-01-01', DATE '2023-03-02') // $half AS base,
        CAST(round(2 ** (16 + (day % $half) / $half)) AS BIGINT) << (day // $half - base) AS weight FROM orders),
placed AS (
    SELECT w.region, coalesce(m.segment, 'everyone') AS segment, w.order_id, l.sku, l.moment, w.weight,
        coalesce(w.customer, w.region || w.order_id) AS customer
    FROM weighed w JOIN lines l USING (region, order_id)
    LEFT JOIN segment_members m ON w.region = m.region AND w.customer = m.customer_id AND m.as_of = DATE '2024-03-01'),
cells AS (
    SELECT *, region AS r, segment AS s FROM placed
    UNION ALL SELECT *, region, '*' FROM placed
    UNION ALL SELECT *, '*', '*' FROM placed),
totals AS (
    SELECT r, s, count(*) AS n, sum(weight) AS weight FROM
        (SELECT DISTINCT r, s, region, order_id, weight FROM cells) GROUP BY ALL),
items AS (SELECT r, s, sku, count(*) AS orders, sum(weight) AS weight FROM cells GROUP BY ALL),
pairs AS (
    SELECT a.r, a.s, a.sku AS anchor, b.sku AS companion, count(*) AS orders, count(DISTINCT a.customer) AS customers,
        count(*) FILTER (a.moment < b.moment) AS anchor_first, count(*) FILTER (a.moment > b.moment) AS companion_first,
        sum(a.weight) AS weight
    FROM cells a JOIN cells b ON a.r = b.r AND a.s = b.s AND a.region = b.region AND a.order_id = b.order_id
    WHERE a.sku <> b.sku GROUP BY ALL HAVING count(DISTINCT a.customer) >= 3),
scored AS (
    SELECT p.*, t.n, t.weight AS w, i.orders AS a, i.weight AS wa, j.orders AS b, j.weight AS wb,
        p.orders / (i.orders * pow(j.orders, 0.2)) AS score,
        2 ** (16 + date_diff('day', DATE '1970-01-01', DATE '2024-03-01') / $half
            - date_diff('day', DATE '1970-01-01', DATE '2023-03-02') // $half) AS unit
    FROM pairs p JOIN totals t USING (r, s)
    JOIN items i ON i.r = p.r AND i.s = p.s AND i.sku = anchor
    JOIN items j ON j.r = p.r AND j.s = p.s AND j.sku = companion)
SELECT r AS region, s AS segment, anchor, companion, n AS orders_total, a AS orders_anchor, b AS orders_companion,
    orders AS orders_both, customers AS customers_both, anchor_first AS orders_anchor_first,
    companion_first AS orders_companion_first, w / unit AS decayed_total, wa / unit AS decayed_anchor,
    wb / unit AS decayed_companion, weight / unit AS decayed_both, orders / n AS support, orders / a AS confidence,
    orders * n / (a * b) AS lift, score,
    row_number() OVER (PARTITION BY r, s, anchor ORDER BY score DESC, companion) AS rank
FROM scored ORDER BY ALL
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


def test_every_column_at_every_level_equals_sql_and_what_caps_left_out_is_told(
    varied: Settings, job_of: JobOf, capsys: pytest.CaptureFixture[str]
):
    build.run_job(job_of(varied).spark, varied, "segments", AS_OF)
    build.run_job(job_of(varied).spark, varied, "affinity", AS_OF)
    names = "region, segment, anchor, companion"
    wanted = rows(varied, WANTED, {"largest": 8, "half": HALF_LIFE})
    columns = ", ".join(wanted[0])
    found = rows(varied, f"SELECT {columns} FROM affinity ORDER BY {names}")
    for mine, theirs in zip(found, wanted, strict=True):
        for name, value in theirs.items():
            close = pytest.approx(value, rel=1e-12) if isinstance(value, float) else value
            assert mine[name] == close, (name, mine, theirs)
    assert {(row["region"], row["segment"]) for row in found} >= {("north", "parents"), ("south", "*"), ("*", "*")}
    assert any(row["orders_anchor_first"] > row["orders_companion_first"] > 0 for row in found)
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
