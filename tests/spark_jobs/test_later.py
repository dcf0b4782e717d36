"""Substitutes and cold answers, asked of later orders in a shop whose truth is known."""

from __future__ import annotations

import random

import numpy as np
import pyarrow as pa
import pytest

from spark_jobs import cold, embeddings, substitutes
from spark_jobs.kernels import later
from spark_jobs.kernels.protocol import Estimate
from tandem.rules import Rules

KINDS, EACH = 10, 4


def _shop(seed: int = 2) -> tuple[pa.Table, pa.Table]:
    """Ten kinds of four products; kind 2n goes with 2n + 1. A customer changes between 0 and 1, or 2 and 3."""
    chance = random.Random(seed)
    orders = []
    for day in range(50):
        for customer in range(40):
            first = chance.randrange(KINDS // 2) * 2
            side = customer % 2 * 2
            held = {f"p{kind}-{side + chance.randrange(2)}" for kind in (first, first + 1)}
            held |= {f"p{chance.randrange(KINDS)}-{side + chance.randrange(2)}"} if chance.random() < 0.3 else set()
            orders.append((f"c{customer:02}", day, sorted(held)))
    bought = pa.table(
        {
            "customer": [customer for customer, _, _ in orders],
            "day": pa.array([day for _, day, _ in orders], pa.int32()),
            "skus": [held for _, _, held in orders],
        }
    )
    skus = [f"p{kind}-{number}" for kind in range(KINDS) for number in range(EACH)]
    kinds = [sku.split("-")[0] for sku in skus]
    products = pa.table(
        {
            "sku": skus,
            "title": [f"Thing {kind}" for kind in kinds],
            "brand": [""] * len(skus),
            "category": [f"All > {kind}" for kind in kinds],
            "price": pa.array([100.0] * len(skus)),
        }
    )
    return bought, products


@pytest.fixture(scope="module")
def split() -> later.Split:
    return later.split(*_shop())


def test_the_split_is_in_time_and_numbers_later_orders_as_learned_ones(split: later.Split):
    assert (split.before.day.max(), split.after.day.min()) == (39, 40)
    assert split.before.count + split.after.count == 2000
    assert set(split.after.customer) == set(range(40))


def test_a_loyal_customers_first_order_without_the_product_is_the_query(split: later.Split):
    asked = later.repairs(split)
    keys = list(zip(asked.customer.tolist(), asked.item.tolist(), strict=True))
    assert len(set(keys)) == len(keys) > 300
    category = split.held.category
    for item, order, customer in zip(*asked, strict=True):
        held = split.after.items[split.after.starts[order] : split.after.starts[order + 1]]
        assert item not in held
        assert category[item] in category[held]
        assert split.after.customer[order] == customer


def test_substitutes_repair_more_than_what_is_popular(split: later.Split):
    found: dict[str, Estimate] = dict(substitutes.judged(split, 3))
    assert found["same_category_share/substitutes"].value == 1
    assert found["together_over_expected/substitutes"].value < found["together_over_expected/companions"].value
    first = {
        name: later.repaired(later.repairs(split), split.after, lists[:, :1]).mean()
        for name, lists in (
            ("swaps", _lists(split)),
            (
                "popular",
                later.popular_of_category(split.held.cell.item_counts, split.held.category, split.held.usable, 3),
            ),
        )
    }
    assert first["swaps"] > 0.85
    assert first["swaps"] > first["popular"] + 0.2


def _lists(split: later.Split) -> np.ndarray:
    held = split.held
    enough = substitutes.enough(held)
    made = substitutes.found(held, embeddings.of_cell(held.cell, enough), 3)
    return later.listed(made.item, made.substitute, made.rank, len(split.held.usable), 3)


def test_hidden_products_are_answered_better_than_by_what_is_popular(split: later.Split):
    found: dict[str, Estimate] = dict(cold.judged(split, Rules(), 3))
    assert found["answered/cold"].value == 1
    assert found["hit@5/cold"].value > found["hit@5/cold_popularity"].high
    assert found["hit@5/cold_content"].value > found["hit@5/cold_popularity"].high
    assert found["hit@5/cold_over_popularity"].low > 0
    assert found["hit@5/cold_bundles"].value > found["hit@5/cold_category_popularity"].high


def test_an_order_no_longer_holds_what_is_hidden(split: later.Split):
    cell = split.held.cell
    hidden = np.array([0, 5], np.int32)
    bare = later.without_items(cell, hidden)
    counts = cell.item_counts.copy()
    counts[hidden] = 0
    assert bare.item_counts.tolist() == counts.tolist()
    assert not np.isin(bare.order_items, hidden).any()
    assert np.bincount(bare.order_items, minlength=len(counts)).tolist() == counts.tolist()
    for item in (1, 7):
        orders = bare.item_orders[bare.item_starts[item] : bare.item_starts[item + 1]]
        assert all(item in bare.order_items[bare.order_starts[o] : bare.order_starts[o + 1]] for o in orders)


def test_a_shop_without_orders_or_categories_has_no_measures_that_need_them():
    bought, products = _shop()
    blank = products.set_column(3, "category", pa.array([""] * len(products)))
    names = {name for name, _ in substitutes.judged(later.split(bought, blank), 3)}
    assert not any(name.startswith("repaired") for name in names)
    assert list(cold.judged(later.split(bought.slice(0, 3), products), Rules(), 3)) == []
