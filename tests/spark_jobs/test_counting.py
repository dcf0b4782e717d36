"""The kernels count exactly what a plain SQL query counts."""

from itertools import combinations

import duckdb
import numpy as np
import pyarrow as pa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spark_jobs.kernels import cells, pairs, sets
from spark_jobs.kernels.baskets import orders_of

BASKETS = st.lists(
    st.tuples(st.one_of(st.none(), st.sampled_from("abcd")), st.sets(st.sampled_from("pqrstuvw"), min_size=1)),
    min_size=1,
    max_size=40,
)
Baskets = list[tuple[str | None, set[str]]]
relaxed = settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.too_slow])


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
@given(BASKETS, st.integers(1, 8), st.integers(1, 3))
def test_orders_alone_are_counted_as_a_self_join_does_the_best_first(baskets: Baskets, top: int, blocks: int):
    cell = cell_of(baskets)
    parts = [pairs.count_orders(orders_of(cell), top=top, block=block, blocks=blocks) for block in range(blocks)]
    names = cell.skus.to_pylist()
    found = sorted((names[a], int(rank), names[b], int(both)) for part in parts for a, b, both, rank in part)
    wanted: dict[str, list[tuple[int, str]]] = {}
    for (a, b), (both, _) in in_sql(baskets, 2).items():
        wanted.setdefault(a, []).append((-both, b))
        wanted.setdefault(b, []).append((-both, a))
    assert found == sorted(
        (anchor, rank, companion, -both)
        for anchor, held in wanted.items()
        for rank, (both, companion) in enumerate(sorted(held)[:top], 1)
    )


def named(cell: cells.Cell, found: sets.Sets) -> dict[tuple[str, ...], tuple[int, int]]:
    names = cell.skus.to_pylist()
    keys = [tuple(names[item] for item in row if item != sets.ABSENT) for row in found.items]
    assert len(set(keys)) == len(keys), "a set is given once"
    return {
        key: (int(orders), int(customers))
        for key, orders, customers in zip(keys, found.orders, found.customers, strict=True)
    }


@relaxed
@given(BASKETS, st.integers(1, 3), st.integers(1, 3), st.integers(2, 4))
def test_frequent_sets_are_all_that_self_joins_find(baskets: Baskets, k: int, orders: int, largest: int):
    cell = cell_of(baskets)
    found = sets.frequent_sets(cell, min_orders=orders, min_customers=k, max_components=largest)
    wanted = {
        key: value
        for size in range(2, largest + 1)
        for key, value in in_sql(baskets, size).items()
        if value[1] >= k and (size == 2 or value[0] >= orders)
    }
    assert named(cell, found) == wanted


@relaxed
@given(
    BASKETS,
    st.sets(st.tuples(st.sampled_from("pqrstuvw"), st.sampled_from("pqrstuvw"))),
    st.sets(st.sampled_from("pqrs")),
)
def test_no_frequent_set_is_missed_that_the_rules_allow(
    baskets: Baskets, apart: set[tuple[str, str]], unusable: set[str]
):
    cell = cell_of(baskets)
    names = np.array(cell.skus.to_pylist())

    def may_meet(first: cells.Ints, second: cells.Ints, *_: cells.Ints) -> np.ndarray:
        return np.array([not {(a, b), (b, a)} & apart for a, b in zip(names[first], names[second], strict=True)], bool)

    found = sets.frequent_sets(
        cell,
        min_orders=1,
        min_customers=1,
        usable=np.array([name not in unusable for name in names], bool),
        joined=may_meet,
    )
    wanted = {
        key: value
        for size in (2, 3, 4)
        for key, value in in_sql(baskets, size).items()
        if not set(key) & unusable
        and (size == 2 or not any(pair in apart or pair[::-1] in apart for pair in combinations(key, 2)))
    }
    assert named(cell, found) == wanted


@relaxed
@given(BASKETS)
def test_sets_that_somebody_names_are_counted_whatever_they_are(baskets: Baskets):
    cell = cell_of(baskets)
    names = cell.skus.to_pylist()
    items = np.array(
        [
            (*chosen, *[sets.ABSENT] * (4 - size))
            for size in (2, 3, 4)
            for chosen in combinations(range(len(names)), size)
        ],
        np.int32,
    ).reshape(-1, 4)
    orders, customers = sets.count_sets(cell, items)
    wanted = {key: value for size in (2, 3, 4) for key, value in in_sql(baskets, size).items()}
    keys = [tuple(names[item] for item in row if item != sets.ABSENT) for row in items]
    assert [wanted.get(key, (0, 0)) for key in keys] == list(zip(orders.tolist(), customers.tolist(), strict=True))


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
