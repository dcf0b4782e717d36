"""Sums by product, week and price are those of the lines, each product with its category, however files cut them."""

from __future__ import annotations

from collections import defaultdict
from decimal import Decimal
from itertools import pairwise

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spark_jobs.kernels import responses, sold

Line = tuple[int, str, str, int, int | None]
"""day, sku, quantity, unit price, list price."""
DAY = 86_400_000_000
PRODUCTS = {"a": "Food > Pasta", "b": "Food > Sauce", "c": "Home", "d": None}
LINES = st.lists(
    st.tuples(
        st.integers(0, 27),
        st.sampled_from("abcde"),
        st.sampled_from(["-1", "0", "1", "2", "0.125"]),
        st.sampled_from([0, 80, 97, 100]),
        st.sampled_from([None, 100]),
    ),
    min_size=1,
    max_size=40,
)
relaxed = settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])


def given_by(held: list[Line]) -> dict[str, sold.Sold]:
    day, skus, quantity, price, listed = zip(*held, strict=True)
    units = [Decimal(each) for each in quantity]
    rows = pa.table(
        {
            "ordered_at": pa.array([each * DAY + 7 for each in day], pa.timestamp("us", "UTC")),
            "sku": pa.array(skus, pa.string()).dictionary_encode(),
            "quantity": pa.array(units, pa.decimal128(12, 3)),
            "unit_price_cents": pa.array(price, pa.int64()),
            "net_cents": pa.array([round(each * paid) for each, paid in zip(units, price, strict=True)], pa.int64()),
            "list_price_cents": pa.array(listed, pa.int64()),
        }
    )
    products = pa.table({"sku": list(PRODUCTS), "category": pa.array(PRODUCTS.values(), pa.string())})
    return dict(sold.sold(rows, products, 28))


@relaxed
@given(LINES, st.lists(st.integers(0, 40), max_size=3))
def test_weeks_are_those_of_the_lines_however_they_are_cut_into_files(held: list[Line], cuts: list[int]):
    ends = [0, *sorted(min(cut, len(held)) for cut in cuts), len(held)]
    found = [given_by(held[begin:end]) for begin, end in pairwise(ends) if begin < end]
    expected: dict[tuple[str, int], list[Line]] = defaultdict(list)
    for line in held:
        if Decimal(line[2]) > 0 < line[3]:
            expected[line[1], (line[0] - 27) // 7 + (1 if (line[0] - 27) % 7 else 0)].append(line)
    seen = set()
    for top in {name for parts in found for name in parts}:
        parts = [each[top] for each in found if top in each]
        product, categories = sold.numbered(parts)
        assert categories == sorted(categories, key=responses.levels)
        assert {path.partition(" > ")[0] for path in categories} == {top}
        skus = {
            number: part.skus[int(place)].as_py()
            for part, own in zip(parts, product, strict=True)
            for number, place in zip(own.tolist(), part.product, strict=True)
        }
        weeks = sold.weeks(parts, product)
        for number, week, units, price, reduced in zip(*weeks, strict=True):
            sku = skus[number]
            assert categories[number] == (PRODUCTS.get(sku) or "")
            own = expected[sku, int(week)]
            seen.add((sku, int(week)))
            assert units == float(sum(Decimal(line[2]) for line in own))
            prices = sorted(line[3] for line in own)
            assert price == prices[(len(prices) - 1) // 2]
            assert reduced == pytest.approx(sum(line[4] is not None and line[3] < 97 for line in own) / len(own))
    assert seen == {key for key, own in expected.items() if own}
