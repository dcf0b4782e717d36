"""Price responses against truths that are known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

from spark_jobs.kernels import hierarchy, poisson, responses


def history(seed: int, products: int, weeks: int, elasticity: float, rate: float, lasting: int = 1) -> responses.Weeks:
    """Weeks in which something sold, of products that go on promotion for `lasting` weeks at a time."""
    chance = np.random.default_rng(seed)
    base = chance.normal(np.log(rate), 0.5, products)[:, None]
    season = chance.normal(0, 0.2, weeks)[None, :]
    reduced = np.repeat(chance.random((products, weeks // lasting)) < 0.3, lasting, axis=1)
    price = np.exp(chance.normal(6, 0.5, products))[:, None] * np.where(reduced, 0.75, 1)
    units = chance.poisson(np.exp(base + season + elasticity * (np.log(price) - 6)))
    product, week = np.nonzero(units)
    sold = units[product, week].astype(np.float64)
    return responses.Weeks(product, week, sold, price[product, week], np.zeros(len(sold)))


@pytest.mark.parametrize("truth", [-0.5, -1.4, -2.5])
def test_the_elasticity_that_made_the_sales_lies_within_the_interval(truth: float) -> None:
    found = [responses.fitted(responses.panel(history(seed, 60, 52, truth, 6.0)), 0, 60) for seed in range(12)]
    inside = [abs(fit.beta[0] - truth) < 1.96 * fit.error[0] for fit in found]
    assert sum(inside) >= 9
    assert np.mean([fit.beta[0] for fit in found]) == pytest.approx(truth, abs=0.1)


def test_weeks_without_a_sale_count_or_the_response_of_slow_sellers_is_lost() -> None:
    sold = history(1, 400, 52, -2.0, 0.8, lasting=4)
    with_zeros = responses.fitted(responses.panel(sold), 0, 400)
    columns = np.column_stack([np.log(sold.price), sold.reduced])
    without = poisson.fit(sold.product, sold.week, sold.units, columns)
    assert abs(with_zeros.beta[0] + 2.0) < 0.6 * abs(without.beta[0] + 2.0)


def test_the_fit_is_the_maximum_that_a_general_optimiser_finds() -> None:
    held = responses.panel(history(3, 5, 20, -1.0, 5.0))
    column = np.log(held.price)
    weeks = np.unique(held.week, return_inverse=True)[1]
    product = np.unique(held.product, return_inverse=True)[1]

    def negative(theta: np.ndarray) -> float:
        power = theta[0] * column + theta[1 : 1 + 20][weeks] + theta[21:][product]
        penalty = poisson.COLUMN_PRECISION * theta[0] ** 2 + poisson.WEEK_PRECISION * (theta[1:21] ** 2).sum()
        return float(np.exp(power).sum() - held.units @ power + penalty / 2)

    start = np.zeros(21 + product.max() + 1)
    start[21:] = 1.0
    best = optimize.minimize(negative, start, method="BFGS", options={"gtol": 1e-6})
    found = poisson.fit(held.product, held.week, held.units, column[:, None])
    assert found.beta[0] == pytest.approx(best.x[0], abs=2e-4)


def test_a_price_that_never_changed_and_an_empty_history_tell_nothing() -> None:
    sold = history(2, 20, 30, -1.0, 4.0)
    constant = sold._replace(price=np.full(len(sold.units), 99.0))
    assert len(responses.panel(constant).product) == 0
    assert responses.fitted(responses.panel(constant), 0, 20) is None
    nothing = np.zeros(0)
    empty = responses.summed(np.zeros(0, np.int64), np.zeros(0, np.int64), nothing, nothing, nothing, nothing)
    assert len(responses.panel(empty).product) == 0
    assert np.isinf(poisson.fit(empty.product, empty.week, empty.units, np.zeros((0, 2))).error).all()


def test_the_price_of_a_week_is_the_median_over_its_lines() -> None:
    lines = [
        (0, 3, 100.0, 1.0, 3.0, 0.0),
        (0, 3, 50.0, 9.0, 1.0, 1.0),
        (0, 4, 80.0, 2.0, 1.0, 0.0),
        (1, 4, 7.0, 1.0, 1.0, 0.0),
    ]
    columns = [np.array(values) for values in zip(*lines, strict=True)]
    found = responses.summed(columns[0].astype(np.int64), columns[1].astype(np.int64), *columns[2:])
    assert found.price.tolist() == [100.0, 80.0, 7.0]
    assert found.units.tolist() == [10.0, 2.0, 1.0]
    assert found.reduced.tolist() == [0.25, 0.0, 0.0]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(-20, 0), st.integers(1, 9)), max_size=60), st.randoms())
def test_sums_do_not_depend_on_the_order_of_rows(rows: list[tuple[int, int, int]], chance) -> None:
    def sums(given: list[tuple[int, int, int]]) -> responses.Weeks:
        product, week, price = (np.array([row[n] for row in given], np.int64) for n in range(3))
        one = np.ones(len(given))
        return responses.summed(product, week, price.astype(np.float64), one, one, one)

    mixed = list(rows)
    chance.shuffle(mixed)
    for left, right in zip(sums(rows), sums(mixed), strict=True):
        assert np.array_equal(left, right)
    assert sums(rows).units.sum() == len(rows)


def test_thin_categories_go_to_their_parent_and_well_known_ones_stay() -> None:
    chance = np.random.default_rng(5)
    truth = np.append(-1.5, chance.normal(-1.5, 0.4, 40))
    error = np.append(0.05, np.where(np.arange(40) < 20, 0.05, 3.0))
    own = truth + chance.normal(0, error)
    parent, level = np.append(-1, np.zeros(40, np.int64)), np.append(0, np.ones(40, np.int64))
    drawn = hierarchy.shrink(own, error, parent, level, (-2.62, 2.21))
    assert np.abs(drawn.value[1:21] - own[1:21]).max() < 0.05
    assert np.abs(drawn.value[21:] + 1.5).max() < 0.4
    assert ((drawn.value - truth) ** 2).mean() < ((own - truth) ** 2).mean() / 5
    assert (np.abs(drawn.value - truth) < 1.96 * drawn.error).mean() > 0.85


def test_what_has_no_history_is_its_parent_with_less_certainty_and_the_root_the_literature() -> None:
    nothing = np.array([np.nan, np.nan])
    drawn = hierarchy.shrink(nothing, nothing, np.array([-1, 0]), np.array([0, 1]), (-2.62, 2.21))
    assert drawn.value.tolist() == [-2.62, -2.62]
    assert drawn.error[1] > drawn.error[0] == 2.21


def test_regions_that_differ_by_chance_alone_get_what_holds_for_all() -> None:
    chance = np.random.default_rng(6)
    group = np.repeat(np.arange(30), 3)
    whole, error = chance.normal(-1, 0.5, 30)[group], np.full(90, 0.3)
    alike = hierarchy.toward(whole + chance.normal(0, 0.15, 90), error, whole, np.full(90, 0.2), group)
    assert np.array_equal(alike.value, whole)
    apart = whole + np.tile([-1.0, 0.0, 1.0], 30)
    unlike = hierarchy.toward(apart + chance.normal(0, 0.3, 90), error, whole, np.full(90, 0.2), group)
    assert np.abs(unlike.value - apart).mean() < 0.3
