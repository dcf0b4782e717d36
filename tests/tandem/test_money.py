"""Money is an integer of minor units; nothing is lost or made when it is split."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction
from math import ceil, floor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tandem.money import BPS, EXPONENTS, allocate, discounted, minor_units


@pytest.mark.parametrize(
    ("amount", "currency", "units"),
    [
        ("12.34", "USD", 1234),
        ("12.345", "USD", 1235),
        ("12.344999", "EUR", 1234),
        ("-0.005", "EUR", -1),
        ("500", "JPY", 500),
        ("0.5", "JPY", 1),
        ("1.2345", "KWD", 1235),
        ("1e3", "USD", 100_000),
        (Decimal("0.1"), "USD", 10),
        (7, "BHD", 7000),
    ],
)
def test_an_amount_becomes_minor_units_of_its_currency_half_up(
    amount: str | Decimal | int, currency: str, units: int
) -> None:
    assert minor_units(amount, currency) == units


@pytest.mark.parametrize("amount", ["", "abc", "1,5", "NaN", "sNaN", "Infinity", "-Infinity", "1e999999", "1e40"])
def test_what_is_no_amount_is_refused(amount: str) -> None:
    with pytest.raises(ValueError):
        minor_units(amount, "USD")


def test_an_unknown_currency_is_named() -> None:
    with pytest.raises(ValueError, match="'XYZ' is no ISO 4217 currency"):
        minor_units("1", "XYZ")


def test_currencies_have_no_two_or_three_places() -> None:
    assert set(EXPONENTS.values()) == {0, 2, 3}
    assert all(len(code) == 3 and code.isupper() for code in EXPONENTS)


@given(st.integers(0, 10**12), st.integers(0, BPS))
def test_a_discount_is_rounded_half_up_to_the_cent(amount: int, bps: int) -> None:
    exact = Decimal(amount) * (BPS - bps) / BPS
    assert discounted(amount, bps) == int(exact.quantize(Decimal(1), rounding=ROUND_HALF_UP))


weights = st.lists(st.integers(0, 10**9), min_size=1, max_size=8)


@given(st.integers(0, 10**12), weights)
def test_the_parts_sum_to_the_whole_and_each_is_its_share_rounded_up_or_down(total: int, shares: list[int]) -> None:
    parts = allocate(total, shares)
    assert sum(parts) == total
    even = shares if any(shares) else [1] * len(shares)
    for part, share in zip(parts, even, strict=True):
        exact = Fraction(total * share, sum(even))
        assert floor(exact) <= part <= ceil(exact)


@given(st.integers(0, 10**9), weights)
def test_whoever_lost_most_by_rounding_down_gets_the_next_unit(total: int, shares: list[int]) -> None:
    parts = allocate(total, shares)
    even = shares if any(shares) else [1] * len(shares)
    lost = [Fraction(total * share, sum(even)) - part for part, share in zip(parts, even, strict=True)]
    gave = [Fraction(total * share, sum(even)) % 1 for share in even]
    rounded_up = [gave[n] for n in range(len(parts)) if lost[n] < 0]
    rounded_down = [gave[n] for n in range(len(parts)) if lost[n] > 0]
    if rounded_up and rounded_down:
        assert min(rounded_up) >= max(rounded_down)


def test_equal_claims_go_to_the_earlier_part() -> None:
    assert allocate(100, [1, 1, 1]) == [34, 33, 33]
    assert allocate(2, [0, 0, 0]) == [1, 1, 0]


def test_there_must_be_something_to_allocate_to() -> None:
    with pytest.raises(ValueError, match="nothing to allocate to"):
        allocate(1, [])
