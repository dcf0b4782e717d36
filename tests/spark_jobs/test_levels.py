"""Counting at all levels in one pass gives what a plain SQL count of each level gives, column by column."""

from __future__ import annotations

from typing import NamedTuple

import duckdb
import numpy as np
import pyarrow as pa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spark_jobs.kernels import baskets, pairs

SKUS = "pqrstu"
CELLS = [("north", "a"), ("north", "b"), ("south", "a"), ("south", "c"), ("south", "d")]
"""Two regions; customers below may have orders in any cell, so that they cross segments and regions."""
LEVELS = [*CELLS, ("north", "*"), ("south", "*"), ("*", "*")]
REGIONS = ["north", "south"]


class Order(NamedTuple):
    cell: int
    customer: str | None
    weight: int
    moments: dict[str, int]
    """SKU to the time its line was written."""


ORDERS = st.lists(
    st.builds(
        Order,
        st.integers(0, len(CELLS) - 1),
        st.one_of(st.none(), st.sampled_from("vwxyz")),
        st.integers(1, 1 << 20),
        st.dictionaries(st.sampled_from(SKUS), st.integers(0, 2), min_size=1),
    ),
    min_size=1,
    max_size=60,
)
relaxed = settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.too_slow])


def arranged(orders: list[Order]) -> baskets.Baskets:
    skus = sorted({sku for order in orders for sku in order.moments}, reverse=True)
    held = [sorted(order.moments) for order in orders]
    moments = [order.moments[sku] for order, own in zip(orders, held, strict=True) for sku in own]
    read = baskets.Orders(
        skus=pa.array(skus),
        starts=np.cumsum([0, *map(len, held)]).astype(np.int64),
        items=np.array([skus.index(sku) for own in held for sku in own], np.int32),
        moments=np.array(moments if len(set(moments)) > 1 else [], np.int16),
        customer=np.array(["vwxyz".index(order.customer) if order.customer else -1 for order in orders], np.int32),
        cell=np.array([order.cell for order in orders], np.int16),
        at=np.zeros(len(orders), np.int64),
        weight=np.array([order.weight for order in orders], np.int64),
    )
    return baskets.arrange(read, np.array([REGIONS.index(region) for region, _ in CELLS], np.int16), len(REGIONS))


def counted(orders: list[Order], k: int, top: int, blocks: int) -> list[tuple[object, ...]]:
    """(region, segment, anchor, companion, orders, customers, before, after, decayed, value) of all blocks."""
    found = arranged(orders)
    names = found.skus.to_pylist()
    given_k = np.full(len(LEVELS), k, np.int32)
    parts = [pairs.count(found, k=given_k, top=top, damping=0.3, block=n, blocks=blocks) for n in range(blocks)]
    columns = ("orders", "customers", "before", "after", "decayed", "value")
    return [
        (
            *LEVELS[row["level"]],
            names[row["anchor"]],
            names[row["companion"]],
            *(row[column].item() for column in columns),
        )
        for row in np.concatenate(parts)
    ]


def in_sql(orders: list[Order], k: int) -> list[tuple[object, ...]]:
    """The same by a self-join of every level, without `value`."""
    rows = [
        (number, *CELLS[order.cell], order.customer or f"order {number}", order.weight, sku, moment)
        for number, order in enumerate(orders)
        for sku, moment in order.moments.items()
    ]
    names = ("o", "region", "segment", "customer", "weight", "sku", "moment")
    lines = pa.table(dict(zip(names, (pa.array(column) for column in zip(*rows, strict=True)), strict=True)))
    with duckdb.connect() as connection:
        connection.register("lines", lines)
        return connection.execute(
            """
            WITH cells AS (
                SELECT * FROM lines
                UNION ALL SELECT * REPLACE ('*' AS segment) FROM lines
                UNION ALL SELECT * REPLACE ('*' AS region, '*' AS segment) FROM lines)
            SELECT region, segment, a.sku, b.sku, count(*), count(DISTINCT a.customer),
                count(*) FILTER (a.moment < b.moment), count(*) FILTER (a.moment > b.moment),
                sum(a.weight)::BIGINT
            FROM cells a JOIN cells b USING (region, segment, o) WHERE a.sku <> b.sku
            GROUP BY ALL HAVING count(DISTINCT a.customer) >= $1 ORDER BY ALL""",
            [k],
        ).fetchall()


@relaxed
@given(ORDERS, st.integers(1, 4), st.integers(1, 3))
def test_every_column_at_every_level_equals_sql(orders: list[Order], k: int, blocks: int):
    found = counted(orders, k, len(SKUS), blocks)
    assert sorted(row[:-1] for row in found) == in_sql(orders, k)


@relaxed
@given(ORDERS, st.integers(1, 3))
def test_the_best_companions_come_first_and_ties_go_to_the_lower_sku(orders: list[Order], top: int):
    best: dict[tuple[object, ...], list[tuple[float, object]]] = {}
    for row in counted(orders, 1, len(SKUS), 1):
        best.setdefault(row[:3], []).append((-row[-1], row[3]))  # type: ignore[operator]
    shown: dict[tuple[object, ...], list[tuple[float, object]]] = {}
    for row in counted(orders, 1, top, 2):
        shown.setdefault(row[:3], []).append((-row[-1], row[3]))  # type: ignore[operator]
    assert shown == {anchor: sorted(each)[:top] for anchor, each in best.items()}


@relaxed
@given(ORDERS)
def test_items_and_orders_of_every_level_equal_sql(orders: list[Order]):
    found = arranged(orders)
    held, weights = found.item_counts
    sums, total = found.level_orders(), found.level_weights()
    for level, (region, segment) in enumerate(LEVELS):
        own = [order for order in orders if (region, segment) in levels_of(order)]
        assert (sums[level], total[level]) == (len(own), sum(order.weight for order in own))
        for item, sku in enumerate(found.skus.to_pylist()):
            with_item = [order.weight for order in own if sku in order.moments]
            assert (held[level, item], weights[level, item]) == (len(with_item), sum(with_item))


def levels_of(order: Order) -> set[tuple[str, str]]:
    region, segment = CELLS[order.cell]
    return {(region, segment), (region, "*"), ("*", "*")}


def test_a_level_that_nobody_asks_for_is_not_given():
    orders = [Order(0, "v", 1, {"p": 0, "q": 0}), Order(2, "w", 1, {"p": 0, "q": 0})]
    found = arranged(orders)
    only_all = np.array([baskets.NOBODY] * (len(LEVELS) - 1) + [1], np.int32)
    rows = pairs.count(found, k=only_all, top=5, damping=0.0)
    assert set(rows["level"]) == {len(LEVELS) - 1}
    assert list(rows["customers"]) == [2, 2]
