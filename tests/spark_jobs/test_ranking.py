"""The rankings of the small shop, and of shops that bring less."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import duckdb
import pytest

from spark_jobs import build, order_files, ranking
from spark_jobs.facts import Job
from tandem.settings import Settings
from tests.spark_jobs.small_shop import AS_OF
from warehouse import lake

pytestmark = pytest.mark.spark


def rows(settings: Settings, query: str) -> list[tuple[Any, ...]]:
    with duckdb.connect() as connection:
        for name in ("rankings", "ranking_models", "sales_lines"):
            connection.register(name, lake.open_table(settings, name).to_pyarrow_dataset())
        return connection.execute(query).fetchall()


def test_companions_are_ranked_for_regions_and_everywhere_with_their_evidence(built: Settings):
    best = dict(rows(built, "SELECT anchor, companion FROM rankings WHERE region = 'north' AND rank = 1"))
    assert best["nappy"] == "wipes"
    assert best["pasta"] in {"sauce", "cheese"}
    assert not {"bag", "old"} & set(best), "what is excluded or inactive is neither anchor nor companion"
    assert rows(built, "SELECT count(DISTINCT region) FROM rankings") == [(3,)]
    assert rows(built, "SELECT min(probability) > 0, max(probability) < 1 FROM rankings") == [(True, True)]
    (why,) = rows(
        built,
        "SELECT why FROM rankings WHERE region = '*' AND anchor = 'nappy' AND companion = 'wipes'",
    )[0]
    (together,) = rows(
        built,
        """SELECT count(*) FROM (SELECT region, order_id FROM sales_lines WHERE sku IN ('nappy', 'wipes')
        AND ordered_at < TIMESTAMPTZ '2024-03-01 00:00:00Z' GROUP BY ALL HAVING count(*) = 2)""",
    )[0]
    assert f"orders_together={together}" in why
    assert "confidence=1.000" in why


def test_ranks_are_without_gaps_and_a_pair_stands_once(built: Settings):
    assert rows(
        built,
        """SELECT count(*) FROM (SELECT count(*) AS n, max(rank) AS last, count(DISTINCT companion) AS different
        FROM rankings GROUP BY region, segment, anchor HAVING n <> last OR n <> different)""",
    ) == [(0,)]


def test_the_same_inputs_give_the_same_rows_and_no_second_model(spark: Any, built: Settings):
    before = rows(built, "SELECT * FROM rankings ORDER BY ALL"), rows(built, "SELECT * FROM ranking_models")
    assert len(before[1]) == 1
    build.run_job(spark, built, "ranking", AS_OF)
    assert (rows(built, "SELECT * FROM rankings ORDER BY ALL"), rows(built, "SELECT * FROM ranking_models")) == before


def test_a_shop_without_catalogue_is_ranked_by_its_orders(shop: Callable[..., Settings], job_of: Callable[..., Job]):
    job = job_of(shop())
    bare = ranking.products(job).selectExpr(
        "sku", "CAST(NULL AS STRING) category", "CAST(NULL AS STRING) brand", "CAST(NULL AS DOUBLE) price", "worth"
    )
    assert ranking.train(job, order_files.packed(job), bare, 900, AS_OF) is None, "900 orders teach nothing"


def test_a_model_is_used_again_while_hardly_anything_changes(
    spark: Any, built: Settings, job_of: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
):
    job = job_of(built)
    orders = order_files.packed(job).persist()
    days_later = {days: replace(job, as_of=AS_OF + timedelta(days=days)) for days in (1, 8)}
    assert ranking.model(days_later[1], orders).rows is None, "the model of the day before"
    assert ranking.model(days_later[8], orders).rows is not None, "none of the last seven days"
    monkeypatch.setattr(ranking, "CODE", "another")
    assert ranking.model(job, orders).rows is not None, "one that other code learned"


def test_a_model_is_learned_from_a_share_of_customers_where_there_are_many(
    shop: Callable[..., Settings], job_of: Callable[..., Job]
):
    job = job_of(shop())
    whole = order_files.packed(job)
    half = order_files.orders(whole.mapInArrow(order_files.drawn(0.5), order_files.PACKED).toArrow(), 100)
    every = order_files.orders(whole.toArrow(), 100)
    drawn = {customer for customer in half["customer"].to_pylist() if customer}
    assert 0 < len(drawn) < len({customer for customer in every["customer"].to_pylist() if customer})
    theirs = [row for row in every.to_pylist() if row["customer"] in drawn]
    assert [row for row in half.to_pylist() if row["customer"]] == theirs, "whole customers"
