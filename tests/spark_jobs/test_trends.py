"""The arithmetic of the last minutes: as a slow reference says, and with the bounds that its formulas promise."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from itertools import permutations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_jobs.kernels import blending, trends
from spark_jobs.kernels.blending import Goods, candidates
from spark_jobs.kernels.trends import Signals
from tandem import merchandising
from tandem.bundle import bundle_id
from tandem.merchandising import Product
from tandem.rules import Bundling, Live, Rule, Selector

HALF_LIFE = 600.0
PRODUCTS = 6
WEIGHT = st.sampled_from(sorted(trends.WEIGHTS.values()))
one = st.tuples(st.integers(0, 5), st.integers(0, PRODUCTS - 1), st.floats(0, 3_600), WEIGHT)


def signals(rows: list[tuple[int, int, float, float]]) -> Signals:
    """Even shoppers are sessions, odd ones customers."""
    actor, product, age, weight = (np.array(column) for column in zip(*rows, strict=True))
    return Signals(actor.astype(np.int64), actor % 2, product.astype(np.int64), age.astype(float), weight.astype(float))


def slow(rows: list[tuple[int, int, float, float]]) -> dict[int, dict[int, float]]:
    """Shopper → product → strength, one signal after the other."""
    felt: dict[int, dict[int, float]] = defaultdict(dict)
    for actor, product, age, weight in rows:
        strength = weight * 0.5 ** (age / HALF_LIFE)
        felt[actor][product] = max(felt[actor].get(product, 0.0), strength)
    return felt


@given(st.lists(one, min_size=1, max_size=60))
def test_products_and_pairs_are_felt_for_as_a_slow_count_says(rows: list[tuple[int, int, float, float]]) -> None:
    felt, told = slow(rows), trends.felt(signals(rows), HALF_LIFE)
    strength, actors = trends.of_products(told, PRODUCTS)
    for product in range(PRODUCTS):
        own = {actor: held[product] for actor, held in felt.items() if product in held}
        assert strength[product] == pytest.approx(sum(own.values()))
        assert actors[product] == max(sum(actor % 2 == kind for actor in own) for kind in (0, 1))
    assert trends.shoppers(told) == pytest.approx(sum(max(held.values()) for held in felt.values()))
    found = trends.pairs(told, PRODUCTS)
    pairs = {(a, b) for held in felt.values() for a, b in permutations(held, 2)}
    assert set(zip(found.anchor.tolist(), found.companion.tolist(), strict=True)) == pairs
    for anchor, companion, together, count in zip(*found, strict=True):
        both = [held for held in felt.values() if anchor in held and companion in held]
        assert together == pytest.approx(sum(min(held[anchor], held[companion]) for held in both))
        assert count <= len(both)
        assert together <= strength[anchor] * (1 + 1e-9)


@given(st.lists(one, min_size=1, max_size=60), st.floats(0, 1), st.floats(0.1, 100))
def test_a_confidence_is_a_share_and_repeating_oneself_changes_nothing(
    rows: list[tuple[int, int, float, float]], known: float, prior: float
) -> None:
    told = trends.felt(signals(rows), HALF_LIFE)
    again = trends.felt(signals(rows * 3), HALF_LIFE)
    assert all(np.array_equal(one, other) for one, other in zip(told, again, strict=True))
    strength, _ = trends.of_products(told, PRODUCTS)
    found = trends.pairs(told, PRODUCTS)
    share = trends.confidence(found.strength, strength[found.anchor], np.full(len(found.anchor), known), prior)
    assert ((share >= 0) & (share <= 1 + 1e-9)).all()


def test_a_signal_counts_half_after_its_half_life_and_older_ones_less() -> None:
    told = trends.felt(signals([(0, 0, 0.0, 1.0), (1, 1, HALF_LIFE, 1.0), (2, 2, 2 * HALF_LIFE, 1.0)]), HALF_LIFE)
    assert told.strength.tolist() == [1.0, 0.5, 0.25]


def test_of_a_shopper_who_touches_everything_only_the_strongest_count() -> None:
    many = trends.MOST_PRODUCTS + 20
    told = trends.felt(signals([(0, product, float(product), 1.0) for product in range(many)]), HALF_LIFE)
    assert sorted(told.product.tolist()) == list(range(trends.MOST_PRODUCTS))


def test_a_product_surges_by_its_share_of_orders() -> None:
    strength = np.array([5.0, 5.0, 0.0])
    found = trends.surge(strength, 10.0, np.array([499, 0, 0]), 998)
    assert found.tolist() == pytest.approx([6 / 6, 6 / 1.01, 1 / 1.01])
    assert trends.raised(np.array([0.01, 0.01, 0.2, 0.7]), np.array([0.5, 500.0, 5.0, 9.0])).tolist() == pytest.approx(
        [0.01, 0.1, 0.5, 0.7]
    )


# From signals to candidates

NOW = 1_700_000_000_000_000
KNOWN = pa.schema(
    [("anchor", pa.string()), ("companion", pa.string()), ("orders_total", pa.int64()), ("orders_anchor", pa.int64()),
     ("orders_both", pa.int64()), ("confidence", pa.float64()), ("lift", pa.float64())]
)  # fmt: skip
KINDS = {"grill": "Garden", "coal": "Fuel", "sauce": "Food", "tongs": "Tools", "bbq": "Garden"}
CATALOGUE = {sku: Product(sku, "", category) for sku, category in KINDS.items()}


LISTED = {"tongs": [bundle_id([("tongs", 1), ("coal", 1)])]}
"""What the last build lists."""


def bought(*baskets: tuple[str, ...], seconds_ago: int = 30) -> pa.Table:
    rows = [
        {"actor": f"s{n}", "kind": 0, "sku": sku, "at": NOW - seconds_ago * 1_000_000, "weight": 5.0}
        for n, basket in enumerate(baskets)
        for sku in basket
    ]
    return pa.Table.from_pylist(rows, schema=blending.SIGNALS)


def known(*rows: tuple[str, str, int, int, int, float, float]) -> pa.Table:
    return pa.Table.from_pylist([dict(zip(KNOWN.names, row, strict=True)) for row in rows], schema=KNOWN)


def asked(window: pa.Table, before: pa.Table, *rules: Rule, k: int = 3, **live: int) -> list[tuple[str, str, str]]:
    resolved = merchandising.resolve(rules, [], CATALOGUE.values(), dt.date(2024, 3, 1))
    goods = Goods(CATALOGUE, {"grill": 10_000, "tongs": 100}, {}, resolved, LISTED)
    found = candidates(window, before, goods, NOW, Live(**live), Bundling(), "north", k)
    assert all(0 < each.confidence <= 1 for each in found)
    assert all(each.actors >= k for each in found)
    return [(each.anchor, each.companion, each.kind) for each in found]


def test_what_k_shoppers_take_together_is_offered_both_ways_and_what_fewer_take_is_not() -> None:
    window = bought(*[("coal", "sauce")] * 3, ("coal", "grill"), ("coal", "grill"))
    assert asked(window, known()) == [("coal", "sauce", "together"), ("sauce", "coal", "together")]
    assert asked(window, known(), k=4) == []


def test_a_product_that_takes_off_is_offered_where_the_last_build_knew_it_as_a_companion() -> None:
    before = known(("sauce", "coal", 1_000, 100, 20, 0.2, 4.0), ("sauce", "tongs", 1_000, 100, 30, 0.3, 4.0))
    assert asked(bought(*[("coal",)] * 3), before) == [("sauce", "coal", "trending")]
    usual = known(("sauce", "coal", 1_000, 100, 20, 0.2, 4.0), ("coal", "sauce", 1_000, 900, 20, 0.02, 4.0))
    assert asked(bought(*[("coal",)] * 3), usual) == []


@pytest.mark.parametrize(
    "rule",
    [
        Rule(action="exclude", products=Selector(sku=["sauce"])),
        Rule(action="never_together", products=Selector(sku=["coal"]), companions=Selector(category=["Food"])),
        Rule(action="always_with", products=Selector(sku=["coal"]), companions=Selector(sku=["tongs"])),
    ],
    ids=lambda rule: rule.action,
)
def test_what_a_merchandiser_forbids_is_no_candidate(rule: Rule) -> None:
    window = bought(*[("coal", "sauce")] * 3)
    assert asked(window, known(), rule) == []
    elsewhere = Rule(action="exclude", products=Selector(sku=["sauce"]), regions=["south"])
    assert len(asked(window, known(), elsewhere)) == 2


def test_what_is_looked_at_to_choose_one_of_and_what_costs_too_unlike_is_no_candidate() -> None:
    assert asked(bought(*[("grill", "bbq")] * 3), known()) == []
    assert asked(bought(*[("grill", "tongs")] * 3), known()) == []


def test_what_the_last_build_lists_for_an_anchor_needs_no_candidate() -> None:
    assert asked(bought(*[("tongs", "coal")] * 3), known()) == [("coal", "tongs", "together")]


def test_an_anchor_has_few_candidates_and_a_region_few_anchors() -> None:
    window = bought(*[("coal", "sauce", "grill")] * 3)
    assert len(asked(window, known(), per_anchor=1)) == 3
    assert {anchor for anchor, _, _ in asked(window, known(), anchors=1)} == {"coal"}
