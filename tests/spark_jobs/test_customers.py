"""What customers did is the same however files cut their orders; returns count for spend, not for what was bought."""

from __future__ import annotations

from decimal import Decimal
from itertools import pairwise

import numpy as np
import pyarrow as pa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spark_jobs.kernels import customers

Line = tuple[str, int, str | None, str, int, int]
"""order_id, day, customer_id, sku, quantity, net_cents."""
DAY = 86_400_000_000
LINES = st.lists(
    st.tuples(
        st.sampled_from(["1", "2", "12", "21", "order"]),
        st.sampled_from([0, 1, 7]),
        st.sampled_from([None, "x", "y"]),
        st.sampled_from("abcd"),
        st.sampled_from([-1, 0, 1, 2]),
        st.sampled_from([-100, 0, 100, 250]),
    ),
    min_size=1,
    max_size=40,
)
relaxed = settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])


def packed(held: list[Line]) -> customers.Orders:
    ids, day, who, skus, quantity, net = zip(*held, strict=True)
    rows = pa.table(
        {
            "order_id": pa.array(ids, pa.string()),
            "ordered_at": pa.array([each * DAY + 5 for each in day], pa.timestamp("us", "UTC")),
            "sku": pa.array(skus, pa.string()).dictionary_encode(),
            "quantity": pa.array([Decimal(each) for each in quantity], pa.decimal128(12, 3)),
            "net_cents": pa.array(net, pa.int64()),
            "customer_id": pa.array(who, pa.string()).dictionary_encode(),
        }
    )
    return customers.packed(rows, "north")


def told(held: customers.Orders) -> list[tuple[object, ...]]:
    """Each order: customer, day, what it brought, whether something was bought, and what counts."""
    who, skus = [*held.customers.to_pylist(), None], held.skus.to_pylist()
    parts = zip(held.customer, held.day, held.net_cents, held.bought, pairwise(held.starts), strict=True)
    return sorted(
        (
            (who[one], int(day), int(net), bool(bought), tuple(skus[item] for item in held.items[begin:end]))
            for one, day, net, bought, (begin, end) in parts
        ),
        key=repr,
    )


def expected(held: list[Line]) -> list[tuple[object, ...]]:
    found = []
    for order in {line[0] for line in held}:
        own = [line for line in held if line[0] == order]
        who = min((line[2] for line in own if line[2]), default=None)
        counts = tuple(sorted({line[3] for line in own if line[4] > 0 < line[5]}))
        day, net = min(line[1] for line in own), sum(line[5] for line in own)
        found.append((who, day, net, any(line[4] > 0 for line in own), counts))
    return sorted(found, key=repr)


def cut(held: list[Line], cuts: list[int]) -> list[customers.Orders]:
    ends = [0, *sorted(min(cut, len(held)) for cut in cuts), len(held)]
    return [packed(held[begin:end]) for begin, end in pairwise(ends) if begin < end]


@relaxed
@given(LINES, st.lists(st.integers(0, 40), max_size=3))
def test_orders_are_the_same_however_their_lines_are_cut_into_files(held: list[Line], cuts: list[int]):
    assert told(customers.merged(cut(held, cuts))) == expected(held)


@relaxed
@given(LINES, st.integers(1, 6))
def test_blocks_hold_all_orders_each_customer_in_one_and_merge_to_the_same(held: list[Line], size: int):
    blocks = list(customers.blocks(customers.merged([packed(held)]), size))
    assert sorted((order for block in blocks for order in told(block)), key=repr) == expected(held)
    named = [name for block in blocks for name in block.customers.to_pylist()]
    assert len(named) == len(set(named))
    assert told(customers.merged(blocks)) == expected(held)


@relaxed
@given(LINES, st.sampled_from([1, 7, 8]))
def test_behaviour_and_counts_are_those_of_orders_before_a_day(held: list[Line], before: int):
    orders, every = customers.merged([packed(held)]), expected(held)
    names, skus = orders.customers.to_pylist(), orders.skus.to_pylist()
    rows = zip(*customers.behaviour(orders, before), strict=True)
    assert {names[who]: did for who, *did in rows} == {
        who: [
            before - max(order[1] for order in own),
            sum(order[3] for order in own),
            sum(order[2] for order in own),
        ]
        for who in ("x", "y")
        if (own := [order for order in every if order[0] == who and order[1] < before])
    }
    feature = np.array([-1 if sku == "a" else number for number, sku in enumerate(skus)], np.int32)
    found = customers.counted(orders, feature, (before, 8), 3)
    counted = {
        (names[who], skus[number]): counts.tolist()
        for who, number, counts in zip(found.customer, found.feature, found.counts, strict=True)
    }
    assert counted == {
        (who, sku): [sum(order[1] < before for order in own), len(own)]
        for who in ("x", "y")
        for sku in "bcd"
        if (own := [order for order in every if order[0] == who and sku in order[4] and len(order[4]) <= 3])
    }


def test_trials_see_baskets_alone_and_number_nobodys_orders_after_customers():
    held: list[Line] = [("1", 3, "y", sku, 1, 100) for sku in "ab"] + [("2", 4, None, "c", 1, 100)]
    held += [("3", 5, "x", "a", -1, -100), ("4", 6, "y", "c", 1, 50), ("5", 6, None, "b", 1, 50)]
    orders, people = customers.asked(customers.merged([packed(held)]), 1)
    assert people.to_pylist() == ["y"]
    assert sorted(zip(orders.customer.tolist(), orders.day.tolist(), strict=True))[0] == (0, 6)
    assert sorted(orders.customer.tolist()) == [0, 1, 2]
    assert orders.count == len(orders.items) == 3
