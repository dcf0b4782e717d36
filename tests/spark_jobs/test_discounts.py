"""A discount is only ever given where it earns, and never below a floor."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spark_jobs.kernels import discounts
from spark_jobs.kernels.discounts import Sets, Terms
from tandem import offer
from tandem.bundle import Bundle, Component
from tandem.money import discounted

PART = st.tuples(
    st.integers(1, 200_000),  # price: yen, cents or fils
    st.floats(0.0, 1.4),  # floor over price
    st.floats(0.0, 1.2),  # cost over price
    st.floats(-9.0, 2.0),  # elasticity
    st.floats(0.0, 3.0),  # its error
    st.integers(0, 500),  # orders that hold it, but for the set's own
)
SETS = st.lists(
    st.tuples(st.lists(PART, min_size=2, max_size=4), st.integers(1, 300), st.floats(0.5, 60.0)), min_size=1, max_size=6
)
TERMS = st.builds(
    Terms,
    step_bps=st.just(50),
    probability=st.just(0.8),
    switching=st.just(1 / 3),
    max_bps=st.integers(0, 4_000),
    fixed_bps=st.integers(0, 4_000),
    point_step=st.sampled_from([1, 5, 10, 50, 100, 500]),
    point_ending=st.sampled_from([0, 4]),
)


def sets_of(drawn: list[tuple[list[tuple[float, ...]], int, float]]) -> Sets:
    shape = (len(drawn), max(len(parts) for parts, *_ in drawn))
    held = [np.zeros(shape) for _ in range(6)]
    for row, (parts, together, _) in enumerate(drawn):
        for place, (price, floor, cost, elasticity, error, further) in enumerate(parts):
            values = (price, round(floor * price), cost * price, elasticity, error, together + further)
            for column, value in zip(held, values, strict=True):
                column[row, place] = value
    price, floor, cost, elasticity, error, holding = held
    together, lift = (np.array([each[n] for each in drawn], np.float64) for n in (1, 2))
    whole = price.astype(np.int64), floor.astype(np.int64)
    return Sets(*whole, cost, elasticity, error, together, lift, holding)


@settings(max_examples=60, deadline=None)
@given(SETS, TERMS, st.sampled_from(sorted(discounts.STRATEGIES)))
def test_no_strategy_takes_a_component_below_its_floor_when_the_edge_prices_it(drawn, terms, strategy) -> None:
    sets = sets_of(drawn)
    bps = discounts.STRATEGIES[strategy](sets, terms)
    assert ((bps >= 0) & (bps <= terms.max_bps)).all()
    for row in np.flatnonzero(bps):
        parts = [place for place in range(sets.price.shape[1]) if sets.price[row, place]]
        components = tuple(Component(f"{place}", 1, None) for place in parts)
        bundle = Bundle("b", components, int(bps[row]), 0, 0.0)
        live = {f"{place}": offer.Live(9, int(sets.price[row, place])) for place in parts}
        offered = offer.price(bundle, live.get)
        assert offered is not None
        for component in offered.components:
            assert component.offer_price >= sets.floor[row, int(component.sku)]


@settings(max_examples=60, deadline=None)
@given(SETS, TERMS, st.floats(1.0, 2.0))
def test_a_higher_cost_never_makes_a_discount_deeper(drawn, terms, dearer) -> None:
    sets = sets_of(drawn)
    before = discounts.best(sets, terms)
    after = discounts.best(sets._replace(cost=sets.cost * dearer), terms)
    assert (after <= before).all()


@settings(max_examples=60, deadline=None)
@given(SETS, TERMS)
def test_a_discount_given_for_profit_earns_with_the_probability_asked_for(drawn, terms) -> None:
    sets = sets_of(drawn)
    bps = discounts.best(sets, terms)
    found = discounts.outcome(sets, bps, terms)
    given_one = bps > 0
    assert (found.gain[given_one] > 0).all()
    assert (found.probability[given_one] >= terms.probability).all()
    assert (found.spend[given_one] > 0).all()
    assert (found.gain[~given_one] == 0).all()


@settings(max_examples=40, deadline=None)
@given(SETS, TERMS)
def test_nobody_who_answers_to_prices_means_no_discount(drawn, terms) -> None:
    sets = sets_of(drawn)
    nobody = np.zeros_like(sets.error)
    assert not discounts.best(sets._replace(elasticity=nobody, error=nobody), terms).any()
    assert not discounts.best(sets._replace(elasticity=nobody + 1.5, error=nobody), terms).any()
    assert not discounts.best(sets._replace(holding=nobody), terms).any(), "offered on no page"


@settings(max_examples=40, deadline=None)
@given(SETS, TERMS, st.randoms())
def test_the_same_sets_in_another_order_get_the_same_discounts(drawn, terms, chance) -> None:
    order = list(range(len(drawn)))
    chance.shuffle(order)
    found = discounts.best(sets_of(drawn), terms)
    assert np.array_equal(found[order], discounts.best(sets_of([drawn[place] for place in order]), terms))


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 100), st.floats(0, 100)), min_size=1, max_size=30),
    st.floats(0, 500),
    st.floats(0, 99),
)
def test_a_budget_is_never_passed_and_one_that_is_large_enough_pays_for_all(rows, budget, further) -> None:
    gain, spend = (np.array([row[n] for row in rows]) for n in range(2))
    taken = discounts.within_budget(gain, spend, budget)
    assert spend[taken].sum() <= budget + 1e-6
    assert taken[spend == 0].all()
    assert discounts.within_budget(gain, spend, float(spend.sum()) + 1 + further).all()


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 10_000), st.sampled_from([(10, 9), (5, 0), (50, 49), (100, 0), (500, 0)]), st.integers(0, 3_000))
def test_prices_end_as_asked_and_are_not_below_the_step_they_stand_for(total, point, deepest) -> None:
    terms = Terms(max_bps=deepest, point_step=point[0], point_ending=point[1])
    tried = discounts.depths(np.array([total]), terms)[0]
    plain = discounts.depths(np.array([total]), Terms(max_bps=deepest))[0]
    assert tried[0] == 0
    for bps, step in zip(tried[1:], plain[1:], strict=True):
        price = discounted(total, int(bps))
        assert price >= discounted(total, int(step))
        assert price == total or price % point[0] == point[1]


def test_a_set_that_is_always_bought_whole_is_recommended_and_not_discounted() -> None:
    pair = ([(300, 0.0, 0.3, -2.5, 0.1, 900), (300, 0.0, 0.3, -2.5, 0.1, 900)], 100, 1.0)
    always = ([(300, 0.0, 0.3, -2.5, 0.1, 2), (300, 0.0, 0.3, -2.5, 0.1, 2)], 100, 1.0)
    needed = ([(300, 0.0, 0.3, -2.5, 0.1, 900), (300, 0.0, 0.3, -2.5, 0.1, 900)], 100, 30.0)
    assert (discounts.best(sets_of([pair, always, needed]), Terms()) > 0).tolist() == [True, False, False]


def test_less_certainty_gives_no_discount_where_more_gives_one() -> None:
    def pair(error: float) -> tuple[list[tuple[float, ...]], int, float]:
        return [(300, 0.0, 0.6, -2.5, error, 900), (300, 0.0, 0.6, -2.5, error, 900)], 100, 1.0

    assert (discounts.best(sets_of([pair(0.1), pair(3.0)]), Terms()) > 0).tolist() == [True, False]


def test_stock_that_lies_too_long_counts_at_what_it_still_brings() -> None:
    cost = np.array([100.0, 100.0, 100.0])
    found = discounts.pressing(cost, np.array([50.0, 700.0, 5.0]), np.array([1.0, 1.0, 0.0]), 60, 0.4)
    assert found.tolist() == [100.0, 40.0, 40.0]


def test_in_a_market_whose_truth_is_known_the_profit_is_near_the_oracles_and_ranking_by_co_purchase_loses() -> None:
    from benchmarks import pricing

    share = {row["name"]: row for row in pricing.summary(4)}
    assert share["profit"]["share"] > 0.75
    assert share["profit"]["gain"] > share["none"]["gain"] == 0
    assert share["fixed 5 %"]["gain"] < 0
    assert share["by co-purchase rank"]["gain"] < share["fixed 5 %"]["gain"]


@pytest.mark.parametrize("missing", [np.zeros((0, 2))])
def test_no_sets_are_no_trouble(missing) -> None:
    whole, line = missing.astype(np.int64), np.zeros(0)
    empty = Sets(whole, whole, missing, missing, missing, line, line, missing)
    assert len(discounts.best(empty, Terms())) == 0
    assert len(discounts.outcome(empty, np.zeros(0, np.int64), Terms()).gain) == 0
