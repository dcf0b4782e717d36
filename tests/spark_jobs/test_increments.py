"""Counts that are kept from day to day are those of a recount, to the last integer."""

from __future__ import annotations

import random

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spark_jobs.kernels import baskets, increments, pairs
from spark_jobs.kernels.increments import Counts, Window

ITEMS, PEOPLE = 8, 6
CELL_REGION = np.array([0, 0, 1, 1], np.int16)
REGIONS = 2
LEVELS = len(CELL_REGION) + REGIONS + 1


def window(chance: random.Random, orders: int) -> Window:
    """Random orders; customers have them in any cell, some orders nobody."""
    held = [sorted(chance.sample(range(ITEMS), chance.randint(1, 5))) for _ in range(orders)]
    lines = sum(map(len, held))
    return Window(
        starts=np.cumsum([0, *map(len, held)]).astype(np.int64),
        items=np.array([item for own in held for item in own], np.int32),
        moments=np.array([chance.randrange(3) for _ in range(lines)], np.int16),
        customer=np.array([chance.randrange(-1, PEOPLE) for _ in range(orders)], np.int32),
        cell=np.array([chance.randrange(len(CELL_REGION)) for _ in range(orders)], np.int16),
        weight=np.array([chance.randrange(1, 1 << 30) for _ in range(orders)], np.int64),
    )


def by_recount(held: Window) -> set[tuple[int, ...]]:
    """Level, both items, orders, customers, before, after, decayed, by the kernel that counts a whole window."""
    import pyarrow as pa

    orders = baskets.Orders(
        skus=pa.array([f"{item}" for item in range(ITEMS)]),
        starts=held.starts,
        items=held.items,
        moments=held.moments,
        customer=held.customer,
        cell=held.cell,
        at=np.zeros(held.orders, np.int64),
        weight=held.weight,
    )
    found = baskets.arrange(orders, CELL_REGION, REGIONS)
    number = np.array([int(sku) for sku in found.skus.to_pylist()])
    rows = pairs.count(found, k=np.ones(LEVELS, np.int32), top=ITEMS, damping=0.0)
    columns = ("orders", "customers", "before", "after", "decayed")
    return {
        (
            row["level"].item(),
            number[row["anchor"]].item(),
            number[row["companion"]].item(),
            *(row[name].item() for name in columns),
        )
        for row in rows
        if number[row["anchor"]] < number[row["companion"]]
    }


def by_addition(counts: Counts) -> set[tuple[int, ...]]:
    """The same from counts that were kept: cells add up to regions and to everything."""
    total: dict[tuple[int, int, int], np.ndarray] = {}
    mask = (1 << increments.ITEM_BITS) - 1
    for row in counts.whole():
        key = int(row["key"])
        level, pair = key >> (2 * increments.ITEM_BITS), ((key >> increments.ITEM_BITS) & mask, key & mask)
        uppers = [level]
        if level < len(CELL_REGION):
            uppers += [len(CELL_REGION) + int(CELL_REGION[level]), LEVELS - 1]
        values = np.array([int(row[name]) for name in ("orders", "customers", "before", "after", "decayed")])
        for upper in uppers:
            total[(upper, *pair)] = total.get((upper, *pair), 0) + values
    return {key + tuple(int(value) for value in values) for key, values in total.items() if values[0]}


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 2**32), st.integers(1, 6), st.integers(0, 25))
def test_days_that_come_and_go_leave_the_counts_of_a_recount(seed: int, days: int, orders: int):
    chance = random.Random(seed)
    counts, held = increments.nothing(), window(chance, 0)
    for _ in range(days):
        leaving = np.array([chance.random() < 0.3 for _ in range(held.orders)], bool)
        entering = window(chance, chance.randint(0, orders))
        counts, held = increments.advanced(counts, held, leaving, entering, CELL_REGION)
        assert by_addition(counts) == by_recount(held)
        assert (np.diff(counts.whole()["key"].astype(np.int64)) > 0).all()


def test_a_customer_who_moves_to_another_segment_takes_the_orders_along():
    chance = random.Random(4)
    held = window(chance, 40)
    counts, held = increments.advanced(increments.nothing(), window(chance, 0), np.empty(0, bool), held, CELL_REGION)
    moving = (held.customer == 2) & (held.cell < 2)
    moved = increments.kept(held, moving)
    moved = Window(**{**vars(moved), "cell": (1 - moved.cell).astype(np.int16)})
    assert moved.orders
    counts, held = increments.advanced(counts, held, moving, moved, CELL_REGION)
    assert by_addition(counts) == by_recount(held)


def test_when_all_orders_have_left_nothing_is_left():
    chance = random.Random(5)
    counts, held = increments.nothing(), window(chance, 0)
    counts, held = increments.advanced(counts, held, np.empty(0, bool), window(chance, 30), CELL_REGION)
    counts, held = increments.advanced(counts, held, np.ones(30, bool), window(chance, 0), CELL_REGION)
    assert len(counts.whole()) == held.orders == 0
