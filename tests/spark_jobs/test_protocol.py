"""The protocol's arithmetic against slow obvious references, and the textbook's rankings against plain formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spark_jobs.kernels import baselines, measures, protocol
from spark_jobs.kernels.protocol import Orders, Queries

BASKETS = st.lists(st.lists(st.integers(0, 11), min_size=1, max_size=6), min_size=1, max_size=12)


def orders_of(baskets: list[list[int]], products: int = 12) -> Orders:
    """One order a day, a customer for every two."""
    order = np.repeat(np.arange(len(baskets)), [len(each) for each in baskets])
    item = np.array([item for each in baskets for item in each], np.int32)
    number = np.arange(len(baskets), dtype=np.int32)[order]
    return protocol.orders_of(order, item, number // 2, number, products)


@given(BASKETS)
def test_lines_become_orders_that_hold_each_product_once(baskets: list[list[int]]):
    orders = orders_of(baskets)
    held = [list(orders.items[a:b]) for a, b in zip(orders.starts, orders.starts[1:], strict=False)]
    assert held == [sorted(set(each)) for each in baskets]
    assert list(orders.customer) == [place // 2 for place in range(len(baskets))]
    assert list(orders.day) == list(range(len(baskets)))


@settings(deadline=None)
@given(BASKETS, st.integers(0, 2**32 - 1))
def test_the_metrics_are_what_the_obvious_loops_give(baskets: list[list[int]], seed: int):
    chance = np.random.default_rng(seed)
    lists = np.stack([chance.permutation(14)[:10] - 2 for _ in range(12)]).astype(np.int32)
    lists[lists < 0] = -1
    lists = np.stack([[*row[row >= 0], *row[row < 0]] for row in lists]).astype(np.int32)
    tail = chance.random(12) < 0.5
    orders = orders_of(baskets)
    kept = orders.where(orders.sizes >= 2)
    asked = Queries(kept.starts, kept.items, np.repeat(kept.customer, kept.sizes), tail)
    found = protocol.ask(asked, lists)
    query = 0
    for basket in (sorted(set(each)) for each in baskets):
        for anchor in basket if len(basket) > 1 else ():
            relevant = set(basket) - {anchor}
            shown = [item for item in lists[anchor] if item >= 0]
            hits = [item for item in lists[anchor][:5] if item in relevant]
            dcg = sum(1 / math.log2(place + 2) for place, item in enumerate(shown) if item in relevant)
            ideal = sum(1 / math.log2(place + 2) for place in range(min(10, len(relevant))))
            assert found.hit[query] == bool(hits)
            assert found.tail[query] == any(tail[item] for item in hits)
            assert found.ndcg[query] == pytest.approx(dcg / ideal)
            query += 1
    assert query == len(found.hit)


def test_the_days_are_split_in_time_and_only_known_products_ask():
    baskets = [[0, 1], [0, 1, 2], [0, 1], [0, 2], [0, 1, 3], [1, 0], [0, 1], [0, 1], [3, 0, 1], [0, 3]]
    found = protocol.trial(orders_of(baskets), min_orders=3)
    assert found.learned.count == 8
    assert list(found.known) == [0, 1]
    assert list(found.asked.anchor) == [0, 1], "2 and 3 are not known; an order with one known product asks nothing"


def test_an_interval_draws_customers_not_queries():
    customer = np.repeat(np.arange(4), 500).astype(np.int32)
    values = np.repeat([1.0, 0.0, 1.0, 0.0], 500)
    by_customer = protocol.estimate(values, customer)
    by_query = protocol.estimate(values, np.arange(2000, dtype=np.int32))
    assert by_customer.value == by_query.value == 0.5
    assert by_customer.high - by_customer.low > 5 * (by_query.high - by_query.low)
    assert by_customer == protocol.estimate(values, customer), "the same draws every time"
    assert protocol.estimate(values[:0], customer[:0]) == (0.0, 0.0, 0.0, 0)


@settings(deadline=None, max_examples=25)
@given(BASKETS)
def test_the_textbooks_rankings_are_their_formulas_sorted(baskets: list[list[int]]):
    orders = orders_of(baskets)
    held = baselines.postings(orders)
    sets = [set(each) for each in baskets]
    n, single = len(sets), [sum(item in each for each in sets) for item in range(12)]
    formulas = {
        baselines.CONFIDENCE: lambda c, a, b: measures.confidence(c, a),
        baselines.DAMPED: lambda c, a, b: c / (a * b**0.2),
        baselines.LIFT: lambda c, a, b: measures.lift(c, a, b, n),
        baselines.COSINE: lambda c, a, b: c / np.sqrt(a * b),
        baselines.NPMI: lambda c, a, b: measures.npmi(c, a, b, n),
        baselines.LLR: lambda c, a, b: measures.llr(c, a, b, n),
    }
    for kind, formula in formulas.items():
        lists = baselines.by_measure(held, kind, top=4)
        for anchor in range(12):
            scores = {}
            for item in set(range(12)) - {anchor}:
                both = sum(anchor in each and item in each for each in sets)
                if both:
                    scores[item] = float(formula(both, single[anchor], single[item]))
            best = sorted((round(-score, 9), -single[item]) for item, score in scores.items())[:4]
            shown = [item for item in lists[anchor] if item >= 0]
            assert [(round(-scores[item], 9), -single[item]) for item in shown] == best


def test_smoothing_fills_the_lists_of_thin_products_from_their_category():
    baskets = [[0, 5]] * 20 + [[1, 6]] + [[7, 8]] * 30
    held = baselines.postings(orders_of(baskets, 9))
    category = np.array([0, 0, 1, 1, 1, 2, 2, 3, 3], np.int32)
    assert list(baselines.smoothed(held, category, top=2)[1]) == [5, 6]
    assert list(baselines.by_measure(held, baselines.CONFIDENCE, top=2)[1]) == [6, -1]
    assert list(baselines.popularity(held, top=2)[8]) == [7, 0]
