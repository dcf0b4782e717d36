"""The kernels count exactly what a plain SQL query counts."""

from itertools import combinations

import duckdb
import numpy as np
import pyarrow as pa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spark_jobs.kernels import cells, pairs, sets

BASKETS = st.lists(
    st.tuples(st.one_of(st.none(), st.sampled_from("abcd")), st.sets(st.sampled_from("pqrstuvw"), min_size=1)),
    min_size=1,
    max_size=40,
)
Baskets = list[tuple[str | None, set[str]]]
relaxed = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])


def cell_of(baskets: Baskets) -> cells.Cell:
    customers = pa.array([customer for customer, _ in baskets], pa.string())
    return cells.cell(customers, pa.array([sorted(skus) for _, skus in baskets], pa.list_(pa.string())))


def in_sql(baskets: Baskets, size: int) -> dict[tuple[str, ...], tuple[int, int]]:
    """Orders and customers of every set of `size` products, by self-joins."""
    rows = [(n, customer or f"order {n}", sku) for n, (customer, skus) in enumerate(baskets) for sku in skus]
    lines = pa.table(dict(zip(("o", "c", "s"), (pa.array(column) for column in zip(*rows, strict=True)), strict=True)))
    with duckdb.connect() as connection:
        connection.register("lines", lines)
        joins = "".join(f" JOIN lines t{i} ON t{i}.o = t0.o AND t{i}.s > t{i - 1}.s" for i in range(1, size))
        skus = ", ".join(f"t{i}.s" for i in range(size))
        query = f"SELECT {skus}, count(*), count(DISTINCT t0.c) FROM lines t0{joins} GROUP BY {skus}"
        return {row[:size]: row[size:] for row in connection.execute(query).fetchall()}


@relaxed
@given(BASKETS)
def test_pairs_equal_a_self_join_whatever_the_baskets(baskets: Baskets):
    cell = cell_of(baskets)
    anchor, companion, orders, customers, _ = pairs.best_companions(cell, min_customers=1, top=100, damping=0.2)
    names = cell.skus.to_pylist()
    counted = {
        (names[a], names[b]): (int(o), int(c)) for a, b, o, c in zip(anchor, companion, orders, customers, strict=True)
    }
    wanted = in_sql(baskets, 2)
    assert counted == wanted | {(b, a): value for (a, b), value in wanted.items()}


@relaxed
@given(BASKETS, st.integers(1, 3))
def test_only_pairs_of_enough_customers_are_given_and_the_best_come_first(baskets: Baskets, k: int):
    cell = cell_of(baskets)
    anchor, companion, orders, customers, score = pairs.best_companions(cell, min_customers=k, top=2, damping=0.5)
    assert (customers >= k).all()
    counts = cell.item_counts
    assert np.allclose(score, orders / (counts[anchor] * counts[companion] ** 0.5))
    for each in np.unique(anchor):
        own = score[anchor == each]
        assert len(own) <= 2
        assert (np.diff(own) <= 0).all()


@relaxed
@given(BASKETS, st.integers(1, 2))
def test_sets_of_two_to_four_equal_self_joins(baskets: Baskets, k: int):
    cell = cell_of(baskets)
    names = cell.skus.to_pylist()
    items = np.arange(len(names), dtype=np.int32)
    others = np.array([b for a in items for b in items if b != a], np.int32)
    starts = np.arange(len(names) + 1, dtype=np.int64) * (len(names) - 1)
    found = sets.count_sets(cell, items, starts, others, max_components=4, min_customers=k)
    counted: dict[tuple[str, ...], set[tuple[int, int]]] = {}
    for row, orders, customers in zip(found.items, found.orders, found.customers, strict=True):
        key = tuple(sorted(names[item] for item in row if item != sets.ABSENT))
        counted.setdefault(key, set()).add((int(orders), int(customers)))
    wanted = {key: {v} for size in (2, 3, 4) for key, v in in_sql(baskets, size).items() if v[1] >= k}
    assert counted == wanted


def test_orders_without_a_customer_count_as_one_customer_each():
    cell = cell_of([(None, {"p", "q"}), (None, {"p", "q"}), ("a", {"p", "q"}), ("a", {"p", "q"})])
    _, _, orders, customers, _ = pairs.best_companions(cell, min_customers=1, top=5, damping=0.0)
    assert (orders == 4).all()
    assert (customers == 3).all()


def test_more_pairs_than_the_first_room_are_kept():
    skus = {f"{n:03}" for n in range(60)}
    cell = cell_of([("a", skus), ("b", skus)])
    anchor, *_ = pairs.best_companions(cell, min_customers=2, top=59, damping=0.2)
    assert len(anchor) == len(list(combinations(skus, 2))) * 2
