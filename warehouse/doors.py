"""What a value must be to come in: SQL over text that gives the value, and why it cannot be used.

Money is read to twelve decimal places and becomes whole minor units once, half up (away from zero), in decimals.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from tandem.money import EXPONENTS
from warehouse.mapping import Format
from warehouse.views import quoted

NUMBER = r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,3})?"
MOST_UNITS = 1_000_000
MOST_MONEY = 1_000_000_000
"""In major units of any currency. With MOST_UNITS, every sum of a line fits 64 bits."""


class Refusal(NamedTuple):
    """Why a row cannot be used: the first that is true counts."""

    reason: str
    when: str
    detail: str
    """SQL for a text that names the field."""


def first_of(refusals: list[Refusal]) -> str:
    """SQL for two columns, `reason` and `detail`; null for a row that can be used."""
    reasons = " ".join(f"WHEN {found.when} THEN {quoted(found.reason)}" for found in refusals)
    details = " ".join(f"WHEN {found.when} THEN {found.detail}" for found in refusals)
    return f"CASE {reasons} END AS reason, CASE {details} END AS detail"


def missing(column: str) -> Refusal:
    return Refusal("missing_value", f"{column} IS NULL", quoted(f"{column} is empty"))


def numbers(columns: Iterable[str], form: Format) -> str:
    """SQL for a further column `NAME_value` (DECIMAL(24,12)) beside each text column; null where it is no number."""
    return ", ".join(f"{number(column, form)} AS {column}_value" for column in columns)


def number(column: str, form: Format) -> str:
    """The number in `column` as DECIMAL(24,12); null where it is none or does not fit."""
    written = _dotted(column, form)
    return f"CASE WHEN NOT contains({written}, '_') THEN TRY_CAST({written} AS DECIMAL(24,12)) END"


def not_a_number(column: str, form: Format, most: int) -> list[Refusal]:
    """Refusals, from `column` and its value, for what is no number or is too large to be one of a shop."""
    shown = f"{quoted(column + ' ')} || '''' || left({column}, 40) || ''''"
    unread = f"{column} IS NOT NULL AND {column}_value IS NULL"
    return [
        Refusal(
            "bad_number",
            f"{unread} AND NOT regexp_full_match({_dotted(column, form)}, '{NUMBER}')",
            f"{shown} || ' is no number'",
        ),
        Refusal("absurd_number", f"{unread} OR abs({column}_value) > {most}", f"{shown} || ' is beyond {most}'"),
    ]


def minor_units(decimal: str, currency: str) -> str:
    """SQL for `decimal` (DECIMAL up to 24 digits before the places) in whole minor units of `currency`, half up."""
    by_places = {
        places: [code for code in EXPONENTS if EXPONENTS[code] == places] for places in set(EXPONENTS.values())
    }
    cases = " ".join(
        f"WHEN {currency} IN ({', '.join(map(quoted, codes))}) "
        f"THEN CAST(CAST(CAST({decimal} AS DECIMAL(28,{places})) * {10**places} AS DECIMAL(38,{places})) AS BIGINT)"
        for places, codes in by_places.items()
        if places != 2
    )
    return f"CASE {cases} ELSE CAST(CAST({decimal} AS DECIMAL(28,2)) * 100 AS BIGINT) END"


def unknown_currency(currency: str) -> Refusal:
    known = ", ".join(map(quoted, EXPONENTS))
    return Refusal(
        "unknown_currency",
        f"{currency} NOT IN ({known})",
        f"'currency ''' || left({currency}, 40) || ''' is no ISO 4217 code'",
    )


def instant(column: str, form: Format) -> str:
    """The time in `column` as TIMESTAMP WITH TIME ZONE; null where it is none.

    Without an offset it is a time of `form.time_zone`, summer time regarded; without a time it is midnight there.
    """
    zone = quoted(form.time_zone)
    if form.ordered_at:
        parsed = f"try_strptime({column}, {quoted(form.ordered_at)})"
        return parsed if "%z" in form.ordered_at else f"({parsed} AT TIME ZONE {zone})"
    return (
        f"CASE WHEN {column} NOT LIKE '____-__-__%' THEN NULL "
        f"WHEN regexp_matches(substr({column}, 11), '[A-SU-Za-z+-]') THEN TRY_CAST({column} AS TIMESTAMPTZ) "
        f"ELSE TRY_CAST({column} AS TIMESTAMP) AT TIME ZONE {zone} END"
    )


def not_an_instant(column: str, form: Format) -> list[Refusal]:
    """Refusals, from `column` and its value `NAME_value`, for what is no date, or one that no shop can have sold at."""
    shown = f"{quoted(column + ' ')} || '''' || left({column}, 40) || ''''"
    wanted = f"like {form.ordered_at}" if form.ordered_at else "in ISO 8601, such as 2024-05-31T18:30:00Z"
    return [
        Refusal("bad_date", f"{column}_value IS NULL", f"{shown} || {quoted(f' is no date {wanted}')}"),
        Refusal(
            "absurd_date",
            f"year({column}_value) NOT BETWEEN 1970 AND 2100",
            f"{shown} || ' is not between 1970 and 2100'",
        ),
    ]


def _dotted(column: str, form: Format) -> str:
    return f"replace(replace({column}, '.', '?'), ',', '.')" if form.decimal == "," else column
