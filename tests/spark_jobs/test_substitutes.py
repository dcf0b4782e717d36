"""What stands in for what, in shops in which it was planted."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spark_jobs import delta, embeddings, substitutes
from spark_jobs.kernels import cells, shelf, swaps


def _orders(seed: int = 3, customers: int = 60) -> list[tuple[str | None, list[str]]]:
    """Customers who take one of two colas at a time and change now and then; crisps go with either, brush and paste."""
    chance = random.Random(seed)
    found: list[tuple[str | None, list[str]]] = []
    for customer in range(customers):
        cola = chance.choice(["cola-red", "cola-blue"])
        for _ in range(12):
            if chance.random() < 0.3:
                cola = "cola-blue" if cola == "cola-red" else "cola-red"
            held = {cola} if chance.random() < 0.8 else set()
            if held and chance.random() < 0.7:
                held.add("crisps")
            held |= {sku for sku in ("soap", "milk") if chance.random() < 0.3}
            held |= {"brush", "paste"} if chance.random() < 0.25 else set()
            if held:
                found.append((f"c{customer:02}", sorted(held)))
    return found


def _shelf(orders: list[tuple[str | None, list[str]]], products: list[dict[str, Any]]) -> shelf.Shelf:
    bought = pa.table(
        {
            "customer": pa.array([customer for customer, _ in orders], pa.string()),
            "skus": pa.array([skus for _, skus in orders], pa.list_(pa.string())),
            "ordered_at": list(range(len(orders))),
            "order_id": [str(number) for number in range(len(orders))],
        }
    )
    kinds = {"title": pa.string(), "brand": pa.string(), "category": pa.string(), "price": pa.float64()}
    columns = {
        name: pa.array([row.get(name, None if name == "price" else "") for row in products], kind)
        for name, kind in kinds.items()
    }
    return shelf.shelf(bought, pa.table({"sku": [row["sku"] for row in products], **columns}))


def _made(held: shelf.Shelf, k: int) -> swaps.Substitutes:
    known = substitutes.enough(held)
    return substitutes.found(held, embeddings.of_cell(held.cell, known), k)


def _found(held: shelf.Shelf, k: int = 3) -> dict[str, list[str]]:
    made = _made(held, k)
    skus = held.cell.skus.to_pylist()
    listed: dict[str, list[str]] = {}
    for item, substitute in zip(made.item, made.substitute, strict=True):
        listed.setdefault(skus[item], []).append(skus[substitute])
    return listed


SKUS = ("cola-red", "cola-blue", "crisps", "soap", "brush", "paste", "milk")
CATEGORY = {"cola-red": "Drinks > Cola", "cola-blue": "Drinks > Cola", "crisps": "Snacks", "milk": "Dairy"}
TITLE = {"cola-red": "Red cola, can", "cola-blue": "Blue cola, can", "crisps": "Crisps", "milk": "Milk", "soap": "Soap"}


@pytest.mark.parametrize("told", ["category", "title", "nothing"])
def test_planted_substitutes_are_found_with_or_without_category_and_title(told: str):
    products = [
        {
            "sku": sku,
            "title": TITLE.get(sku, sku) if told == "title" else sku,
            "category": CATEGORY.get(sku, "Other > " + sku) if told == "category" else "",
        }
        for sku in SKUS
    ]
    listed = _found(_shelf(_orders(), products))
    assert listed["cola-red"] == ["cola-blue"]
    assert listed["cola-blue"] == ["cola-red"]
    assert "crisps" not in listed


def test_what_goes_together_is_no_substitute_that_bars_a_companion():
    products = [{"sku": sku, "category": "All"} for sku in SKUS]
    made = _made(_shelf(_orders(), products), 3)
    apart = {
        (a, b): together <= expected
        for a, b, together, expected in zip(made.item, made.substitute, made.together, made.expected, strict=True)
    }
    place = {sku: number for number, sku in enumerate(sorted(SKUS))}
    assert apart[place["cola-red"], place["cola-blue"]]
    assert not apart[place["brush"], place["paste"]]


def test_swaps_of_fewer_than_k_customers_say_nothing():
    products = [{"sku": sku, "category": CATEGORY.get(sku, "")} for sku in SKUS]
    held = _shelf(_orders(customers=4), products)
    assert _made(held, 2).swaps.sum() > 0
    assert _made(held, 5).swaps.sum() == 0


@pytest.mark.parametrize(
    "products",
    [
        [{"sku": "a"}],
        [{"sku": "a"}, {"sku": "b"}],
        [
            {"sku": "a", "title": "牛乳 1リットル", "category": "乳製品"},
            {"sku": "b", "title": "牛乳", "category": "乳製品"},
        ],
        [{"sku": "a", "price": 0.0}, {"sku": "b", "brand": "B", "price": 120.0}],
        [{"sku": "z", "title": "Never bought"}],
    ],
)
def test_shops_of_few_products_and_few_facts_are_no_error(products: list[dict[str, Any]]):
    listed = _found(_shelf([("c1", ["a"]), (None, ["a", "b"]), ("c2", ["b"])], products), 1)
    known = {row["sku"] for row in products}
    assert all({sku, *others} <= known and sku not in others for sku, others in listed.items())
    if any(row.get("category") == "乳製品" for row in products):
        assert listed == {"a": ["b"], "b": ["a"]}


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["x", "y", None]), st.sets(st.sampled_from("abcd"), min_size=1)),
        min_size=1,
        max_size=30,
    )
)
def test_history_equals_a_walk_through_each_customers_orders(orders: list[tuple[str | None, set[str]]]):
    cell = cells.cell(
        pa.chunked_array([pa.array([customer for customer, _ in orders], pa.string())]),
        pa.chunked_array([pa.array([sorted(held) for _, held in orders])]),
    )
    known = len({customer for customer, _ in orders} - {None})
    number = {sku: place for place, sku in enumerate(cell.skus.to_pylist())}
    pairs = [(a, b) for a in number for b in number if a != b]
    found = swaps.history(cell, known, *(np.array([number[p[side]] for p in pairs], np.int32) for side in (0, 1)))
    for place, (a, b) in enumerate(pairs):
        told = _walked(orders, a, b)
        assert (found.swaps[place], found.customers[place], found.together[place]) == told[:3]
        assert found.expected[place] == pytest.approx(told[3])


def _walked(orders: list[tuple[str | None, set[str]]], a: str, b: str) -> tuple[int, int, int, float]:
    changed: list[str | None] = []
    last: dict[str | None, set[str]] = {}
    for customer, held in orders:
        either = held & {a, b}
        if customer is not None and either == {b} and last.get(customer) == {a}:
            changed.append(customer)
        if either:
            last[customer] = either
    expected = 0.0
    for one in {customer for customer, _ in orders}:
        own = [held for customer, held in orders if customer == one]
        sizes = [len(held) for held in own]
        chance = sum(size**2 for size in sizes) / sum(sizes) ** 2
        expected += sum(a in held for held in own) * sum(b in held for held in own) * chance
    return len(changed), len(set(changed)), sum({a, b} <= held for _, held in orders), expected


@pytest.mark.spark
def test_a_build_repairs_with_the_same_need_and_never_offers_a_substitute_as_companion(
    spark: Any, built: Any, job_of: Callable[..., Any]
):
    job = job_of(built)
    day = [row.asDict() for row in delta.read_day(spark, built, "substitutes", job.as_of).collect()]
    pairs = {(row["sku"], row["substitute"]) for row in day}
    assert pairs == {("pasta", "penne"), ("penne", "pasta"), ("pesto", "sauce"), ("sauce", "pesto")}
    assert all(row["together"] >= 0 and 0 < row["score"] <= 1 and row["similarity"] > 0.1 for row in day)
    barred = {(row["sku"], row["substitute"]) for row in day if row["apart"]}
    assert barred
    bundles = delta.read_day(spark, built, "bundles", job.as_of).select("components").collect()
    stands_in = {(part.sku, other.sku) for row in bundles for part in row.components for other in part.substitutes}
    assert stands_in <= pairs
    assert ("pasta", "penne") in stands_in
    held = {(a.sku, b.sku) for row in bundles for a in row.components for b in row.components}
    ranked = delta.read_day(spark, built, "rankings", job.as_of).collect()
    assert not (held | {(row.anchor, row.companion) for row in ranked}) & (barred | {(b, a) for a, b in barred})
    places = {}
    for row in ranked:
        places.setdefault((row.region, row.anchor), []).append(row.rank)
    assert all(sorted(ranks) == list(range(1, len(ranks) + 1)) for ranks in places.values())
