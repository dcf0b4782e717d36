"""A segment's ranking is its region's, tilted by what the segment buys more."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from spark_jobs.kernels import cells, tilt

RANKED = pa.table(
    {
        "anchor": ["milk", "milk", "milk", "beer", "beer"],
        "companion": ["bread", "nappies", "unknown", "crisps", "nappies"],
        "place": [1, 2, 3, 1, 2],
        "score": [0.3, 0.2, 0.1, 0.5, 0.4],
    }
)


def held(orders: dict[str, int], size: int) -> pa.Table:
    kinds = {"sku": pa.string(), "orders": pa.int64(), "of": pa.int64()}
    columns = (list(orders), list(orders.values()), [size] * len(orders))
    return pa.table([pa.array(values, kind) for values, kind in zip(columns, kinds.values(), strict=True)], list(kinds))


WHOLE = held({"bread": 40_000, "crisps": 20_000, "nappies": 10_000}, 100_000)
FAMILIES = held({"bread": 4_000, "nappies": 6_000}, 10_000)


def places(table: pa.Table) -> dict[str, list[str]]:
    rows = sorted(table.to_pylist(), key=lambda row: (row["anchor"], row["place"]))
    found: dict[str, list[str]] = {}
    for row in rows:
        found.setdefault(row["anchor"], []).append(row["companion"])
        assert row["place"] == len(found[row["anchor"]])
    return found


def test_what_a_segment_buys_more_rises_and_what_it_buys_less_falls():
    assert places(tilt.tilted(RANKED, FAMILIES, WHOLE, 1.0)) == {
        "milk": ["nappies", "bread", "unknown"],
        "beer": ["nappies", "crisps"],
    }


@pytest.mark.parametrize(("mine", "power"), [(FAMILIES, 0.0), (WHOLE, 1.0), (held({}, 0), 1.0)])
def test_without_tilt_or_difference_or_orders_the_regions_places_stay(mine: pa.Table, power: float):
    assert tilt.tilted(RANKED, mine, WHOLE, power).equals(RANKED)


def test_the_tilt_is_the_formula_that_was_judged():
    b, n_s, c, p = 1000.0, 10_000, 6_000, 0.1
    r = ((c + b * p) / (n_s + b)) / p
    least = 0.3 / 0.2  # what nappies have to gain to pass bread, whose share is as everywhere
    power = np.log(least) / np.log(r)
    below, above = (places(tilt.tilted(RANKED, FAMILIES, WHOLE, power * by))["milk"][0] for by in (0.99, 1.01))
    assert (below, above) == ("bread", "nappies")


def test_what_a_cell_bought():
    cell = cells.cell(pa.chunked_array([["x", "y"]]), pa.chunked_array([[["a", "b"], ["a"]]]))
    assert tilt.bought(cell).to_pylist() == [
        {"sku": "a", "orders": 2, "of": 2},
        {"sku": "b", "orders": 1, "of": 2},
    ]
