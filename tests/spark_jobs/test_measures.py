"""The measures say what their sources define, on tables small enough to work out by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_jobs.kernels import measures


@st.composite
def tables(draw: st.DrawFn) -> tuple[int, int, int, int]:
    n = draw(st.integers(1, 10_000))
    a, b = draw(st.integers(1, n)), draw(st.integers(1, n))
    return draw(st.integers(max(0, a + b - n), min(a, b))), a, b, n


def test_a_pair_of_ten_in_a_hundred_orders_has_the_textbook_values():
    c, a, b, n = 10, 20, 40, 100
    assert measures.support(c, n) == pytest.approx(0.1)
    assert measures.confidence(c, a) == pytest.approx(0.5)
    assert measures.lift(c, a, b, n) == pytest.approx(1.25)
    assert measures.npmi(c, a, b, n) == pytest.approx(math.log(1.25) / -math.log(0.1))
    observed = np.array([10, 10, 30, 50])
    expected = np.array([8, 12, 32, 48])
    assert measures.llr(c, a, b, n) == pytest.approx(2 * (observed * np.log(observed / expected)).sum())


def test_products_that_are_only_bought_together_have_npmi_one():
    assert measures.npmi(10, 10, 10, 100) == pytest.approx(1.0)


def test_products_that_are_never_bought_together_have_npmi_minus_one():
    assert measures.npmi(0, 10, 10, 100) == -1.0


@given(tables())
def test_independent_products_have_no_log_likelihood_and_others_never_a_negative_one(table: tuple[int, int, int, int]):
    c, a, b, n = table
    value = float(measures.llr(c, a, b, n))
    assert value >= 0
    if c * n == a * b:
        assert value == pytest.approx(0, abs=1e-6)


@given(tables())
def test_npmi_stays_between_minus_one_and_one_and_has_the_sign_of_the_lift(table: tuple[int, int, int, int]):
    c, a, b, n = table
    value, lift = float(measures.npmi(c, a, b, n)), float(measures.lift(c, a, b, n))
    assert -1 <= value <= 1 + 1e-9
    if 0 < c < n:
        assert math.copysign(1, value) == math.copysign(1, lift - 1) or abs(lift - 1) < 1e-12
