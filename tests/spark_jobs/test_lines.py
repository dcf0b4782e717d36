"""Lines become orders, however files cut them; what caps leave out is told."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spark_jobs.kernels import lines
from spark_jobs.kernels.baskets import Baskets

Line = tuple[str, int, str, str | None]
"""order_id, ordered_at (microseconds), sku, customer_id."""
LINES = st.lists(
    st.tuples(
        st.sampled_from(["1", "2", "12", "21", "order"]),
        st.sampled_from([0, 1, 7, 3 * lines.DAY]),
        st.sampled_from("abcdef"),
        st.one_of(st.none(), st.sampled_from(["x", "y", "Z"])),
    ),
    min_size=1,
    max_size=60,
)
SEGMENTS = {"families": pa.array(["x"]), "students": pa.array(["y"])}
CELLS = [("north", "everyone"), ("north", "families"), ("north", "students")]
DECAY = lines.Decay(half_life_days=2, first_day=0, as_of_day=5)
relaxed = settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])


def packed(held: list[Line]) -> lines.Part:
    ids, at, skus, customers = zip(*held, strict=True)
    rows = pa.table(
        {
            "order_id": pa.array(ids, pa.string()),
            "ordered_at": pa.array(at, pa.timestamp("us", "UTC")),
            "sku": pa.array(skus, pa.string()).dictionary_encode(),
            "customer_id": pa.array(customers, pa.string()).dictionary_encode(),
        }
    )
    return lines.packed(rows, "north", SEGMENTS, "everyone")


def joined(parts: list[list[Line]], max_basket: int = 999, max_item_orders: int = 99) -> tuple[Baskets, lines.LeftOut]:
    found, cells, left_out = lines.joined(
        [packed(part) for part in parts], decay=DECAY, max_basket=max_basket, max_item_orders=max_item_orders
    )
    assert cells == CELLS
    return found, left_out


def orders_of(found: Baskets) -> Counter[tuple[object, ...]]:
    """Each order as its cell, its weight, and its items with the place of their time."""
    skus = found.skus.to_pylist()
    orders: Counter[tuple[object, ...]] = Counter()
    for number, (order, cell) in enumerate(zip(found.walk, found.cell, strict=True)):
        own = slice(found.starts[number], found.starts[number + 1])
        moments = found.moments[own] if len(found.moments) else np.zeros(own.stop - own.start, int)
        items = sorted((skus[item], int(moment)) for item, moment in zip(found.items[own], moments, strict=True))
        orders[int(cell), int(order["weight"]), tuple(items)] += 1
    return orders


def expected(held: list[Line]) -> Counter[tuple[object, ...]]:
    orders: Counter[tuple[object, ...]] = Counter()
    for order_id in {line[0] for line in held}:
        own = [line for line in held if line[0] == order_id]
        first = {sku: min(line[1] for line in own if line[2] == sku) for sku in {line[2] for line in own}}
        times = sorted(set(first.values()))
        customer = min((line[3] for line in own if line[3]), default=None)
        cell = {"x": 1, "y": 2}.get(customer or "", 0)
        day = min(line[1] for line in own) // lines.DAY
        weight = round(2 ** (lines.MANTISSA_BITS + day % 2 / 2)) << (day // 2)
        orders[cell, weight, tuple(sorted((sku, times.index(at)) for sku, at in first.items()))] += 1
    return orders


@relaxed
@given(LINES, st.lists(st.integers(0, 60), max_size=3))
def test_orders_are_the_same_however_their_lines_are_cut_into_files(held: list[Line], cuts: list[int]):
    ends = [0, *sorted(min(cut, len(held)) for cut in cuts), len(held)]
    parts = [held[begin:end] for begin, end in pairwise(ends) if begin < end]
    assert orders_of(joined(parts)[0]) == expected(held)


@relaxed
@given(LINES, st.lists(st.integers(0, 60), max_size=3), st.permutations(range(4)))
def test_orders_as_rows_stand_in_time_the_same_however_files_are_cut_and_read(
    held: list[Line], cuts: list[int], turns: list[int]
):
    ends = [0, *sorted(min(cut, len(held)) for cut in cuts), len(held)]
    parts = [held[begin:end] for begin, end in pairwise(ends) if begin < end]
    whole = lines.orders([packed(held)], max_basket=4)
    found = lines.orders([packed(parts[turn]) for turn in turns if turn < len(parts)], max_basket=4)
    assert found.equals(whole)
    by_id: dict[str, list[Line]] = {}
    for line in held:
        by_id.setdefault(line[0], []).append(line)
    expected = [
        {
            "region": "north",
            "segment": {"x": CELLS[1][1], "y": CELLS[2][1]}.get(customer or "", "everyone"),
            "customer": customer,
            "day": min(line[1] for line in own) // lines.DAY,
            "skus": sorted({line[2] for line in own}),
        }
        for own in by_id.values()
        if len({line[2] for line in own}) <= 4
        for customer in [min((line[3] for line in own if line[3]), default=None)]
    ]
    assert sorted(map(repr, expected)) == sorted(map(repr, found.to_pylist()))
    days = found["day"].to_pylist()
    assert days == sorted(days)


def test_an_order_of_very_many_lines_is_one_order():
    held: list[Line] = [("1", n % 7, f"p{n % 300:03}", "x") for n in range(5000)]
    assert orders_of(joined([held])[0]) == expected(held)


def test_orders_and_products_above_the_caps_are_left_out_and_told():
    held: list[Line] = [("large", 0, sku, "x") for sku in "abcd"]
    held += [(f"o{n}", 0, sku, "y") for n in range(5) for sku in ("bag", "a" if n else "b")]
    found, left_out = joined([held], max_basket=3, max_item_orders=4)
    assert left_out == lines.LeftOut(
        orders=6, lines=14, large_orders=1, large_order_lines=4, popular_items=1, popular_item_lines=5
    )
    assert sorted(key[2] for key in orders_of(found).elements()) == [(("a", 0),)] * 4 + [(("b", 0),)]
    assert found.orders == 5


def test_the_same_order_id_in_two_regions_is_two_orders():
    one = packed([("1", 0, "a", "x")])
    other = pa.table({"order_id": ["1"], "ordered_at": pa.array([0], pa.timestamp("us", "UTC")), "sku": ["b"]})
    south = lines.packed(other.append_column("customer_id", pa.array(["x"])), "south", {}, "everyone")
    found, _, _ = lines.joined([one, south], decay=DECAY, max_basket=9, max_item_orders=9)
    assert found.orders == 2
    assert len(found.crossing_orders) == 2


@pytest.mark.parametrize("half_life", [1, 7, 90])
def test_a_weight_halves_every_half_life_and_shifts_without_rest_when_the_window_moves(half_life: int):
    days = np.arange(1000, 1000 + 20 * half_life) * lines.DAY
    before, after = (lines.Decay(half_life, first, 1400) for first in (1000 - half_life, 1000))
    assert (before.weights(days) == 2 * after.weights(days)).all()
    weights = after.weights(days)
    assert (weights[half_life:] == 2 * weights[:-half_life]).all()
    today = lines.decay(dt.date(2024, 3, 1), 20 * half_life, half_life)
    now = today.weights(np.array([today.as_of_day * lines.DAY]))
    assert now[0] == pytest.approx(today.unit, rel=2**-lines.MANTISSA_BITS)
