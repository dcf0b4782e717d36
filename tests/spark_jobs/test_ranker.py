"""The ranker on made shops whose truth is known, and on shops that bring less; asked about later orders only."""

from __future__ import annotations

import numpy as np
import pytest

from spark_jobs.kernels import baselines, choose, features, protocol, ranker
from spark_jobs.kernels.features import NAMES, Catalogue
from spark_jobs.kernels.protocol import Orders, Trial


def made_shop(
    seed: int, *, products: int = 240, needs: int = 12, orders: int = 6000, days: int = 100, staples: float = 0.15
) -> tuple[Orders, Catalogue]:
    """Every product serves one need; orders hold a few products of two needs that go together, and staples.

    Products of a need differ in popularity alone: what goes with a rare one is what goes with its need.
    """
    chance = np.random.default_rng(seed)
    need = np.arange(products) % needs
    own = 1.0 / (1 + np.arange(products) // needs) ** 0.8
    lines: list[tuple[int, int]] = []
    for order in range(orders):
        first = chance.integers(needs)
        for wanted in (first, (first + 1) % needs):
            members = np.flatnonzero(need == wanted)
            size = chance.integers(1, 3)
            held = chance.choice(members, size, replace=False, p=own[members] / own[members].sum())
            lines += [(order, int(item)) for item in held]
        lines += [(order, item) for item in range(3) if chance.random() < staples]
    order, item = np.array(lines).T
    customer = chance.integers(0, orders // 20, orders).astype(np.int32)
    day = np.sort(chance.integers(0, days, orders)).astype(np.int32)
    found = protocol.orders_of(order, item.astype(np.int32), customer[order], day[order], products)
    category = np.stack([need, need, need // 4]).astype(np.int32)
    return found, Catalogue(category, np.full(products, -1, np.int32), np.linspace(1, 9, products))


def bare(catalogue: Catalogue) -> Catalogue:
    """Nothing known of products."""
    return Catalogue(np.full_like(catalogue.category, -1), catalogue.brand, np.full(len(catalogue.price), np.nan))


def lists_of(trial: Trial, catalogue: Catalogue, model: bytes | None, tail_weight: float = 0.0) -> np.ndarray:
    known = features.evidence(trial.learned, catalogue.of(trial.known))
    anchors = np.arange(len(trial.known), dtype=np.int32)
    return ranker.rank(known, anchors, ranker.opened(model), tail_weight=tail_weight, kept=10).companions


def gain(trial: Trial, ours: np.ndarray, theirs: np.ndarray) -> protocol.Estimate:
    """How many more queries are hit, with its interval."""
    mine, other = protocol.ask(trial.asked, ours), protocol.ask(trial.asked, theirs)
    return protocol.estimate(mine.hit - other.hit, trial.asked.customer)


@pytest.mark.parametrize("strip", [False, True], ids=["with categories and prices", "orders alone"])
def test_the_ranker_beats_the_textbook_on_later_orders(strip: bool):
    orders, catalogue = made_shop(1)
    catalogue = bare(catalogue) if strip else catalogue
    trial = protocol.trial(orders)
    cut = protocol.first_asked_day(orders.day)
    model = ranker.train(orders.where(orders.day < cut), catalogue, min_orders=10)
    assert model is not None
    ours = lists_of(trial, catalogue, model)
    held = baselines.postings(trial.learned)
    for theirs in ("popularity", "confidence", "cosine", "lift"):
        assert gain(trial, ours, baselines.BASELINES[theirs](held)).low > 0, theirs


def test_what_became_of_one_product_is_no_rule_for_pairs():
    """Three staples are out of stock in just the days that trees take their targets from, and come back."""
    orders, catalogue = made_shop(5, staples=0.5)
    gone = (orders.day[np.repeat(np.arange(len(orders.day)), orders.sizes)] // 16 == 4) & (orders.items < 3)
    order = np.repeat(np.arange(len(orders.day)), orders.sizes)[~gone]
    orders = protocol.orders_of(order, orders.items[~gone], orders.customer[order], orders.day[order], orders.products)
    cut = protocol.first_asked_day(orders.day)
    model = ranker.train(orders.where(orders.day < cut), bare(catalogue), min_orders=10)
    trial = protocol.trial(orders)
    ours, untaught = (lists_of(trial, bare(catalogue), each) for each in (model, None))
    assert gain(trial, ours, untaught).high >= 0


def test_the_same_orders_give_the_same_model_and_the_same_lists():
    orders, catalogue = made_shop(2, orders=3000)
    models = [ranker.train(orders, catalogue, min_orders=10) for _ in range(2)]
    assert models[0] == models[1]
    trial = protocol.trial(orders)
    assert (lists_of(trial, catalogue, models[0]) == lists_of(trial, catalogue, models[1])).all()


def test_where_nothing_can_be_learned_smoothed_confidence_stands():
    orders, catalogue = made_shop(3, orders=300)
    assert ranker.train(orders, catalogue, min_orders=10) is None
    one_day = Orders(orders.starts, orders.items, orders.customer, np.zeros_like(orders.day), orders.products)
    assert ranker.train(one_day, catalogue, min_orders=10) is None
    trial = protocol.trial(orders, min_orders=3)
    assert (lists_of(trial, catalogue, None)[:, :5] >= 0).all()


def test_a_shop_of_three_products_is_ranked_too():
    order = np.repeat(np.arange(40), 2)
    item = np.array([0, 1, 0, 2] * 20, np.int32)
    number = order.astype(np.int32)
    orders = protocol.orders_of(order, item, number, number, 3)
    catalogue = Catalogue(np.full((3, 3), -1, np.int32), np.full(3, -1, np.int32), np.full(3, np.nan))
    known = features.evidence(orders, catalogue)
    found = ranker.rank(known, np.arange(3, dtype=np.int32), None, tail_weight=0.3, kept=10).companions
    assert sorted(found[0][found[0] >= 0]) == [1, 2]
    assert found[1][0] == found[2][0] == 0


def test_figures_are_the_counts_of_the_orders():
    orders, catalogue = made_shop(4, orders=400)
    known = features.evidence(orders, catalogue)
    anchors = np.array([5, 17], np.int32)
    chosen, around = features.candidates(known, anchors)
    table = features.figures(known, anchors, chosen, around)
    sets = [set(orders.items[a:b]) for a, b in zip(orders.starts, orders.starts[1:], strict=False)]
    need = catalogue.category[0]
    for row, anchor in enumerate(anchors):
        own = [each for each in sets if anchor in each]
        like = [(member, each) for each in sets for member in each if need[member] == need[anchor]]
        for place, item in enumerate(chosen[row][chosen[row] >= 0]):
            figures = dict(zip(NAMES, table[row, place], strict=True))
            both = sum(item in each for each in own)
            category = sum(item in each and item != member for member, each in like) / len(like)
            assert figures["together"] == both
            assert figures["confidence"] == pytest.approx(both / len(own))
            assert figures["category"] == pytest.approx(category)
            assert figures["popularity"] == pytest.approx(sum(item in each for each in sets) / len(sets))
    masked = features.figures(known, anchors, chosen, around, min_customers=3)
    few = np.rint(table[:, :, NAMES.index("customers")] * (known.customers[anchors][:, None] + 1)) < 3
    assert (masked[:, :, 0][few] == 0).all()
    np.testing.assert_array_equal(masked[:, :, 0][~few], table[:, :, 0][~few])


def test_five_chosen_together_answer_more_needs_than_the_five_likeliest():
    """The anchor goes with tea (two brands, always both) in 60 % of orders, with a rarer jam in the other 40 %."""
    order = np.repeat(np.arange(100), 3)
    item = np.concatenate([[0, 1, 2] if number < 60 else [0, 3, 4] for number in range(100)]).astype(np.int32)
    number = order.astype(np.int32)
    orders = protocol.orders_of(order, item, number, number, 5)
    catalogue = Catalogue(np.full((3, 5), -1, np.int32), np.full(5, -1, np.int32), np.full(5, np.nan))
    known = features.evidence(orders, catalogue)
    chosen = np.array([[1, 2, 3, 4]], np.int32)
    probability = np.array([[0.6, 0.59, 0.4, 0.39]])
    tail = np.zeros(5, bool)
    together = choose.choose(known, np.array([0], np.int32), chosen, probability, tail, tail_weights=[0.0], kept=2)[0]
    assert list(together[0]) == [0, 2], "the second brand of tea answers nobody whom the first did not"


def test_a_bonus_for_the_tail_trades_hits_for_discovery():
    orders, catalogue = made_shop(5, products=400)
    trial = protocol.trial(orders)
    found = [protocol.ask(trial.asked, lists_of(trial, catalogue, None, weight)) for weight in (0.0, 3.0)]
    assert found[1].tail.mean() > found[0].tail.mean()
    assert found[1].hit.mean() <= found[0].hit.mean() + 0.005
