from __future__ import annotations

from decimal import Decimal

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tandem import money
from warehouse import doors
from warehouse.mapping import Format

CONNECTION = duckdb.connect()
AMOUNTS = st.decimals(
    min_value=-doors.MOST_MONEY, max_value=doors.MOST_MONEY, places=12, allow_nan=False
) | st.decimals(min_value=-100, max_value=100, places=3)


def at_the_door(text: str, currency: str) -> int:
    sql = doors.minor_units(doors.number("amount", Format()), "currency")
    rows = CONNECTION.execute(f"SELECT {sql} FROM (SELECT $1 AS amount, $2 AS currency)", [text, currency]).fetchall()
    return int(rows[0][0])


@settings(max_examples=300, deadline=None)
@given(AMOUNTS, st.sampled_from(["EUR", "JPY", "KWD", "USD"]))
def test_money_at_the_door_is_money_by_the_rule(amount: Decimal, currency: str) -> None:
    assert at_the_door(f"{amount:f}", currency) == money.minor_units(amount, currency)


@settings(max_examples=100, deadline=None)
@given(AMOUNTS.filter(lambda amount: abs(amount) > Decimal("1e-6")))
def test_how_a_number_is_written_does_not_matter(amount: Decimal) -> None:
    assert at_the_door(f"{amount:E}", "EUR") == at_the_door(f"{amount:f}", "EUR")


def test_every_currency_has_its_places() -> None:
    assert {code: at_the_door("12.3456", code) for code in money.EXPONENTS} == {
        code: money.minor_units("12.3456", code) for code in money.EXPONENTS
    }


@pytest.mark.parametrize("text", ["", "1,5", "1.5.5", "0x10", "1_0", "٣", "--1", "1e", "NaN", "Infinity", "1 000"])
def test_what_is_no_number_gives_none(text: str) -> None:
    sql = doors.number("amount", Format())
    assert CONNECTION.execute(f"SELECT {sql} FROM (SELECT $1 AS amount)", [text]).fetchall() == [(None,)]


def test_a_decimal_comma_is_read_where_the_file_has_one() -> None:
    sql = doors.number("amount", Format(decimal=","))
    rows = [
        CONNECTION.execute(f"SELECT {sql} FROM (SELECT $1 AS amount)", [text]).fetchall() for text in ("1,5", "1.5")
    ]
    assert rows == [[(Decimal("1.5"),)], [(None,)]]
