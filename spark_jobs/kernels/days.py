"""Days as numbers: how many have passed since 1970-01-01."""

from __future__ import annotations

from datetime import date, timedelta

EPOCH = date(1970, 1, 1)


def number(day: date) -> int:
    return (day - EPOCH).days


def of(number: int) -> date:
    return EPOCH + timedelta(days=number)
