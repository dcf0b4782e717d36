"""Elasticities of a shop, in Spark."""

from __future__ import annotations

import duckdb
import pytest

from tandem.settings import Settings
from warehouse import lake

pytestmark = pytest.mark.spark


def test_a_shop_whose_prices_never_changed_has_what_is_published_and_says_so(built: Settings) -> None:
    with duckdb.connect() as connection:
        connection.register("elasticities", lake.open_table(built, "elasticities").to_pyarrow_dataset())
        rows = connection.sql("SELECT region, category, elasticity, products, shrunk_from FROM elasticities").fetchall()
    found = {row[:2]: row[2:] for row in rows}
    assert found["*", "*"] == (-2.62, 0, "literature")
    assert found["*", "Food"] == (-2.62, 0, "*")
    assert found["*", "Food > Pasta"] == (-2.62, 0, "Food")
    assert found["south", "Food > Pasta"] == (-2.62, 0, "Food > Pasta")
    assert {category for region, category in found if region == "north"} >= {"Food", "Food > Sauce", "Drinks > Wine"}
