"""Are the affinity table's numbers those of plain SQL? Every row of every level, counted again by DuckDB.

`make bench-exact`, on the lake of TANDEM_HOME after `tandem build`.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Any

from spark_jobs.affinity import smallest_k
from spark_jobs.build import job_of
from spark_jobs.facts import Job
from spark_jobs.kernels import days
from tandem import settings as settings_file
from tandem.settings import Settings
from warehouse import lake
from warehouse.views import connect, quoted

TABLES = ("sales_lines", "customers", "segment_members", "affinity")
ORDERS = """
CREATE TEMP TABLE placed AS
WITH lines AS (
    SELECT region, order_id, sku, min(ordered_at) AS moment, min(customer_id) AS customer FROM sales_lines
    WHERE ordered_at < $before AND ordered_at >= $since AND quantity > 0 AND net_cents > 0 AND ({agreed}) GROUP BY ALL),
orders AS (
    SELECT region, order_id, min(moment) AS first, min(customer) AS customer FROM lines
    GROUP BY ALL HAVING count(*) <= $largest),
weighed AS (
    SELECT *, date_diff('day', DATE '1970-01-01', CAST(first AS DATE)) AS day,
        CAST(round(2 ** (16 + (day % $half) / $half)) AS BIGINT) << (day // $half - $base) AS weight FROM orders)
SELECT w.region, coalesce(m.segment, 'everyone') AS segment, w.order_id, l.sku, l.moment, w.weight,
    coalesce(w.customer, w.region || ' ' || w.order_id) AS customer
FROM weighed w JOIN lines l USING (region, order_id)
LEFT JOIN (FROM segment_members WHERE as_of = $as_of) m ON w.region = m.region AND w.customer = m.customer_id
"""
LEVEL = """
WITH own AS (FROM placed WHERE ($region = '*' OR region = $region) AND ($segment = '*' OR segment = $segment)),
total AS (
    SELECT count(*) AS n, sum(weight) AS weight FROM (SELECT DISTINCT region, order_id, weight FROM own)),
items AS (SELECT sku, count(*) AS orders, sum(weight) AS weight FROM own GROUP BY ALL),
pairs AS (
    SELECT a.sku AS anchor, b.sku AS companion, count(*) AS orders, count(DISTINCT a.customer) AS customers,
        count(*) FILTER (a.moment < b.moment) AS anchor_first, count(*) FILTER (a.moment > b.moment) AS companion_first,
        sum(a.weight) AS weight
    FROM own a JOIN own b ON a.region = b.region AND a.order_id = b.order_id AND a.sku <> b.sku
    GROUP BY ALL HAVING count(DISTINCT a.customer) >= $k),
wanted AS (
    SELECT p.*, i.orders AS a, i.weight AS wa, j.orders AS b, j.weight AS wb
    FROM pairs p JOIN items i ON i.sku = anchor JOIN items j ON j.sku = companion),
found AS (FROM affinity WHERE as_of = $as_of AND region = $region AND segment = $segment)
SELECT count(*), count(*) FILTER (
        f.orders_total = n AND orders_anchor = a AND orders_companion = b AND orders_both = w.orders
        AND customers_both = w.customers AND orders_anchor_first = anchor_first
        AND orders_companion_first = companion_first
        AND abs(decayed_total * $unit - total.weight) < 1e-9 * total.weight
        AND abs(decayed_anchor * $unit - wa) < 1e-9 * wa AND abs(decayed_companion * $unit - wb) < 1e-9 * wb
        AND abs(decayed_both * $unit - w.weight) < 1e-9 * w.weight
        AND abs(score - w.orders / (a * pow(b, $damping))) < 1e-12 AND abs(support - w.orders / n) < 1e-12
        AND abs(confidence - w.orders / a) < 1e-12 AND abs(lift - w.orders * n / (a * b)) < 1e-9 * lift
        AND rank BETWEEN 1 AND $top),
    (SELECT sum(least(many, $top)) FROM (SELECT count(*) AS many FROM wanted GROUP BY anchor))
FROM found f LEFT JOIN wanted w USING (anchor, companion), total
"""


def checked(job: Job) -> Iterator[tuple[str, str, int, int, int]]:
    """By level: region, segment, rows, those that SQL agrees with in every column, rows that there should be."""
    learning = job.rules.learning
    since = job.as_of - dt.timedelta(days=learning.window_days)
    half = learning.half_life_days
    base = days.number(since) // half
    with connect(job.settings, TABLES, memory_limit="4GB") as connection:
        values: dict[str, Any] = {
            "before": _midnight(job.as_of),
            "since": _midnight(since),
            "largest": learning.max_basket,
            "half": half,
            "base": base,
            "as_of": job.as_of,
        }
        connection.execute(ORDERS.format(agreed=_agreed(job)), values)
        levels = connection.execute(
            """SELECT DISTINCT region, segment FROM placed UNION SELECT DISTINCT region, '*' FROM placed
            UNION SELECT '*', '*' ORDER BY ALL"""
        ).fetchall()
        for region, segment in levels:
            asked = {
                "region": region,
                "segment": segment,
                "k": smallest_k(job, region),
                "as_of": job.as_of,
                "unit": 2 ** (16 + days.number(job.as_of) / half - base),
                "damping": learning.popularity_damping,
                "top": learning.top,
            }
            rows, same, wanted = connection.execute(LEVEL, asked).fetchone()
            yield region, segment, rows, same, wanted or 0


def _midnight(day: dt.date) -> dt.datetime:
    return dt.datetime.combine(day, dt.time(), dt.UTC)


def _agreed(job: Job) -> str:
    """Which lines may be learned from: what each region asks its customers' consent for."""
    clauses = ["false"]
    for region in job.regions.region:
        here = f"region = {quoted(region.name)}"
        if region.consent_purposes:
            asked = ", ".join(map(quoted, region.consent_purposes))
            willing = f"SELECT customer_id FROM customers WHERE list_has_all(consents, [{asked}])"
            here += f" AND (customer_id IS NULL OR customer_id IN ({willing}))"
        clauses.append(f"({here})")
    return " OR ".join(clauses)


def _last(settings: Settings) -> dt.date | None:
    with connect(settings, ("affinity",)) as connection:
        day: dt.date | None = connection.execute("SELECT max(as_of) FROM affinity").fetchone()[0]
        return day


def main() -> None:
    settings = settings_file.from_environment()
    as_of = _last(settings) if lake.exists(settings, "affinity") else None
    if as_of is None:
        print("the lake has no affinity rows to check; build a day first: tandem build")
        return
    job = job_of(None, settings, as_of)
    wrong = 0
    print(f"{as_of}, every row counted again by DuckDB\nregion      segment          rows      equal     in SQL")
    for region, segment, rows, same, wanted in checked(job):
        wrong += not rows == same == wanted
        print(f"{region:<10}  {segment:<12} {rows:>9,}  {same:>9,}  {wanted:>9,}", flush=True)
    if wrong:
        raise SystemExit(f"{wrong} levels differ from SQL")
    print("all levels equal SQL")


if __name__ == "__main__":
    main()
